//! What the resident part does: the record follows the host where nobody has said otherwise, and the kernel the record.
//!
//! ```text
//! what is to be gone goes -> uplinks follow the default route -> addresses and MTUs are noted
//!   -> instance, uplinks, addresses, networks, rules: each looked at and brought back by itself
//!   -> endpoints, ports, floating addresses: those that are concerned, likewise (as `vnet up` does)
//! ```
//!
//! One thing that cannot be brought back keeps nothing else from it, and stays recorded.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use super::host::{Addresses, Host, Refresh};
use super::limit::check_bursts;
use super::network::{OfUplinks, check_mtu, network_resources, users};
use super::reachable::in_full;
use super::up::{forwarding, free_rules};
use super::{Claim, Error, Manager, Mode, Steps, Wanted, check_namespace, kernel};
use crate::instance::Instance;
use crate::plan::{self, Op, Resource, State, expand};
use crate::reconcile::{self, Machine};
use crate::spec::{Cgroup, CgroupPath, InterfaceName, Name, Namespace, Network, Settings, Xdp};
use crate::store::Transaction;

/// What of an instance is looked at beside what all of it depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Everything.
    pub everything: bool,
    /// All endpoints, and the direct links between them.
    pub endpoints: bool,
    /// Endpoints to which interfaces of the host of these names lead.
    pub interfaces: BTreeSet<String>,
    /// Endpoints of these names.
    pub names: BTreeSet<String>,
}

impl Scope {
    /// Everything.
    #[must_use]
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }
}

/// A part of an instance that is repaired by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// What every instance has, whatever its networks.
    Instance,
    /// An uplink.
    Uplink(InterfaceName),
    /// The host's addresses, as the data path knows them.
    Addresses,
    /// A network.
    Network(Name),
    /// Rules that belong to no network.
    Rules,
    /// An endpoint.
    Endpoint(Name),
    /// A direct link, as people read it.
    Direct(String),
    /// Published ports, as people read them.
    PortMap(String),
    /// A floating address.
    Floating(IpAddr),
    /// Where what limited cgroups send waits, on an uplink.
    Shaping(InterfaceName),
    /// The limit of a cgroup.
    Cgroup(Cgroup),
}

impl Object {
    /// Every kind.
    pub const KINDS: [&'static str; 11] = [
        "instance",
        "uplink",
        "addresses",
        "network",
        "rules",
        "endpoint",
        "direct",
        "portmap",
        "floating",
        "shaping",
        "cgroup",
    ];

    /// What it is, in a word of [`Self::KINDS`].
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Uplink(_) => "uplink",
            Self::Addresses => "addresses",
            Self::Network(_) => "network",
            Self::Rules => "rules",
            Self::Endpoint(_) => "endpoint",
            Self::Direct(_) => "direct",
            Self::PortMap(_) => "portmap",
            Self::Floating(_) => "floating",
            Self::Shaping(_) => "shaping",
            Self::Cgroup(_) => "cgroup",
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance => f.write_str("the instance"),
            Self::Uplink(name) => write!(f, "uplink {name}"),
            Self::Addresses => f.write_str("the host's addresses"),
            Self::Network(name) => write!(f, "network {name}"),
            Self::Rules => f.write_str("the rules"),
            Self::Endpoint(name) => write!(f, "endpoint {name}"),
            Self::Direct(link) => write!(f, "direct link {link}"),
            Self::PortMap(mapping) => write!(f, "mapping {mapping}"),
            Self::Floating(external) => write!(f, "floating address {external}"),
            Self::Shaping(uplink) => write!(f, "shaping on uplink {uplink}"),
            Self::Cgroup(cgroup) => write!(f, "limit of {}", cgroup.in_full()),
        }
    }
}

/// A part that was not as recorded, and what came of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The part.
    pub object: Object,
    /// What was found, in words.
    pub found: Vec<String>,
    /// The steps that were done; of a dry run, that would be.
    pub ops: Vec<Op>,
    /// Why it could not be repaired.
    pub failure: Option<String>,
}

