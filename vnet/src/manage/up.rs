//! Up and down: the instance itself.

use std::fmt;

use super::deny::uncovered;
use super::error::{Refusals, there_are};
use super::going;
use super::host::{Addresses, Host, Refresh};
use super::network::{OfUplinks, list, network_resources, note_network, without_rule};
use super::pool::default_subnets;
use super::port_map::mapping_name;
use super::repair::object_parts;
use super::{
    Claim, Done, Error, Manager, Mode, NetworkRequest, RouterRequest, Steps, Wanted, check_home, kernel,
};
use crate::instance::Instance;
use crate::ours;
use crate::plan::{self, Op, Plan, Resource, State, expand};
use crate::reconcile::{self, Machine};
use crate::spec::{
    Firewall, FloodLimits, Hold, InterfaceName, Name, Network, Router, Settings, SettingsChange, Subnet,
    TableSizes, TimeoutSetting, Xdp,
};
use crate::store::{self, Store, Transaction};

/// What is said where [`Hold`] is impossible.
const NO_HOLD: &str = "the kernel has no token bucket filter (CONFIG_NET_SCH_TBF): fragments that come before the \
                       first of their datagram are dropped";

/// An instance to bring up.
#[derive(Clone, Debug, Default)]
pub struct UpRequest {
    /// Its uplinks; those with a default route without.
    pub uplinks: Vec<InterfaceName>,
    /// Prefixes of the default network; ours without.
    pub subnets: Vec<Subnet>,
    /// Bridge of the default network; `vnet0` without.
    pub bridge: Option<InterfaceName>,
    /// What is to hold for it; what is recorded, or else documented, without.
    pub change: SettingsChange,
    /// What makes it a router; it is none, or what is recorded, without.
    pub router: Option<RouterRequest>,
}

/// An instance that is up.
#[derive(Clone, Debug)]
pub struct Instantiated {
    /// What holds for it.
    pub settings: Settings,
    /// Its default network.
    pub network: Network,
}

/// What an instance is to be.
pub(super) struct InstanceWish<'a> {
    /// What holds where nothing else is wished; nothing if it is not up.
    pub(super) base: Option<Settings>,
    /// Uplinks it is to have besides; those with a default route without.
    pub(super) uplinks: &'a [InterfaceName],
    pub(super) change: &'a SettingsChange,
    /// Of a router, its link to the outside, which is one of the uplinks.
    pub(super) router: Option<Router>,
}

/// What is to hold for an instance, and what did before.
pub(super) struct Noted {
    pub(super) settings: Settings,
    /// Nothing if it was not up.
    pub(super) recorded: Option<Settings>,
    /// Uplinks it had, and whose interfaces are gone.
    pub(super) gone: Vec<InterfaceName>,
    /// What is worth knowing.
    pub(super) notes: Vec<String>,
}

/// The uplinks of an instance that comes up.
struct Uplinks {
    uplinks: Vec<InterfaceName>,
    /// Those it had, and whose interfaces are gone.
    gone: Vec<InterfaceName>,
    /// What is worth knowing of them.
    notes: Vec<String>,
}

impl<M: Machine> Manager<M> {
    /// Opens an instance that may not be up yet. A dry run of one that is not leaves no trace.
    ///
    /// # Errors
    /// When its record cannot be read or made.
    pub fn create(instance: &Instance, machine: M, mode: Mode, now: u64) -> Result<Self, Error> {
        let store = match mode {
            Mode::DryRun if !Store::exists(instance)? => Store::in_memory()?,
            _ => Store::create(instance)?,
        };
        Ok(Self::on(store, instance, machine, mode, now))
    }

    /// Brings the instance up, and back to what is recorded of it if something of that has gone.
    ///
    /// # Errors
    /// When it cannot be, or when the request says something else than what is up and cannot be changed.
    pub async fn up(&self, request: &UpRequest) -> Result<Done<Instantiated>, Error> {
        self.unless_refused(self.bring_up(request)).await
    }

    /// What may bring an instance up: one that was not up and did not come up leaves no record.
    pub(super) async fn unless_refused<T>(
        &self,
        verb: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let fresh = self.store.begin()?.settings()?.is_none();
        let result = verb.await;
        let unfinished = |error: &Error| {
            matches!(error, Error::MadeInPart { .. } | Error::Incomplete { .. } | Error::Unsettled { .. })
        };
        if fresh && result.as_ref().is_err_and(|error| !unfinished(error)) {
            self.store.delete()?;
        }
        result
    }

