//! A whole instance at once: everything a [`Description`] asks for, or nothing.
//!
//! ```text
//! one transaction: take out what is not asked for (--prune) or comes otherwise -> note everything that is asked for
//!   -> every refusal, and everything in the way, together -> one plan -> (dry run: stop) -> commit -> apply, undone as a whole if a step fails
//!   -> what was taken out goes (`going`), reported and tried again if it does not
//! ```

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use super::cgroup_limit::NotedLimit;
use super::connection::note_disconnected;
use super::deny::{note_denied, uncovered};
use super::endpoint::{Terms, Unlinked};
use super::error::RefusedPart;
use super::floating::NotedFloating;
use super::going;
use super::host::{Addresses, Host};
use super::limit;
use super::masquerade::{NotedRule, note_exclusion, note_masquerade};
use super::network::{check_same, rules_of};
use super::pool::default_subnets;
use super::port_map::{Present, Wishes, restrictions};
use super::reachable::without_floating;
use super::up::{InstanceWish, Noted, idle_limits};
use super::{
    Claim, Description, Done, Doubt, EndpointRequest, Error, Manager, Mode, NetworkRequest, Part,
    PortMapRequest, Steps, Wanted, check_home, kernel, refuse_foreign,
};
use crate::plan::{Identity, Op, Resource, expand};
use crate::reconcile::{self, Machine};
use crate::spec::{
    Cgroup, CgroupLimit, Cidr, DirectLink, Endpoint, Going, InterfaceName, Link, Name, Namespace, Network,
    NetworkChange, NetworkOptions, Networks, PortMap, Protocol, Published, Router, Settings,
};
use crate::store::Transaction;

/// What becomes of what a description does not ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unnamed {
    /// It stays as it is.
    Stays,
    /// It is removed, and choices are as documented again.
    Goes,
}

/// What an instance was and is, or would be.
#[derive(Debug)]
pub struct Applied {
    /// What was recorded; nothing if it was not up.
    pub before: Option<Description>,
    /// What is recorded now.
    pub after: Description,
}

/// What is to be noted, and where.
struct Task<'a> {
    transaction: &'a Transaction,
    host: &'a Host,
    addresses: &'a Addresses,
    wish: &'a Description,
    unnamed: Unnamed,
    router: &'a Option<Router>,
}

/// What a description adds to the steps of a plan, and what speaks against it.
struct Draft {
    steps: Steps,
    notes: Vec<String>,
    refused: Vec<RefusedPart>,
    going: Going,
    /// Networks that were not recorded.
    new_networks: HashSet<Name>,
    /// What is made for which part, of what nobody else may have.
    owners: Vec<(Part, Resource)>,
    /// What is not known, or was refused: what depends on it is not looked at.
    doubt: Doubt,
    /// Whether the settings are not known.
    settings_unknown: bool,
}

impl Draft {
    /// What was noted, unless it was refused. What is no refusal ends it all.
    fn take<T>(&mut self, part: Part, result: Result<T, Error>) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_refusal() => {
                self.refused.extend(error.each().into_iter().map(|error| RefusedPart { part, error }));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Wants what a part is made of.
    fn want(&mut self, part: Part, wanted: Vec<Wanted>) {
        let exclusive = wanted.iter().filter(|wanted| is_new_and_exclusive(wanted));
        self.owners.extend(exclusive.map(|wanted| (part, wanted.resource.clone())));
        self.steps.wanted.extend(wanted);
    }

    /// The part that something is made for.
    fn owner(&self, resource: &Resource) -> Part {
        if matches!(resource, Resource::Home { .. } | Resource::Leg(_)) {
            return Part::Router;
        }
        let of_part = self.owners.iter().find(|(_, own)| own.same_identity(resource)).map(|(part, _)| *part);
        of_part.unwrap_or(Part::Instance)
    }
}

/// Whether it is to be made, and must not be there.
fn is_new_and_exclusive(wanted: &Wanted) -> bool {
    wanted.claim == Claim::New && wanted.resource.is_exclusive()
}

/// What is noted of a description.
struct Drafted {
    draft: Draft,
    settings: Settings,
    /// Whether a router is to have another namespace in place of one that has gone.
    moved: bool,
}

impl<M: Machine> Manager<M> {
    /// Makes an instance what a description asks for, whether it is up or not: all of it, or nothing.
    ///
    /// # Errors
    /// Every part that is refused, or the step that failed, after which all is as before. What was to be removed and
    /// could not be is an error as well; everything else is as described then.
    pub async fn apply(&self, wish: &Description, unnamed: Unnamed) -> Result<Done<Applied>, Error> {
        self.unless_refused(self.make_so(wish, unnamed)).await
    }