/// What came of looking at an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// What was not as recorded.
    pub repairs: Vec<Repair>,
    /// Things worth knowing.
    pub notes: Vec<String>,
    /// How many entries of flows went with addresses that the host has lost.
    pub forgotten: usize,
    /// The interfaces that are the instance's or its uplinks.
    pub interfaces: BTreeSet<String>,
    /// The names of its endpoints, and of their namespaces.
    pub endpoints: BTreeSet<String>,
    /// The cgroups of the unified hierarchy that are limited.
    pub cgroups: Vec<CgroupPath>,
}

/// A part with what it is made of.
pub(super) struct Part {
    object: Object,
    wanted: Vec<Resource>,
    obsolete: Vec<Resource>,
}

impl Part {
    pub(super) fn new(object: Object, wanted: Vec<Resource>) -> Self {
        Self { object, wanted, obsolete: Vec::new() }
    }
}

impl<M: Machine> Manager<M> {
    /// Looks at the instance and brings back what is not as recorded, but for what is in `later`.
    ///
    /// # Errors
    /// When the record or the host cannot be read, or another build of vnet has taken the instance over. What cannot be
    /// repaired is no error.
    pub async fn repair(&self, scope: &Scope, later: &BTreeSet<Object>) -> Result<Repaired, Error> {
        if self.machine.has_other_build() {
            return Err(Error::OtherBuild);
        }
        let mut done = Repaired::default();
        if let Err(error) = self.finish_going().await {
            done.repairs.push(Repair::of_nothing(Object::Instance, &error));
        }
        let host = Host::observe(&self.machine).await?;
        self.follow_default_route(&host, &mut done).await?;

        let (transaction, mut settings) = self.begin()?;
        let followed = self.follow_bridge(&transaction, &mut settings).await?;
        let host = host.with_leg(settings.router.as_ref());
        done.interfaces = transaction.interfaces()?.into_iter().collect();
        done.endpoints = transaction.endpoint_names()?.into_iter().collect();
        done.interfaces.extend(settings.uplinks.iter().map(ToString::to_string));
        let known = transaction.host_addresses()?;
        let Refresh { wanted, obsolete } = self.refresh(&transaction, &Addresses::from(&host))?;
        let gone: Vec<IpAddr> = obsolete.iter().filter_map(Resource::as_host_address).collect();
        let followers = self.follow_uplinks(&transaction, &host, &settings, &mut done.notes)?;
        let addresses = wanted.into_iter().map(|wanted| wanted.resource).collect();
        let addresses = Part { obsolete, ..Part::new(Object::Addresses, addresses) };
        done.notes.extend(uplink_notes(&host, &settings));
        let parts = foundation_parts(&self.instance, &transaction, &settings, &host, addresses)?;
        if followers.is_empty() && !followed && transaction.host_addresses()? == known {
            drop(transaction);
        } else {
            transaction.commit()?;
        }

        let mut changed: BTreeSet<Name> = followers.into_iter().map(|network| network.name).collect();
        let mut everything = scope.everything;
        for part in parts.into_iter().filter(|part| !later.contains(&part.object)) {
            let object = part.object.clone();
            let Some(repair) = self.settle_part(part).await else { continue };
            let failed = repair.failure.is_some();
            done.repairs.push(repair);
            match object {
                // Nothing else can be there without it.
                Object::Instance if failed => return Ok(done),
                // Maps that are made anew are empty.
                Object::Instance => everything = true,
                Object::Network(name) => drop(changed.insert(name)),
                _ => {}
            }
        }
        if !done.has_failed(&Object::Addresses) && !later.contains(&Object::Addresses) {
            done.forgotten = self.forget_host_addresses(&gone)?;
        }

        let (transaction, settings) = self.begin()?;
        let mut parts = if everything {
            object_parts(&transaction)?
        } else {
            self.concerned(&transaction, scope, &changed)?
        };
        // News of cgroups say no more than that.
        done.cgroups = transaction.limited_cgroups()?;
        parts.extend(self.limit_parts(&transaction, &settings).await?);
        drop(transaction);
        for part in parts.into_iter().filter(|part| !later.contains(&part.object)) {
            done.repairs.extend(self.settle_part(part).await);
        }
        Ok(done)
    }