    async fn bring_up(&self, request: &UpRequest) -> Result<Done<Instantiated>, Error> {
        let transaction = self.store.begin()?;
        let recorded = transaction.settings()?;
        let moved = check_home(&self.instance, &self.machine, recorded.as_ref())?;
        let router = self.describe_router(recorded.as_ref(), request.router.as_ref()).await?;
        let host = Host::observe(&self.machine).await?.with_leg(router.as_ref());
        let (base, uplinks) = (recorded.clone(), &request.uplinks[..]);
        let wish = InstanceWish { base, uplinks, change: &request.change, router };
        let mut noted = self.note_settings(&transaction, &host, recorded, wish).await?;
        let network = self.default_network(&transaction, &host, &noted.settings, request)?;
        // An uplink that is gone stays noted until its programs are gone as well.
        let mut with_gone = noted.settings.clone();
        with_gone.uplinks.extend(noted.gone.iter().cloned());
        transaction.set_settings(&with_gone)?;

        let before = self.follow_uplinks(&transaction, &host, &noted.settings, &mut noted.notes)?;
        let network = transaction.network(&network.name)?.unwrap_or(network);
        noted.notes.extend(idle_limits(&transaction, &noted.settings)?);
        let claim = Claim::of(noted.recorded.as_ref());
        let mut steps = self.foundation(&transaction, &Addresses::from(&host), &noted, |_| claim)?;
        steps.former.extend(before.iter().flat_map(expand::network));
        steps.obsolete.splice(0..0, noted.gone.iter().flat_map(expand::uplink));
        self.prepare_home(&transaction, &noted.settings, moved).await?;
        let mut ops = self.change(transaction, "the instance", steps).await?;
        let Noted { settings, recorded, gone, notes } = noted;
        if !gone.is_empty() && self.mode == Mode::Apply {
            let transaction = self.store.begin()?;
            transaction.set_settings(&settings)?;
            transaction.commit()?;
        }
        if recorded.is_some() {
            ops.extend(self.bring_back().await?);
        }
        Ok(Done { value: Instantiated { settings, network }, ops, notes })
    }

    /// What is to hold for the instance from now on, which is not written yet. `recorded` is what held before.
    pub(super) async fn note_settings(
        &self,
        transaction: &Transaction,
        host: &Host,
        recorded: Option<Settings>,
        wish: InstanceWish<'_>,
    ) -> Result<Noted, Error> {
        let InstanceWish { base, uplinks, change, router } = wish;
        let leg = router.iter().map(|router| &router.ifname);
        let named: Vec<InterfaceName> = leg.chain(uplinks).cloned().collect();
        let named = &named[..];
        self.machine.check_takeover().map_err(kernel("look at the maps"))?;
        if recorded.is_none() {
            // Before anything else is said of what is left of an instance whose record is lost.
            self.plan(Claim::New.on([Resource::DataPath(TableSizes::default())]), Vec::new()).await?;
        }
        let mut refusals = Refusals::default();
        let before = base.as_ref().map_or(&[][..], |base| &base.uplinks);
        let chosen = refusals.take(self.choose_uplinks(transaction, host, before, named))?;
        let settings = refusals.take(self.settings(transaction, recorded.as_ref(), base, change))?;
        let Some((settings, Uplinks { uplinks, gone, mut notes })) = settings.zip(chosen) else {
            return Err(refusals.into_error());
        };
        let hold = self.choose_hold(transaction, host, settings.hold).await?;
        if hold.is_none() {
            notes.push(NO_HOLD.to_owned());
        }
        // Whoever names one has chosen; what was there before is chosen with it.
        let follows_default_route =
            named.is_empty() && recorded.as_ref().is_none_or(|recorded| recorded.follows_default_route);
        // A router whose namespace has gone is in another.
        let namespace = self.machine.namespace().map_err(kernel("ask for the host's network namespace"))?;
        let mut settings = Settings { uplinks, follows_default_route, hold, router, namespace, ..settings };
        settings.xdp.retain(|name, _| settings.uplinks.contains(name));
        for setting in &change.xdp {
            let set = settings.set_xdp(setting).map_err(|name| not_an_uplink(name, &settings));
            refusals.take(set)?;
        }
        refusals.into_result()?;
        notes.extend(change.timeouts.iter().copied().filter_map(TimeoutSetting::note));
        Ok(Noted { settings, recorded, gone, notes })
    }