    /// Everything that speaks against what a description asks for, of which not all is known.
    ///
    /// # Errors
    /// When it cannot be compared with what there is.
    pub async fn refusals(
        &self,
        wish: &Description,
        unnamed: Unnamed,
        doubt: &Doubt,
    ) -> Result<Vec<RefusedPart>, Error> {
        let transaction = self.store.begin()?;
        Ok(self.draft(&transaction, (wish, unnamed), doubt.clone()).await?.draft.refused)
    }

    async fn make_so(&self, wish: &Description, unnamed: Unnamed) -> Result<Done<Applied>, Error> {
        let transaction = self.store.begin()?;
        let recorded = transaction.settings()?;
        let before = match &recorded {
            Some(_) => Some(Description::of(self.instance.name(), &transaction)?),
            None => None,
        };
        let (blocks_before, first_number) = (transaction.port_blocks()?, transaction.next_mapping()?);
        let Drafted { draft, settings, moved } =
            self.draft(&transaction, (wish, unnamed), Doubt::default()).await?;
        if !draft.refused.is_empty() {
            return Err(Error::RefusedParts(draft.refused));
        }
        let after = Description::of(self.instance.name(), &transaction)?;
        let Draft { mut steps, mut notes, going, .. } = draft;
        if let Some(recorded) = &recorded {
            // The last one counts: what is taken out is counted out of the blocks already.
            steps.former.push(expand::config(recorded, blocks_before));
        }
        let in_the_way = going::resources(&going);
        finish(&mut steps, &in_the_way);
        steps.former.extend(in_the_way);
        let leftovers = going::leftovers(&transaction, &settings, &going)?;
        self.prepare_home(&transaction, &settings, moved).await?;
        let ops = self.complete(transaction, steps, (going, leftovers), first_number).await?;
        notes.dedup();
        Ok(Done { value: Applied { before, after }, ops, notes })
    }

    /// Notes everything that is asked for, as far as it is known, and finds everything that speaks against it.
    async fn draft(
        &self,
        transaction: &Transaction,
        (wish, unnamed): (&Description, Unnamed),
        doubt: Doubt,
    ) -> Result<Drafted, Error> {
        let recorded = transaction.settings()?;
        let moved = check_home(&self.instance, &self.machine, recorded.as_ref())?;
        let mut draft = Draft {
            steps: Steps { wanted: Vec::new(), obsolete: Vec::new(), former: Vec::new() },
            notes: Vec::new(),
            refused: Vec::new(),
            going: transaction.going()?,
            new_networks: HashSet::new(),
            owners: Vec::new(),
            settings_unknown: doubt.instance,
            doubt,
        };
        if unnamed == Unnamed::Goes {
            let mut cgroups = HashSet::new();
            for request in &wish.cgroup_limits {
                cgroups.insert(self.recorded_as(&request.cgroup)?);
            }
            take_out_limits(transaction, &cgroups, &mut draft.going)?;
            take_out(transaction, wish, &mut draft.going)?;
        }
        let router = match draft.doubt.router {
            true => None,
            false => {
                let router = self.describe_router(recorded.as_ref(), wish.router.as_ref()).await;
                draft.take(Part::Router, router)?
            }
        };
        draft.doubt.router = router.is_none();
        // Its link is an uplink.
        draft.doubt.instance |= router.is_none();
        let router = router.flatten();
        let host = Host::observe(&self.machine).await?.without(&draft.going).with_leg(router.as_ref());
        let addresses = Addresses::from(&host);
        let task = Task { transaction, host: &host, addresses: &addresses, wish, unnamed, router: &router };
        let settings = self.note(&task, &mut draft).await?;
        self.refuse_what_is_there(&mut draft).await?;
        draft.refused.sort_by_key(|refused| refused.part);
        Ok(Drafted { draft, settings, moved })
    }