    /// The endpoints that a scope names, and those of networks that have changed.
    fn concerned(
        &self,
        transaction: &Transaction,
        scope: &Scope,
        changed: &BTreeSet<Name>,
    ) -> Result<Vec<Part>, Error> {
        if scope.endpoints {
            let mut parts = endpoint_parts(transaction)?;
            parts.extend(direct_parts(transaction)?);
            return Ok(parts);
        }
        let mut names = scope.names.clone();
        for interface in &scope.interfaces {
            names.extend(transaction.owner_of_interface(interface)?);
        }
        for network in changed {
            names.extend(users(transaction, network)?.into_iter().map(|user| user.name.to_string()));
        }
        let mut parts = Vec::new();
        for name in names.iter().filter_map(|name| name.parse::<Name>().ok()) {
            if let Some(endpoint) = transaction.endpoint(&name)? {
                let networks = transaction.networks_of(&endpoint)?;
                parts.push(Part::new(Object::Endpoint(name), expand::endpoint(&endpoint, &networks)));
            }
        }
        Ok(parts)
    }

    /// Takes an instance over from another build of vnet; nothing if it is this one's.
    ///
    /// # Errors
    /// When the record cannot be read, or that build's maps cannot be taken over.
    pub async fn take_over(&self) -> Result<Option<Repair>, Error> {
        if !self.machine.has_other_build() {
            return Ok(None);
        }
        let settings = self.store.begin()?.settings()?;
        let settings = settings.ok_or_else(|| crate::store::Error::not_up(&self.instance))?;
        check_namespace(&self.instance, &self.machine, Some(&settings))?;
        self.machine.check_takeover().map_err(kernel("look at the maps"))?;
        let programs = vec![Resource::DataPath(settings.tables)];
        Ok(self.settle_part(Part::new(Object::Instance, programs)).await)
    }

    /// Brings a part back to what is recorded; nothing if it is as recorded.
    pub(super) async fn settle_part(&self, part: Part) -> Option<Repair> {
        let Part { object, wanted, obsolete } = part;
        let desired = match reconcile::observe(&self.machine, wanted).await {
            Ok(desired) => desired,
            Err(error) => return Some(Repair::of_nothing(object, &error)),
        };
        let obsolete = reconcile::observe_obsolete(&self.machine, obsolete).await;
        let plan = plan::plan(&desired, &obsolete);
        if plan.ops.is_empty() {
            return None;
        }
        let mut found: Vec<String> = desired.iter().filter_map(difference).collect();
        let gone = obsolete.iter().filter(|(_, state)| *state != State::Absent);
        found.extend(gone.map(|(resource, _)| format!("{resource}: gone from the host")));
        let failure = match self.refusal(&object, &plan.ops).await {
            None if self.mode == Mode::DryRun => None,
            None => reconcile::apply(&self.machine, &plan).await.err().map(|failure| failure.to_string()),
            refusal => refusal,
        };
        let ops = if failure.is_some() { Vec::new() } else { plan.ops };
        Some(Repair { object, found, ops, failure })
    }

    /// Why steps are not to be done: a foreign namespace is known by a path, and another may be behind it by now. It is
    /// not if an interface of the host leads there whose other end has its name.
    async fn refusal(&self, object: &Object, ops: &[Op]) -> Option<String> {
        let Object::Endpoint(name) = object else { return None };
        let endpoint = self.store.begin().ok()?.endpoint(name).ok()??;
        if !matches!(endpoint.namespace, Namespace::Foreign { .. }) {
            return None;
        }
        for op in ops {
            let same = match op {
                Op::Create(Resource::Veth(_)) => false,
                Op::Change(Resource::Veth(veth)) => self.machine.is_whole(veth).await.unwrap_or(false),
                _ => true,
            };
            if !same {
                return Some(format!(
                    "its namespace may be another by now; run `vnet ns rm {name}` and attach it again"
                ));
            }
        }
        None
    }

