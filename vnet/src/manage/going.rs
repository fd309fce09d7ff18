//! What is to be gone: objects that are recorded no more, or in another form, and may have left something in the kernel.
//!
//! ```text
//! record what is wanted instead, and what is to be gone -> make what is wanted
//!   -> take away what only the old had -> end the old one's flows -> forget the old
//! ```
//!
//! So nothing is taken away before what comes in its place is there, and wherever a command dies between, the next one
//! that changes anything completes it.

use std::collections::HashSet;

use vnet_common::{Addr, PortMapKey};

use super::connection::veths;
use super::{Claim, Error, Manager, Mode};
use crate::plan::{Identity, Op, Resource, expand};
use crate::reconcile::{self, Machine};
use crate::spec::{Cidr, Going, InterfaceName, Protocol, Published, Settings, Xdp};
use crate::store::Transaction;

impl<M: Machine> Manager<M> {
    /// Begins a verb that changes something, once what an earlier one left to do is done.
    pub(super) async fn begin_settled(&self) -> Result<(Transaction, Settings), Error> {
        let begun = self.begin()?;
        if begun.0.going()?.is_empty() || self.mode == Mode::DryRun {
            return Ok(begun);
        }
        drop(begun);
        self.finish_going().await?;
        self.begin()
    }

    /// Takes away what is recorded to be gone; gives the steps.
    pub(super) async fn finish_going(&self) -> Result<Vec<Op>, Error> {
        let (transaction, settings) = self.begin()?;
        let going = transaction.going()?;
        if going.is_empty() {
            return Ok(Vec::new());
        }
        let successors = self.successors(&transaction, &settings, &going).await?;
        let obsolete = leftovers(&transaction, &settings, &going)?;
        let config = narrowed(&transaction, &settings, &going)?;
        drop(transaction);
        let unsettled = |failure| Error::Unsettled { what: what(&going), failure };
        let switch = self.plan_recorded(successors).await?;
        reconcile::apply(&self.machine, &switch).await.map_err(unsettled)?;
        let leftovers = self.plan(Claim::Recorded.on(config), obsolete).await?;
        reconcile::tear_down(&self.machine, &leftovers).await.map_err(unsettled)?;
        self.forget_going(&going)?;
        let (transaction, _) = self.begin()?;
        transaction.set_going(&Going::default())?;
        transaction.commit()?;
        Ok(switch.ops.into_iter().chain(leftovers.ops).collect())
    }

    /// What came in the place of what is to be gone, under the same keys, and the other links of endpoints that lose some:
    /// whoever noted it may not have lived to write it.
    async fn successors(
        &self,
        transaction: &Transaction,
        settings: &Settings,
        going: &Going,
    ) -> Result<Vec<Resource>, Error> {
        let mut resources = Vec::new();
        for (former, _) in &going.endpoints {
            let Some(endpoint) = transaction.endpoint(&former.name)? else { continue };
            let networks = transaction.networks_of(&endpoint)?;
            // One that is not there comes back with `up`.
            let present = self.present(&endpoint.links).await?;
            resources.extend(veths(&endpoint, (&present, &former.links), &networks));
        }
        for rule in &going.masquerades {
            resources.extend(transaction.masquerade(rule.subnet)?.as_ref().map(expand::masquerade));
        }
        for floating in &going.floatings {
            resources.extend(transaction.floating(floating.external)?.iter().flat_map(expand::floating));
        }
        if !going.cgroup_limits.is_empty() {
            let limits = transaction.cgroup_limits()?;
            let uplinks = self.uplinks_there(settings).await?;
            resources.extend(uplinks.iter().flat_map(|uplink| expand::shaping(uplink, &limits)));
        }
        for old in &going.port_maps {
            let new = transaction.overlapping(&old.published, old.protocol)?;
            let same = new.filter(|new| new.published == old.published);
            resources.extend(same.iter().flat_map(expand::port_map));
        }
        Ok(resources)
    }

    /// Ends the flows of what is gone. Those of a masquerade rule go on, as they do when it is removed.
    fn forget_going(&self, going: &Going) -> Result<(), Error> {
        let mappings: HashSet<u32> = going.port_maps.iter().map(|mapping| mapping.id).collect();
        let zones: Vec<_> = going.networks.iter().map(|network| network.zone()).collect();
        let endpoints = going.endpoints.iter().flat_map(|(endpoint, _)| endpoint.addresses());
        let floatings = going.floatings.iter().map(|floating| floating.external);
        let addresses: HashSet<Addr> = endpoints.chain(floatings).map(Addr::from).collect();
        if mappings.is_empty() && zones.is_empty() && addresses.is_empty() {
            return Ok(());
        }
        self.forget(|tuple, entry| {
            let other = &entry.translated;
            mappings.contains(&entry.mapping)
                || [tuple.src, tuple.dst, other.src, other.dst].iter().any(|end| addresses.contains(end))
                || [tuple.zone, other.zone].iter().any(|zone| zones.contains(zone))
        })?;
        Ok(())
    }
}

/// What is to be gone, for an error.
fn what(going: &Going) -> String {
    match &going.port_maps[..] {
        [mapping] => format!("what came in the place of {mapping}"),
        _ => "what came in the place of what is to be gone".to_owned(),
    }
}

/// What is left of what is to be gone and nobody else has now, in the order of creation.
pub(super) fn leftovers(
    transaction: &Transaction,
    settings: &Settings,
    going: &Going,
) -> Result<Vec<Resource>, Error> {
    let mut left = Vec::new();
    let unlimited = !going.cgroup_limits.is_empty() && transaction.cgroup_limits()?.is_empty();
    let uplinks = if unlimited { &settings.uplinks[..] } else { &[] };
    left.extend(uplinks.iter().flat_map(expand::any_shaping));
    for resource in resources(going) {
        if !is_kept(transaction, settings, &resource)? {
            left.push(resource);
        }
    }
    Ok(left)
}