    /// Refuses the parts for which something is to be made that is there already and somebody else's.
    async fn refuse_what_is_there(&self, draft: &mut Draft) -> Result<(), Error> {
        let ours = going::resources(&draft.going);
        let ours: HashSet<Identity<'_>> = ours.iter().map(Resource::identity).collect();
        let new = draft.steps.wanted.iter().filter(|wanted| is_new_and_exclusive(wanted));
        let new = new.filter(|wanted| !ours.contains(&wanted.resource.identity()));
        let mut seen = HashSet::new();
        let new: Vec<Resource> = new
            .filter(|wanted| seen.insert(wanted.resource.identity()))
            .map(|wanted| wanted.resource.clone())
            .collect();
        let observed =
            reconcile::observe(&self.machine, new).await.map_err(kernel("look at what is there"))?;
        for (resource, state) in &observed {
            let part = draft.owner(resource);
            draft.take(part, refuse_foreign(resource, state, Claim::New))?;
        }
        Ok(())
    }

    /// Does what was drafted, then lets go what is to be gone.
    async fn complete(
        &self,
        transaction: Transaction,
        steps: Steps,
        (going, leftovers): (Going, Vec<Resource>),
        first_number: u32,
    ) -> Result<Vec<Op>, Error> {
        if self.mode == Mode::DryRun {
            let mut ops = self.change(transaction, "the instance", steps).await?;
            ops.extend(self.plan(Vec::new(), leftovers).await?.ops);
            return Ok(ops);
        }
        let result = self.change(transaction, "the description", steps).await;
        if matches!(result, Err(Error::NotMade { .. })) && !going.port_maps.is_empty() {
            // The numbers will be given again.
            self.forget(|_, entry| entry.mapping >= first_number)?;
        }
        let mut ops = result?;
        ops.extend(self.finish_going().await?);
        Ok(ops)
    }

    /// Notes everything that is asked for; gives the settings.
    async fn note(&self, task: &Task<'_>, draft: &mut Draft) -> Result<Settings, Error> {
        let &Task { transaction, host, addresses, wish, .. } = task;
        let noted = self.note_instance(task, draft).await?;
        let settings = noted.settings.clone();
        // Before the networks: one that is asked for goes before the one that comes with a network.
        self.note_masquerades(task, draft)?;
        self.note_networks(task, &settings, draft)?;
        for (nth, sources) in wish.denied.iter().enumerate() {
            let noted = note_denied(transaction, &settings, host, *sources);
            let unsure = draft.doubt.instance && matches!(noted, Err(Error::NoXdp));
            if !unsure {
                draft.take(Part::Denied(nth), noted)?;
            }
        }
        self.note_endpoints(task, draft).await?;
        for (nth, request) in wish.directs.iter().enumerate() {
            if request.endpoints.iter().any(|name| draft.doubt.endpoints.contains(name)) {
                continue;
            }
            let noted = self.note_direct(transaction, request);
            if let Some((link, claim)) = draft.take(Part::Direct(nth), noted)? {
                draft.want(Part::Direct(nth), claim.on([expand::direct(&link)]));
            }
        }
        for (nth, request) in wish.floating.iter().enumerate() {
            if draft.doubt.router || draft.doubt.is_about_target(&request.target) {
                continue;
            }
            self.replace_floating(task, request, &mut draft.going)?;
            let noted = self.note_floating(transaction, addresses, request);
            if let Some(noted) = draft.take(Part::Floating(nth), noted)? {
                let NotedFloating { floating, claim, note } = noted;
                draft.steps.wanted.extend(claim.on(expand::floating(&floating)));
                draft.notes.extend(note);
            }
        }
        self.publish_noted(task, &settings, draft)?;
        self.note_cgroup_limits(task, &settings, draft).await?;
        transaction.set_going(&draft.going)?;
        // Everything that it depends on is noted now: rules, and the lengths of blocks.
        let claim = |network: &Network| {
            let is_new = noted.recorded.is_none() || draft.new_networks.contains(&network.name);
            if is_new { Claim::New } else { Claim::Recorded }
        };
        let foundation = self.foundation(transaction, addresses, &noted, claim)?;
        let steps = std::mem::replace(&mut draft.steps, foundation);
        draft.steps.wanted.extend(steps.wanted);
        draft.steps.obsolete.extend(steps.obsolete);
        draft.steps.former.extend(steps.former);
        draft.notes.extend(noted.notes);
        draft.notes.extend(idle_limits(transaction, &settings)?);
        if !wish.denied.is_empty() {
            draft.notes.extend(uncovered(&settings));
        }
        Ok(settings)
    }