    /// Everything of an instance but endpoints, mappings and floating addresses. `claim` says which networks are new.
    pub(super) fn foundation(
        &self,
        transaction: &Transaction,
        host: &Addresses,
        noted: &Noted,
        claim: impl Fn(&Network) -> Claim,
    ) -> Result<Steps, Error> {
        let Noted { settings, recorded, gone, .. } = noted;
        let Refresh { wanted, mut obsolete } = self.refresh(transaction, host)?;
        obsolete.extend(obsolete_choices(transaction, settings, gone)?);
        let link = recorded.as_ref().and_then(|recorded| recorded.router.as_ref());
        let mut all = Claim::of(link).on(expand::router(self.instance.name(), settings));
        all.extend(foundation(transaction, settings, recorded.as_ref(), wanted, claim)?);
        let wanted = all;
        let mut former = match recorded {
            Some(recorded) => {
                let link = expand::router(self.instance.name(), recorded);
                link.into_iter().chain(of_settings(recorded, transaction.port_blocks()?)).collect()
            }
            None => Vec::new(),
        };
        // What is gone cannot be as it was.
        former.retain(|resource| match resource {
            Resource::Forwarding { interface } | Resource::Xdp { interface, .. } => {
                !gone.iter().any(|name| name.as_str() == interface)
            }
            _ => true,
        });
        Ok(Steps { wanted, obsolete, former })
    }

    /// What is to hold for the instance, uplinks apart.
    fn settings(
        &self,
        transaction: &Transaction,
        recorded: Option<&Settings>,
        base: Option<Settings>,
        change: &SettingsChange,
    ) -> Result<Settings, Error> {
        let Some((recorded, base)) = recorded.zip(base) else {
            let namespace =
                self.machine.namespace().map_err(kernel("ask for the host's network namespace"))?;
            return Ok(change.onto(Settings::new(namespace, self.now)));
        };
        let settings = change.onto(base);
        let mut refusals = Refusals::default();
        refusals.take(check_tables(settings.tables, recorded.tables))?;
        if settings.nat_ports != recorded.nat_ports {
            refusals.take(self.check_nat_ports(transaction, &settings))?;
        }
        refusals.into_result()?;
        Ok(settings)
    }

    /// Checks that none of the ports for masquerade is published.
    fn check_nat_ports(&self, transaction: &Transaction, settings: &Settings) -> Result<(), Error> {
        let ports = settings.nat_ports;
        let published = transaction.port_maps()?.into_iter().find(|it| it.published.ports.overlaps(ports));
        match published {
            None => Ok(()),
            Some(mapping) => {
                let remove = mapping_name(&mapping);
                Err(Error::PortsPublished { ports, mapping: Box::new(mapping), remove })
            }
        }
    }

    /// What comes before the record of a router says where it is: the mark by which commands find that out, and an end to
    /// what is left of where it was.
    pub(super) async fn prepare_home(
        &self,
        transaction: &Transaction,
        settings: &Settings,
        moved: bool,
    ) -> Result<(), Error> {
        if moved {
            self.leave_former_home(transaction).await?;
        }
        if settings.router.is_some() && self.mode == Mode::Apply {
            self.store.mark_router()?;
        }
        Ok(())
    }

    /// Where fragments are to wait, if the kernel has what it takes: where it is recorded, or between two new interfaces.
    async fn choose_hold(
        &self,
        transaction: &Transaction,
        host: &Host,
        recorded: Option<Hold>,
    ) -> Result<Option<Hold>, Error> {
        let possible = self.machine.can_hold_fragments().await;
        if !possible.map_err(kernel("ask whether fragments can wait"))? {
            return Ok(None);
        }
        if recorded.is_some() {
            return Ok(recorded);
        }
        for (entrance, exit) in ours::hold_interfaces(self.instance.name()) {
            let mut free = true;
            for name in [&entrance, &exit] {
                free &=
                    host.interface(name.as_str()).is_none() && !transaction.has_interface(name.as_str())?;
            }
            if free {
                let hold = Hold { entrance, exit };
                transaction.put_hold(&hold)?;
                return Ok(Some(hold));
            }
        }
        Ok(None)
    }