/// What the things that are to be gone are made of, in the order of creation.
pub(super) fn resources(going: &Going) -> Vec<Resource> {
    let networks = going.networks.iter().flat_map(expand::network);
    let rules = going.masquerades.iter().map(expand::masquerade);
    let mut endpoints: Vec<Resource> =
        going.endpoints.iter().flat_map(|(it, networks)| expand::endpoint(it, &networks.0)).collect();
    expand::order_of_going(&mut endpoints);
    let limits = going.limits.iter().flat_map(|(endpoint, networks)| expand::limits(endpoint, &networks.0));
    (going.uplinks.iter().flat_map(of_uplink))
        .chain(networks)
        .chain(rules)
        .chain(going.unmasqueraded.iter().copied().map(expand::unmasqueraded))
        .chain(going.denied.iter().copied().map(expand::denied))
        .chain(endpoints)
        .chain(going.floatings.iter().flat_map(expand::floating))
        .chain(going.port_maps.iter().flat_map(expand::port_map))
        .chain(limits)
        .chain(going.cgroup_limits.iter().map(expand::cgroup_limit))
        .chain(going.directs.iter().map(expand::direct))
        .collect()
}

/// Everything that an uplink may have.
fn of_uplink(name: &InterfaceName) -> Vec<Resource> {
    let forwarding = expand::forwarding(name);
    let shaping = expand::any_shaping(name);
    expand::uplink(name)
        .into_iter()
        .chain(shaping)
        .chain([forwarding])
        .chain(expand::xdp(name, Xdp::Native))
        .collect()
}

/// The configuration, where fewer lengths of blocks may be in use than before.
fn narrowed(
    transaction: &Transaction,
    settings: &Settings,
    going: &Going,
) -> Result<Option<Resource>, Error> {
    let ranges = going.port_maps.iter().any(|mapping| mapping.published.ports.count() > 1);
    Ok(if ranges { Some(expand::config(settings, transaction.port_blocks()?)) } else { None })
}

/// Whether something that is recorded has the resource.
fn is_kept(transaction: &Transaction, settings: &Settings, resource: &Resource) -> Result<bool, Error> {
    let is_uplink = |name: &str| settings.uplinks.iter().any(|uplink| uplink.as_str() == name);
    Ok(match resource.identity() {
        Identity::Uplink(name) | Identity::Forwarding(name) | Identity::Xdp(name) => is_uplink(name),
        Identity::Queue(name) => is_uplink(name) && !transaction.cgroup_limits()?.is_empty(),
        Identity::CgroupLimit(cgroup) => transaction.cgroup_limit(cgroup)?.is_some(),
        Identity::Attachment(_, name) => is_uplink(name) || transaction.has_interface(name)?,
        Identity::Bridge(name) | Identity::Veth(name) => transaction.has_interface(name)?,
        Identity::HostAddress(addr) => {
            transaction.networks()?.iter().any(|network| expand::gateways(network).contains(&addr))
        }
        Identity::Network(subnet) => {
            let networks = transaction.networks()?;
            networks.iter().flat_map(|network| network.segments.subnets()).any(|other| other.net() == subnet)
        }
        Identity::Masquerade(subnet) => {
            let cidr = Cidr::try_from(subnet)?;
            let alone = Cidr::host(subnet.addr()).is_ok_and(|alone| alone == cidr);
            transaction.masquerade(cidr)?.is_some()
                || alone && transaction.floating_of(subnet.addr())?.is_some()
        }
        Identity::Floating(external) => transaction.floating(external)?.is_some(),
        Identity::ExternalAddress(net) => {
            transaction.floating(net.addr())?.is_some_and(|floating| floating.on.is_some())
        }
        Identity::Unmasqueraded(subnet) => transaction.is_unmasqueraded(Cidr::try_from(subnet)?)?,
        Identity::Denied(subnet) => transaction.is_denied(Cidr::try_from(subnet)?)?,
        Identity::Limit(..) => is_limited(transaction, resource)?,
        Identity::Direct(_) => {
            transaction.directs()?.iter().any(|link| expand::direct(link).same_identity(resource))
        }
        Identity::Namespace(name) => transaction.endpoint(&name.parse()?)?.is_some(),
        Identity::Endpoint(addr) => transaction.owner_of(addr.into())?.is_some(),
        Identity::PortMap(key) if key.is_reservation() => transaction.is_reserved(&key)?,
        Identity::PortMap(key) => is_published(transaction, key)?,
        // A number is given once, and the rest belongs to no object.
        _ => false,
    })
}

/// Whether an endpoint that is recorded has a limit.
fn is_limited(transaction: &Transaction, limit: &Resource) -> Result<bool, Error> {
    for endpoint in transaction.endpoints()?.iter().filter(|endpoint| !endpoint.limits.is_empty()) {
        let limits = expand::limits(endpoint, &transaction.networks_of(endpoint)?);
        if limits.iter().any(|own| own.same_identity(limit)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a mapping that is recorded has a block of published ports.
fn is_published(transaction: &Transaction, key: PortMapKey) -> Result<bool, Error> {
    let first = key.port.number();
    let host = (!key.addr.is_unspecified()).then(|| key.addr.into());
    let published = Published { host, ports: (first, first).try_into()? };
    let Some(protocol) = Protocol::ALL.into_iter().find(|it| it.number() == key.proto) else {
        return Ok(false);
    };
    let mapping = transaction.overlapping(&published, protocol)?;
    let resources = mapping.iter().flat_map(expand::port_map);
    Ok(resources.into_iter().any(|resource| resource.identity() == Identity::PortMap(key)))
}