    /// Notes what cgroups may send. All uplinks are to hold it, new ones too.
    async fn note_cgroup_limits(
        &self,
        task: &Task<'_>,
        settings: &Settings,
        draft: &mut Draft,
    ) -> Result<(), Error> {
        let &Task { transaction, host, wish, .. } = task;
        // Of those that are there, or are to be: a router's link may not be made yet.
        let is_there = |uplink: &&InterfaceName| host.interface(uplink.as_str()).is_some();
        let uplinks: Vec<&InterfaceName> = settings.uplinks.iter().filter(is_there).collect();
        let shaping = |limits: &[CgroupLimit]| -> Vec<Resource> {
            uplinks.iter().flat_map(|uplink| expand::shaping(uplink, limits)).collect()
        };
        let before = transaction.cgroup_limits()?;
        let mut limits = before.clone();
        // Their numbers are not given again before they are gone.
        transaction.set_going(&draft.going)?;
        let mut entries = Vec::new();
        for (nth, request) in wish.cgroup_limits.iter().enumerate() {
            let noted = self.note_cgroup_limit(transaction, request, Unnamed::Goes, &mut limits).await;
            let Some(NotedLimit { limit, note }) = draft.take(Part::CgroupLimit(nth), noted)? else {
                continue;
            };
            entries.push(expand::cgroup_limit(&limit));
            draft.notes.extend(note);
        }
        draft.steps.wanted.extend(Claim::Recorded.on(shaping(&limits).into_iter().chain(entries)));
        draft.steps.former.extend(shaping(&before));
        draft.steps.former.extend(before.iter().map(expand::cgroup_limit));
        Ok(())
    }

    async fn note_instance(&self, task: &Task<'_>, draft: &mut Draft) -> Result<Noted, Error> {
        let &Task { transaction, host, wish, unnamed, router, .. } = task;
        let leg = router.as_ref().map(|router| &router.ifname);
        let recorded = transaction.settings()?;
        let mut base = recorded.clone();
        if let (Some(base), Unnamed::Goes) = (&mut base, unnamed) {
            *base = base.as_documented();
            if !wish.uplinks.is_empty() {
                let (kept, dropped) =
                    base.uplinks.drain(..).partition(|it| wish.uplinks.contains(it) || leg == Some(it));
                base.uplinks = kept;
                draft.going.uplinks.extend::<Vec<_>>(dropped);
            }
        }
        let fallback = (recorded.clone(), base.clone());
        let (uplinks, change) = (&wish.uplinks[..], &wish.change);
        let instance = InstanceWish { base, uplinks, change, router: router.clone() };
        let noted = match draft.doubt.instance {
            true => None,
            false => {
                let noted = self.note_settings(transaction, host, recorded, instance).await;
                draft.take(Part::Instance, noted)?
            }
        };
        let mut noted = match noted {
            Some(noted) => noted,
            // Only to find out what else is refused.
            None => {
                draft.doubt.instance = true;
                let (recorded, base) = fallback;
                let settings = change.onto(base.unwrap_or_else(|| Settings::new(0, self.now)));
                Noted { settings, recorded, gone: Vec::new(), notes: Vec::new() }
            }
        };
        draft.going.uplinks.append(&mut noted.gone);
        transaction.set_settings(&noted.settings)?;
        Ok(noted)
    }