    /// Makes the interfaces with a default route the uplinks, if nobody has named others. The new ones have their programs
    /// before the old ones lose theirs; those that were given an XDP mode stay.
    async fn follow_default_route(&self, host: &Host, done: &mut Repaired) -> Result<(), Error> {
        let (transaction, settings) = self.begin()?;
        // Without a default route the uplinks stay: there is no better one.
        let Ok(mut leading) = host.default_uplinks() else { return Ok(()) };
        for nth in (0..leading.len()).rev() {
            if transaction.has_interface(leading[nth].as_str())? {
                leading.remove(nth);
            }
        }
        let Some(first) = leading.first() else { return Ok(()) };
        if !settings.follows_default_route {
            if !leading.iter().any(|name| settings.uplinks.contains(name)) {
                done.notes.push(format!(
                    "the default route leads out of {first}, which is no uplink: `vnet up --uplink {first}` makes it one"
                ));
            }
            return Ok(());
        }
        let new: Vec<_> = leading.iter().filter(|name| !settings.uplinks.contains(name)).cloned().collect();
        let is_old = |name: &InterfaceName| !leading.contains(name) && settings.xdp_of(name) == Xdp::Off;
        let old: Vec<InterfaceName> = settings.uplinks.iter().filter(|name| is_old(name)).cloned().collect();
        if let Some(name) = new.first() {
            let kept = settings.uplinks.iter().filter(|name| !leading.contains(name));
            let uplinks = leading.iter().chain(kept).cloned().collect();
            let both = Settings { uplinks, ..settings };
            transaction.set_settings(&both)?;
            let mut wanted: Vec<Wanted> = Claim::New.on(new.iter().flat_map(expand::uplink));
            wanted.extend(Claim::Recorded.on(forwarding(&both)));
            let steps = Steps { wanted, obsolete: Vec::new(), former: Vec::new() };
            let found = vec![format!("the default route leads out of {}", list(&new))];
            let object = Object::Uplink(name.clone());
            let changed = self.change(transaction, &object.to_string(), steps).await;
            let failed = changed.is_err();
            done.repairs.push(match changed {
                Ok(ops) => Repair { object, found, ops, failure: None },
                Err(error) => Repair { found, ..Repair::of_nothing(object, &error) },
            });
            if failed {
                return Ok(());
            }
        } else {
            drop(transaction);
        }
        let Some(name) = old.first() else { return Ok(()) };
        let (transaction, mut settings) = self.begin()?;
        settings.uplinks.retain(|name| !old.contains(name));
        transaction.set_settings(&settings)?;
        let mut going = transaction.going()?;
        going.uplinks.extend(old.iter().cloned());
        transaction.set_going(&going)?;
        transaction.commit()?;
        let found = vec![format!("no default route leads out of {} any more", list(&old))];
        let object = Object::Uplink(name.clone());
        done.repairs.push(match self.finish_going().await {
            Ok(ops) => Repair { object, found, ops, failure: None },
            Err(error) => Repair { found, ..Repair::of_nothing(object, &error) },
        });
        Ok(())
    }