    /// The uplinks it has, less those whose interfaces are gone, and those that are named or have a default route.
    fn choose_uplinks(
        &self,
        transaction: &Transaction,
        host: &Host,
        before: &[InterfaceName],
        named: &[InterfaceName],
    ) -> Result<Uplinks, Error> {
        let (mut uplinks, gone): (Vec<_>, Vec<_>) =
            before.iter().cloned().partition(|name| host.interface(name.as_str()).is_some());
        let gone_note = |name| format!("uplink {name} is gone and no uplink any more");
        let mut notes: Vec<String> = gone.iter().map(gone_note).collect();
        let chosen = match (named, host.default_uplinks()) {
            ([], Ok(uplinks)) => uplinks,
            // Without a default route, an instance that is up keeps the uplinks it has.
            ([], Err(_)) if !uplinks.is_empty() => Vec::new(),
            ([], Err(error)) => return Err(error),
            (named, _) => named.to_vec(),
        };
        let mut refusals = Refusals::default();
        for name in chosen {
            if transaction.has_interface(name.as_str())? {
                refusals.take(Err::<(), _>(Error::OwnInterface { name }))?;
                continue;
            }
            notes.extend(refusals.take(host.check_uplink(&name))?.flatten());
            if !uplinks.contains(&name) {
                uplinks.push(name);
            }
        }
        refusals.into_result()?;
        Ok(Uplinks { uplinks, gone, notes })
    }

    /// The default network: the one that is recorded, if the request does not contradict it, or a new one.
    fn default_network(
        &self,
        transaction: &Transaction,
        host: &Host,
        settings: &Settings,
        request: &UpRequest,
    ) -> Result<Network, Error> {
        let name = Name::default_network();
        if let Some(network) = transaction.network(&name)? {
            return same_default_network(request, network);
        }
        let networks = transaction.networks()?;
        let subnets = match &request.subnets[..] {
            [] => default_subnets(self.instance.name(), host, &networks, self.machine.has_ipv6())?,
            named => named.to_vec(),
        };
        let bridge = request.bridge.clone();
        let plain = NetworkRequest { subnets, bridge, ..NetworkRequest::plain(name) };
        let network =
            self.describe_network(transaction, host, &plain, OfUplinks::observe(host, &settings.uplinks))?;
        if let Some(uplink) = settings.uplinks.iter().find(|uplink| **uplink == network.bridge) {
            return Err(Error::BridgeIsUplink { name: uplink.clone() });
        }
        note_network(transaction, &network)?;
        Ok(network)
    }

    /// Brings back what has gone of endpoints, mappings and floating addresses. What cannot be brought back stays recorded.
    async fn bring_back(&self) -> Result<Vec<Op>, Error> {
        if self.mode == Mode::Apply {
            self.finish_going().await?;
        }
        // Of a dry run the maps may still be another version's, and a router's namespace gone.
        let transaction = self.store.begin()?;
        let mut parts = object_parts(&transaction)?;
        if let Some(settings) = transaction.settings()? {
            parts.extend(self.limit_parts(&transaction, &settings).await?);
        }
        drop(transaction);
        let mut ops = Vec::new();
        let mut failures = Vec::new();
        for part in parts {
            let Some(repair) = self.settle_part(part).await else { continue };
            ops.extend(repair.ops);
            failures.extend(repair.failure.map(|failure| format!("{}: {failure}", repair.object)));
        }
        if failures.is_empty() { Ok(ops) } else { Err(Error::Incomplete { failures }) }
    }

    pub(super) async fn plan_recorded(&self, resources: Vec<Resource>) -> Result<Plan, Error> {
        self.plan(Claim::Recorded.on(resources), Vec::new()).await
    }
}

/// Everything of an instance but endpoints, mappings and floating addresses.
fn foundation(
    transaction: &Transaction,
    settings: &Settings,
    recorded: Option<&Settings>,
    host_addresses: Vec<Wanted>,
    claim: impl Fn(&Network) -> Claim,
) -> Result<Vec<Wanted>, Error> {
    let mut wanted = Claim::of(recorded).on(expand::instance(settings, transaction.port_blocks()?));
    for uplink in &settings.uplinks {
        let known = recorded.filter(|recorded| recorded.uplinks.contains(uplink));
        wanted.extend(Claim::of(known).on(expand::uplink(uplink)));
        // Whoever noted the uplink noted its mode, so a link that is pinned is the instance's.
        wanted.extend(Claim::of(known).on(expand::xdp(uplink, settings.xdp_of(uplink))));
    }
    wanted.extend(Claim::Recorded.on(forwarding(settings)));
    wanted.extend(host_addresses);
    for network in transaction.networks()? {
        wanted.extend(network_resources(transaction, &network, claim(&network))?);
    }
    wanted.extend(free_rules(transaction)?);
    wanted.extend(Claim::Recorded.on(transaction.unmasqueraded()?.into_iter().map(expand::unmasqueraded)));
    wanted.extend(Claim::Recorded.on(transaction.denied()?.into_iter().map(expand::denied)));
    Ok(wanted)
}