    fn note_masquerades(&self, task: &Task<'_>, draft: &mut Draft) -> Result<(), Error> {
        let &Task { transaction, addresses, wish, .. } = task;
        for (nth, request) in wish.masquerades.iter().enumerate() {
            if draft.doubt.router && request.to.is_some() {
                continue;
            }
            if let Some(rule) = transaction.masquerade(request.subnet)?
                && rule.to != request.to
            {
                transaction.remove_masquerade(rule.subnet)?;
                draft.going.masquerades.push(rule);
            }
            let noted = note_masquerade(transaction, addresses, request);
            if let Some(NotedRule { note, .. }) = draft.take(Part::Masquerade(nth), noted)? {
                draft.notes.extend(note);
            }
        }
        for (nth, destinations) in wish.excluded.iter().enumerate() {
            draft.take(Part::Excluded(nth), note_exclusion(transaction, *destinations))?;
        }
        Ok(())
    }

    fn note_networks(&self, task: &Task<'_>, settings: &Settings, draft: &mut Draft) -> Result<(), Error> {
        let &Task { transaction, host, wish, unnamed, .. } = task;
        let mut requests: Vec<(Part, NetworkRequest)> = Vec::new();
        let named = wish.networks.iter().enumerate();
        requests.extend(named.map(|(nth, request)| (Part::Network(nth), request.clone())));
        let default = Name::default_network();
        let is_described = requests.iter().any(|(_, request)| request.name == default);
        if !is_described && !draft.doubt.networks.contains(&default) {
            // It is there without being described, and what of it cannot be changed is as it was made.
            let unnamed = match transaction.network(&default)? {
                Some(network) => NetworkRequest::of(&network),
                None => NetworkRequest::plain(default.clone()),
            };
            requests.push((Part::Instance, unnamed));
        }
        // Names that are asked for are not to be chosen for others, nor is what the default network may be without.
        requests.sort_by_key(|(_, request)| (request.subnets.is_empty(), request.bridge.is_none()));
        for (part, mut request) in requests {
            let recorded = transaction.network(&request.name)?;
            if request.subnets.is_empty() && request.name == default && recorded.is_none() {
                let (networks, ipv6) = (transaction.networks()?, self.machine.has_ipv6());
                let subnets = default_subnets(self.instance.name(), host, &networks, ipv6);
                let Some(subnets) = draft.take(part, subnets)? else {
                    draft.doubt.networks.insert(request.name);
                    continue;
                };
                request.subnets = subnets;
            }
            let Some(network) = recorded else {
                let made = self.note_new_network(transaction, host, &settings.uplinks, &request);
                let made = made.and_then(|network| not_an_uplink(network, settings));
                match draft.take(part, made)? {
                    Some(network) => {
                        let new = Claim::New.on(expand::network(&network)).into_iter();
                        let exclusive =
                            new.filter(is_new_and_exclusive).map(|wanted| (part, wanted.resource));
                        draft.owners.extend(exclusive);
                        draft.new_networks.insert(network.name);
                    }
                    None => {
                        draft.doubt.networks.insert(request.name);
                    }
                }
                continue;
            };
            let change = match unnamed {
                Unnamed::Stays => request.options,
                Unnamed::Goes => every(request.options.onto(NetworkOptions::default())),
            };
            let changed = check_same(&request, &network)
                .and_then(|()| self.note_change(transaction, host, &network, change));
            // What is refused stays as it is recorded.
            let Some(changed) = draft.take(part, changed)? else { continue };
            // Also if nothing changes: the command that noted the change may not have lived to tell the data path.
            draft.steps.wanted.extend(changed.steps.wanted);
            draft.steps.obsolete.extend(changed.steps.obsolete);
            draft.steps.former.extend(changed.steps.former);
            if changed.network.options != network.options {
                draft.notes.extend(changed.notes);
            }
        }
        Ok(())
    }