    /// Notes for networks whose MTU nobody has chosen what the uplinks have now; gives the networks as they were before.
    pub(super) fn follow_uplinks(
        &self,
        transaction: &Transaction,
        host: &Host,
        settings: &Settings,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Network>, Error> {
        if !settings.uplinks.iter().any(|name| host.interface(name.as_str()).is_some()) {
            return Ok(Vec::new());
        }
        let OfUplinks { mtu, gso } = OfUplinks::observe(host, &settings.uplinks);
        let mut before = Vec::new();
        for network in transaction.networks()?.into_iter().filter(|network| network.follows_uplink) {
            if (network.mtu, network.gso) == (mtu, gso) {
                continue;
            }
            let next = Network { mtu, gso, ..network.clone() };
            let endpoints = users(transaction, &network.name)?;
            let fits = check_mtu(mtu, &next.segments);
            let fits = fits.and_then(|()| endpoints.iter().try_for_each(|user| check_bursts(user, &next)));
            if let Err(error) = fits {
                let Network { name, mtu, .. } = network;
                notes.push(format!("network {name} keeps its MTU of {mtu}: {error}"));
                continue;
            }
            transaction.put_network(&next)?;
            before.push(network);
        }
        Ok(before)
    }
}

impl Repair {
    /// That nothing could be done about a part, not even look at it.
    #[must_use]
    pub fn of_nothing(object: Object, error: &(dyn std::error::Error + 'static)) -> Self {
        Self { object, found: Vec::new(), ops: Vec::new(), failure: Some(in_full(error)) }
    }
}

impl Repaired {
    fn has_failed(&self, object: &Object) -> bool {
        self.repairs.iter().any(|repair| repair.object == *object && repair.failure.is_some())
    }
}

/// How a resource is not as described.
fn difference((resource, state): &(Resource, State)) -> Option<String> {
    match state {
        State::Present => None,
        State::Absent => Some(format!("{resource}: missing")),
        State::Differs(how) => Some(format!("{resource}: {how}")),
    }
}

/// What all else depends on, in the order of creation.
fn foundation_parts(
    instance: &Instance,
    transaction: &Transaction,
    settings: &Settings,
    host: &Host,
    addresses: Part,
) -> Result<Vec<Part>, Error> {
    let mut parts = vec![Part::new(Object::Instance, expand::instance(settings, transaction.port_blocks()?))];
    let forwarding = forwarding(settings);
    for name in &settings.uplinks {
        // One that is gone is one again when it comes back.
        if host.interface(name.as_str()).is_none() {
            continue;
        }
        let link = settings.router.as_ref().filter(|router| router.ifname == *name);
        let mut wanted = link.map_or_else(Vec::new, |_| expand::router(instance.name(), settings));
        wanted.extend(expand::uplink(name));
        wanted.extend(expand::xdp(name, settings.xdp_of(name)));
        let own = |resource: &&Resource| matches!(resource, Resource::Forwarding { interface } if interface == name.as_str());
        wanted.extend(forwarding.iter().filter(own).cloned());
        parts.push(Part::new(Object::Uplink(name.clone()), wanted));
    }
    parts.push(addresses);
    for network in transaction.networks()? {
        let resources = network_resources(transaction, &network, Claim::Recorded)?;
        let resources = resources.into_iter().map(|wanted| wanted.resource).collect();
        parts.push(Part::new(Object::Network(network.name), resources));
    }
    let mut rules: Vec<Resource> = free_rules(transaction)?.into_iter().map(|rule| rule.resource).collect();
    rules.extend(transaction.unmasqueraded()?.into_iter().map(expand::unmasqueraded));
    rules.extend(transaction.denied()?.into_iter().map(expand::denied));
    parts.push(Part::new(Object::Rules, rules));
    Ok(parts)
}

/// Everything that is on the networks or leads there.
pub(super) fn object_parts(transaction: &Transaction) -> Result<Vec<Part>, Error> {
    let mut parts = endpoint_parts(transaction)?;
    parts.extend(direct_parts(transaction)?);
    parts.extend(
        transaction
            .port_maps()?
            .iter()
            .map(|mapping| Part::new(Object::PortMap(mapping.to_string()), expand::port_map(mapping))),
    );
    parts.extend(
        transaction
            .floatings()?
            .iter()
            .map(|floating| Part::new(Object::Floating(floating.external), expand::floating(floating))),
    );
    Ok(parts)
}

fn direct_parts(transaction: &Transaction) -> Result<Vec<Part>, Error> {
    let links = transaction.directs()?.into_iter();
    Ok(links.map(|link| Part::new(Object::Direct(link.to_string()), vec![expand::direct(&link)])).collect())
}

fn endpoint_parts(transaction: &Transaction) -> Result<Vec<Part>, Error> {
    let mut parts = Vec::new();
    for endpoint in transaction.endpoints()? {
        let networks = transaction.networks_of(&endpoint)?;
        let resources = expand::endpoint(&endpoint, &networks);
        parts.push(Part::new(Object::Endpoint(endpoint.name), resources));
    }
    Ok(parts)
}

/// What is worth knowing of the uplinks as they are.
fn uplink_notes(host: &Host, settings: &Settings) -> Vec<String> {
    let note = |name: &InterfaceName| match host.interface(name.as_str()) {
        None => Some(format!("uplink {name} is gone: it is one again when it comes back")),
        Some(interface) if !interface.up => {
            Some(format!("uplink {name} is down: nothing passes before it is up"))
        }
        Some(_) => None,
    };
    settings.uplinks.iter().filter_map(note).collect()
}

fn list(names: &[InterfaceName]) -> String {
    names.iter().map(InterfaceName::as_str).collect::<Vec<_>>().join(", ")
}