/// What the settings alone ask for, what every uplink has apart.
fn of_settings(settings: &Settings, port_blocks: u32) -> Vec<Resource> {
    let xdp = settings.xdp.iter().filter_map(|(uplink, mode)| expand::xdp(uplink, *mode));
    expand::instance(settings, port_blocks).into_iter().chain(forwarding(settings)).chain(xdp).collect()
}

/// An XDP mode for what is no uplink.
fn not_an_uplink(name: InterfaceName, settings: &Settings) -> Error {
    Error::NotThisUplink { name, uplinks: there_are(&settings.uplinks) }
}

/// What is asked for that nothing does, or not everywhere, as it takes XDP.
pub(super) fn idle_limits(transaction: &Transaction, settings: &Settings) -> Result<Option<String>, Error> {
    let limited = settings.flood != FloodLimits::default();
    let idle = match (limited, transaction.denied()?.is_empty()) {
        (false, true) => return Ok(None),
        (true, true) => "the limits of floods do nothing",
        (false, false) => "the deny list does nothing",
        (true, false) => "the deny list and the limits of floods do nothing",
    };
    if !settings.xdp.is_empty() {
        return Ok(uncovered(settings));
    }
    Ok(Some(format!("{idle} without XDP on an uplink: `vnet up --xdp native`")))
}

/// That the uplinks forward, where the host's stack has to.
pub(super) fn forwarding(settings: &Settings) -> Vec<Resource> {
    match settings.firewall {
        Firewall::Bypass => Vec::new(),
        Firewall::Respect => settings.uplinks.iter().map(expand::forwarding).collect(),
    }
}

/// What earlier choices asked for, and a command that changed them may not have lived to take away.
fn obsolete_choices(
    transaction: &Transaction,
    settings: &Settings,
    gone: &[InterfaceName],
) -> Result<Vec<Resource>, Error> {
    let bypassed = if settings.firewall == Firewall::Bypass { &settings.uplinks[..] } else { &[] };
    let mut obsolete: Vec<Resource> = gone.iter().chain(bypassed).map(expand::forwarding).collect();
    let without = settings.uplinks.iter().filter(|uplink| settings.xdp_of(uplink) == Xdp::Off);
    obsolete.extend(gone.iter().chain(without).filter_map(any_xdp));
    obsolete.extend(gone.iter().flat_map(expand::any_shaping));
    for network in transaction.networks()? {
        obsolete.extend(without_rule(transaction, &network)?);
    }
    Ok(obsolete)
}

/// The XDP program of an interface, to be taken away whatever its mode.
fn any_xdp(interface: &InterfaceName) -> Option<Resource> {
    expand::xdp(interface, Xdp::Native)
}

/// Checks that the tables are to be as large as they are: they cannot be made anew under what they hold.
fn check_tables(wanted: TableSizes, are: TableSizes) -> Result<(), Error> {
    if wanted == are {
        return Ok(());
    }
    let TableSizes { flows, unanswered } = are;
    Err(Error::Differs {
        what: "the instance".to_owned(),
        differences: format!("room for {flows} flows and {unanswered} unanswered ones"),
        remove: "vnet down".to_owned(),
    })
}

/// The masquerade rules that no network brought.
pub(super) fn free_rules(transaction: &Transaction) -> Result<Vec<Wanted>, Error> {
    let rules = transaction.masquerades()?;
    let free = rules.iter().filter(|rule| rule.network.is_none());
    Ok(Claim::Recorded.on(free.map(expand::masquerade)))
}