    async fn note_endpoints(&self, task: &Task<'_>, draft: &mut Draft) -> Result<(), Error> {
        let &Task { transaction, wish, .. } = task;
        let places = wish.endpoints.iter().flat_map(|request| &request.places);
        let reserved: BTreeSet<IpAddr> = places.flat_map(|place| place.addresses.iter().copied()).collect();
        let mut requests: Vec<_> = wish.endpoints.iter().enumerate().collect();
        // A hardware address that is asked for is not to be made up for another, and whoever shares another's namespace
        // comes after that.
        requests.sort_by_key(|(_, request)| {
            let shares = matches!(request.namespace, Namespace::Shared { .. });
            (shares, request.places.iter().all(|place| place.mac.is_none()))
        });
        let mut former = Vec::new();
        for (nth, request) in requests {
            if draft.doubt.is_about(request) {
                draft.doubt.endpoints.insert(request.name.clone());
                continue;
            }
            let is_it = |(former, _): &&(Endpoint, Networks)| former.name == request.name;
            let departing = draft.going.endpoints.iter().filter(is_it);
            let departing: Vec<Link> = departing.flat_map(|(former, _)| former.links.clone()).collect();
            let terms = Terms { reserved: &reserved, unlinked: Unlinked::Connected, departing: &departing };
            let is_recorded = transaction.endpoint(&request.name)?.is_some();
            let noted = self.note_endpoint(transaction, request, terms).await;
            let Some(noted) = draft.take(Part::Endpoint(nth), noted)? else {
                // What is refused stays as it is recorded.
                if !is_recorded {
                    draft.doubt.endpoints.insert(request.name.clone());
                }
                continue;
            };
            draft.want(Part::Endpoint(nth), noted.wanted());
            if let Some(before) = &noted.before {
                draft.going.limits.extend(limit::lifted(before, &noted.endpoint, &noted.networks));
                former.extend(expand::endpoint(before, &noted.networks));
            }
        }
        // What a change of a network has been noted to change was so before that: the last one counts.
        former.append(&mut draft.steps.former);
        draft.steps.former = former;
        Ok(())
    }

    /// Takes a floating address out that is to lead elsewhere.
    fn replace_floating(
        &self,
        task: &Task<'_>,
        request: &super::FloatingRequest,
        going: &mut Going,
    ) -> Result<(), Error> {
        let &Task { transaction, addresses, .. } = task;
        let Some(old) = transaction.floating(request.external)? else { return Ok(()) };
        let Ok(new) = self.describe_floating(transaction, addresses, request) else { return Ok(()) };
        if new != old {
            transaction.remove_floating(&old)?;
            going.floatings.push(old);
        }
        Ok(())
    }