fn same_default_network(request: &UpRequest, network: Network) -> Result<Network, Error> {
    let subnets: Vec<Subnet> = network.segments.subnets().collect();
    let mut differences = Vec::new();
    let same = subnets.len() == request.subnets.len() && request.subnets.iter().all(|s| subnets.contains(s));
    if !request.subnets.is_empty() && !same {
        differences.push(format!("subnet {}", list(&subnets)));
    }
    if request.bridge.as_ref().is_some_and(|bridge| *bridge != network.bridge) {
        differences.push(format!("bridge {}", network.bridge));
    }
    if differences.is_empty() {
        return Ok(network);
    }
    let (what, differences) = ("the default network".to_owned(), differences.join(", "));
    Err(Error::Differs { what, differences, remove: "vnet down".to_owned() })
}

/// What was there to take down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Downed {
    /// An instance that was up.
    Instance,
    /// Maps and programs whose record was lost.
    Leftovers,
    /// Nothing.
    Nothing,
}

impl fmt::Display for Downed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Instance => "down",
            Self::Leftovers => "was not up; maps and programs without a record are removed",
            Self::Nothing => "was not up: nothing to remove",
        })
    }
}

/// Takes an instance down with everything in it, and its record last. An instance that is not up is down.
///
/// # Errors
/// Everything that could not be removed; its record stays then, for another attempt.
pub async fn down<M: Machine>(instance: &Instance, machine: &M, mode: Mode) -> Result<Done<Downed>, Error> {
    match Store::open(instance) {
        Ok(store) => {
            check_home(instance, machine, store.begin()?.settings()?.as_ref())?;
            take_down(instance, &store, machine, mode).await
        }
        Err(store::Error::NotUp { .. }) => {
            let done = remove_leftovers(machine, mode).await?;
            if mode == Mode::Apply {
                Store::sweep(instance)?;
            }
            Ok(done)
        }
        Err(error) => Err(error.into()),
    }
}

async fn take_down<M: Machine>(
    instance: &Instance,
    store: &Store,
    machine: &M,
    mode: Mode,
) -> Result<Done<Downed>, Error> {
    let transaction = store.begin()?;
    let resources = everything(instance, &transaction)?;
    drop(transaction);
    let observed = reconcile::observe_obsolete(machine, resources).await;
    let plan = plan::plan(&[], &observed);
    if mode == Mode::Apply {
        reconcile::tear_down(machine, &plan)
            .await
            .map_err(|failure| Error::RemovedInPart { what: "the instance".to_owned(), failure })?;
        store.delete()?;
    }
    Ok(Done::new(Downed::Instance, plan.ops))
}

/// Everything an instance is made of, but for the entries of maps, which go with their maps.
pub(super) fn everything(instance: &Instance, transaction: &Transaction) -> Result<Vec<Resource>, Error> {
    let mut resources = match transaction.settings()? {
        Some(settings) => {
            let uplinks = settings.uplinks.iter().flat_map(expand::uplink);
            let shaping = settings.uplinks.iter().flat_map(expand::any_shaping);
            let forwarding = settings.uplinks.iter().map(expand::forwarding);
            let xdp = settings.uplinks.iter().filter_map(any_xdp);
            let router = expand::router(instance.name(), &settings).into_iter();
            let own = router.chain(expand::instance(&settings, 0));
            own.chain(uplinks).chain(shaping).chain(xdp).chain(forwarding).collect()
        }
        None => vec![Resource::DataPath(TableSizes::default())],
    };
    resources.extend(transaction.networks()?.iter().flat_map(expand::network));
    let mut endpoints = Vec::new();
    for endpoint in transaction.endpoints()? {
        endpoints.extend(expand::endpoint(&endpoint, &transaction.networks_of(&endpoint)?));
    }
    expand::order_of_going(&mut endpoints);
    resources.extend(endpoints);
    resources.extend(transaction.directs()?.iter().map(expand::direct));
    resources.extend(going::resources(&transaction.going()?));
    resources.retain(|resource| !resource.is_map_entry());
    Ok(resources)
}

async fn remove_leftovers<M: Machine>(machine: &M, mode: Mode) -> Result<Done<Downed>, Error> {
    let found = machine.without_record().await.map_err(kernel("look for maps and programs"))?;
    if found.is_empty() {
        return Ok(Done::new(Downed::Nothing, Vec::new()));
    }
    let found: Vec<_> = found.into_iter().map(|resource| (resource, State::Present)).collect();
    let plan = plan::plan(&[], &found);
    if mode == Mode::Apply {
        let what = "the instance".to_owned();
        reconcile::tear_down(machine, &plan)
            .await
            .map_err(|failure| Error::RemovedInPart { what, failure })?;
    }
    Ok(Done::new(Downed::Leftovers, plan.ops))
}