    fn publish_noted(&self, task: &Task<'_>, settings: &Settings, draft: &mut Draft) -> Result<(), Error> {
        let &Task { transaction, addresses, wish, .. } = task;
        let is_doubtful = |request: &PortMapRequest| {
            let direct = draft.doubt.router && request.published.host.is_some();
            direct || draft.doubt.is_about_target(&request.target.host)
        };
        let mut judged: Vec<usize> = (0..wish.port_maps.len()).collect();
        judged.retain(|nth| !is_doubtful(&wish.port_maps[*nth]));
        let requests = match judged.len() == wish.port_maps.len() {
            true => Cow::Borrowed(&wish.port_maps[..]),
            false => Cow::Owned(judged.iter().map(|nth| wish.port_maps[*nth].clone()).collect()),
        };
        let wishes = Wishes { requests: &requests, present: Present::IsReplaced };
        let mut noted = self.note_port_maps(transaction, settings, addresses, wishes)?;
        let unheld = self.check_unheld(&noted.new);
        draft.notes.extend(unheld.notes);
        for refused in noted.refused.into_iter().chain(unheld.refused) {
            let unsure = draft.settings_unknown && matches!(refused.error, Error::PortsReserved { .. });
            if !unsure {
                draft.take(Part::PortMap(judged[refused.nth]), Err::<(), _>(refused.error))?;
            }
        }
        draft.going.port_maps.append(&mut noted.replaced);
        for (mapping, claim) in &noted.mappings {
            draft.steps.wanted.extend(claim.on(expand::port_map(mapping)));
        }
        let mappings: Vec<PortMap> = noted.new.into_iter().map(|(_, mapping)| mapping).collect();
        draft.notes.extend(mappings.iter().flat_map(restrictions));
        let networks = transaction.networks()?;
        let interfaces = without_floating(addresses.interfaces.clone(), &transaction.floatings()?);
        draft.notes.extend(self.firewall_notes(settings, interfaces, &networks, &mappings));
        Ok(())
    }
}

/// Takes out of the record what is not asked for.
fn take_out(transaction: &Transaction, wish: &Description, going: &mut Going) -> Result<(), Error> {
    let named: HashSet<(Published, Protocol)> =
        wish.port_maps.iter().map(|request| (request.published, request.protocol)).collect();
    for mapping in transaction.port_maps()? {
        if !named.contains(&(mapping.published, mapping.protocol)) {
            transaction.remove_port_map(&mapping)?;
            going.port_maps.push(mapping);
        }
    }
    let named: HashSet<IpAddr> = wish.floating.iter().map(|request| request.external).collect();
    for floating in transaction.floatings()? {
        if !named.contains(&floating.external) {
            transaction.remove_floating(&floating)?;
            going.floatings.push(floating);
        }
    }
    let named: HashSet<Cidr> = wish.masquerades.iter().map(|request| request.subnet).collect();
    for rule in transaction.masquerades()? {
        if rule.network.is_none() && !named.contains(&rule.subnet) {
            transaction.remove_masquerade(rule.subnet)?;
            going.masquerades.push(rule);
        }
    }
    let named: HashSet<Cidr> = wish.excluded.iter().copied().collect();
    for destinations in transaction.unmasqueraded()?.into_iter().filter(|it| !named.contains(it)) {
        transaction.remove_unmasqueraded(destinations)?;
        going.unmasqueraded.push(destinations);
    }
    let named: HashSet<Cidr> = wish.denied.iter().copied().collect();
    for sources in transaction.denied()?.into_iter().filter(|it| !named.contains(it)) {
        transaction.remove_denied(sources)?;
        going.denied.push(sources);
    }
    let is_named = |link: &DirectLink| {
        let named = |endpoint: &&Name| link.endpoints().contains(endpoint);
        wish.directs.iter().any(|request| request.endpoints.iter().all(|it| named(&it)))
    };
    for link in transaction.directs()?.into_iter().filter(|link| !is_named(link)) {
        transaction.remove_direct(&link)?;
        going.directs.push(link);
    }
    take_out_places(transaction, wish, going)
}

/// Takes the limits of all but these cgroups out of the record.
fn take_out_limits(
    transaction: &Transaction,
    named: &HashSet<Cgroup>,
    going: &mut Going,
) -> Result<(), Error> {
    for limit in transaction.cgroup_limits()?.into_iter().filter(|it| !named.contains(&it.cgroup)) {
        transaction.remove_cgroup_limit(&limit.cgroup)?;
        going.cgroup_limits.push(limit);
    }
    Ok(())
}

/// Takes the endpoints and the networks out of the record that are not asked for.
fn take_out_places(transaction: &Transaction, wish: &Description, going: &mut Going) -> Result<(), Error> {
    let named: HashMap<&Name, &EndpointRequest> =
        wish.endpoints.iter().map(|request| (&request.name, request)).collect();
    for endpoint in transaction.endpoints()? {
        if let Some(request) = named.get(&endpoint.name) {
            take_out_links(transaction, request, &endpoint, going)?;
            continue;
        }
        let networks = Networks(transaction.networks_of(&endpoint)?);
        // What leads to it goes with it; what the description asks for of that is refused when it is noted.
        for mapping in transaction.port_maps_of(&endpoint.name)? {
            transaction.remove_port_map(&mapping)?;
            going.port_maps.push(mapping);
        }
        for addr in endpoint.addresses() {
            if let Some(floating) = transaction.floating_of(addr)? {
                transaction.remove_floating(&floating)?;
                going.floatings.push(floating);
            }
        }
        for link in transaction.directs_of(&endpoint.name)? {
            transaction.remove_direct(&link)?;
            going.directs.push(link);
        }
        transaction.remove_endpoint(&endpoint)?;
        going.endpoints.push((endpoint, networks));
    }
    let named: HashSet<&Name> = wish.networks.iter().map(|request| &request.name).collect();
    let default = Name::default_network();
    for network in transaction.networks()? {
        if named.contains(&network.name) || network.name == default {
            continue;
        }
        for rule in rules_of(transaction, &network.name)? {
            transaction.remove_masquerade(rule.subnet)?;
            going.masquerades.push(rule);
        }
        transaction.remove_network(&network)?;
        going.networks.push(network);
    }
    Ok(())
}

/// Takes the links of an endpoint out of the record that are not asked for.
fn take_out_links(
    transaction: &Transaction,
    request: &EndpointRequest,
    endpoint: &Endpoint,
    going: &mut Going,
) -> Result<(), Error> {
    let is_named = |link: &&Link| request.places.iter().any(|place| place.network == link.network);
    let gone: Vec<Link> = endpoint.links.iter().filter(|link| !is_named(link)).cloned().collect();
    // One that is to have no link at all is refused when it is noted.
    if !gone.is_empty() && !request.places.is_empty() {
        note_disconnected(transaction, endpoint, &gone, going)?;
    }
    Ok(())
}

/// Checks that a network's bridge is none of the uplinks.
fn not_an_uplink(network: Network, settings: &Settings) -> Result<Network, Error> {
    match settings.uplinks.iter().find(|uplink| **uplink == network.bridge) {
        Some(uplink) => Err(Error::BridgeIsUplink { name: uplink.clone() }),
        None => Ok(network),
    }
}

/// Every choice by name.
fn every(options: NetworkOptions) -> NetworkChange {
    NetworkChange {
        gateway_mode: Some(options.gateway_mode),
        udp_mapping: Some(options.udp_mapping),
        tcp_mapping: Some(options.tcp_mapping),
        filtering: Some(options.filtering),
    }
}

/// Names each resource once, the first time, and knows what is to be gone for the instance's own.
fn finish(steps: &mut Steps, going: &[Resource]) {
    let ours: HashSet<Identity<'_>> = going.iter().map(Resource::identity).collect();
    let mut seen = HashSet::new();
    let wanted = std::mem::take(&mut steps.wanted);
    let first: Vec<bool> = wanted.iter().map(|wanted| seen.insert(wanted.resource.identity())).collect();
    drop(seen);
    let distinct = wanted.into_iter().zip(first).filter(|(_, first)| *first);
    steps.wanted = distinct
        .map(|(Wanted { resource, claim }, _)| {
            let claim = if ours.contains(&resource.identity()) { Claim::Recorded } else { claim };
            Wanted { resource, claim }
        })
        .collect();
}
