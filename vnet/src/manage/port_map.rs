//! Published ports.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::slice;

use vnet_common::Addr;

use super::endpoint::family;
use super::error::{Refused, protocol_option, there_are};
use super::host::{Addresses, Refresh};
use super::network::list;
use super::reachable::without_floating;
use super::{Claim, Done, Error, Manager};
use crate::plan::{Resource, expand};
use crate::reconcile::Machine;
use crate::spec::{
    self, Clients, Endpoint, GatewayMode, Link, Name, Namespace, Network, PortMap, Protocol, Published,
    Settings, Target, TargetHost,
};
use crate::store::{PortMapTables, Transaction};

/// Ports to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapRequest {
    /// What to publish.
    pub published: Published,
    /// Where it leads.
    pub target: Target,
    /// Its protocol.
    pub protocol: Protocol,
    /// Who may use it; everybody if there are none.
    pub allow_from: Vec<Clients>,
}

/// A link of an endpoint of which ports can be published, and its network.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) endpoint: Name,
    pub(super) link: Link,
    pub(super) network: Network,
}

/// Which link of an endpoint is meant by its name.
#[derive(Clone, Copy, Debug)]
pub(super) enum WhichLink {
    /// The first.
    First,
    /// The first that has an address of this one's family; the first of all if none has.
    Like(IpAddr),
}

impl WhichLink {
    /// Where ports lead that are published on an address of the host, or on all of them.
    pub(super) fn published_on(host: Option<IpAddr>) -> Self {
        host.map_or(Self::First, Self::Like)
    }

    /// Whether it is one with an IPv4 address, or with an IPv6 one.
    fn family(self) -> Option<bool> {
        match self {
            Self::First => None,
            Self::Like(addr) => Some(addr.is_ipv4()),
        }
    }
}

/// The link of an endpoint that a target means: the one that has the address, or the one that leads to the world by
/// default.
pub(super) fn meant<'a>(endpoint: &'a Endpoint, target: &TargetHost, which: WhichLink) -> Option<&'a Link> {
    let first = endpoint.links.first();
    match (target, which) {
        (TargetHost::Addr(addr), _) => endpoint.link_of(*addr),
        (TargetHost::Name(_), WhichLink::First) => first,
        (TargetHost::Name(_), WhichLink::Like(addr)) => endpoint.default_link(addr).or(first),
    }
}

/// How a target is named that has an address of an endpoint: by the endpoint's name, if that means the same.
pub(super) fn target_name(
    endpoint: Option<&Endpoint>,
    name: &Name,
    addr: IpAddr,
    which: WhichLink,
) -> TargetHost {
    let by_name = TargetHost::Name(name.clone());
    let means = |endpoint: &Endpoint| {
        meant(endpoint, &by_name, which).is_some_and(|link| link.addrs().any(|own| own == addr))
    };
    if endpoint.is_none_or(means) { by_name } else { TargetHost::Addr(addr) }
}

/// What became of requests to publish.
pub(super) struct Noted {
    /// The mappings, each once.
    pub(super) mappings: Vec<(PortMap, Claim)>,
    /// Those that were not recorded before, with the number of the request.
    pub(super) new: Vec<(usize, PortMap)>,
    /// Those that were, and are not any more because the same ports are to lead elsewhere or be others'.
    pub(super) replaced: Vec<PortMap>,
    pub(super) refused: Vec<Refused>,
}

/// What is to be published.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes<'a> {
    pub(super) requests: &'a [PortMapRequest],
    pub(super) present: Present,
}

/// What becomes of a mapping of exactly the ports that are asked for, and otherwise described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Present {
    /// It stays, and the request is refused.
    Stays,
    /// The one that is asked for comes in its place.
    IsReplaced,
}

impl<M: Machine> Manager<M> {
    /// Publishes ports.
    ///
    /// # Errors
    /// When there is no such target, or the ports cannot be had: they are published already, or a program of the
    /// host holds one.
    pub async fn publish(&self, request: &PortMapRequest) -> Result<Done<PortMap>, Error> {
        self.publish_all(slice::from_ref(request)).await.map_err(Error::of_the_only).map(Done::of_the_only)
    }

    /// Publishes ports by many mappings at once: all of them, or none.
    ///
    /// # Errors
    /// Every request that is refused, as by [`Self::publish`] or because an earlier one asks for its ports.
    pub async fn publish_all(&self, requests: &[PortMapRequest]) -> Result<Done<Vec<PortMap>>, Error> {
        let (transaction, settings) = self.begin_settled().await?;
        let host = Addresses::observe(&self.machine, &settings).await?;
        let Noted { mappings, new, mut refused, .. } = self.note_port_maps(
            &transaction,
            &settings,
            &host,
            Wishes { requests, present: Present::Stays },
        )?;
        let mut notes: Vec<String> = mappings.iter().flat_map(|(mapping, _)| restrictions(mapping)).collect();
        let unheld = self.check_unheld(&new);
        refused.extend(unheld.refused);
        if !refused.is_empty() {
            refused.sort_by_key(|refused| refused.nth);
            return Err(Error::Refused(refused));
        }
        notes.extend(unheld.notes);
        let Refresh { mut wanted, obsolete } = self.refresh(&transaction, &host)?;
        for (mapping, claim) in &mappings {
            wanted.extend(claim.on(expand::port_map(mapping)));
        }
        // Blocks are looked for only where the configuration says there are some, so it comes last. It is looked at
        // for any range: the command that noted this one may not have lived to write it.
        if mappings.iter().any(|(mapping, _)| mapping.published.ports.count() > 1) {
            wanted.extend(Claim::Recorded.on([expand::config(&settings, transaction.port_blocks()?)]));
        }
        let mappings: Vec<PortMap> = mappings.into_iter().map(|(mapping, _)| mapping).collect();
        let networks = transaction.networks()?;
        let interfaces = without_floating(host.interfaces, &transaction.floatings()?);
        let ops = self.make(transaction, &what(&mappings), wanted, obsolete).await?;
        notes.extend(self.firewall_notes(&settings, interfaces, &networks, &mappings));
        Ok(Done { value: mappings, ops, notes })
    }

    /// Notes the mappings that are asked for and not recorded yet.
    pub(super) fn note_port_maps(
        &self,
        transaction: &Transaction,
        settings: &Settings,
        host: &Addresses,
        wishes: Wishes<'_>,
    ) -> Result<Noted, Error> {
        let Wishes { requests, present } = wishes;
        let mut noted =
            Noted { mappings: Vec::new(), new: Vec::new(), replaced: Vec::new(), refused: Vec::new() };
        let (mut served, mut known) = (HashMap::new(), HashSet::new());
        let first_number = transaction.next_mapping()?;
        let mut tables = transaction.open_port_maps()?;
        for (nth, request) in requests.iter().enumerate() {
            let number = first_number + noted.new.len() as u32;
            let target = &request.target.host;
            let link = WhichLink::published_on(request.published.host);
            let served = match served.entry((target.clone(), link.family())) {
                Entry::Occupied(known) => Ok(&*known.into_mut()),
                Entry::Vacant(unknown) => {
                    self.served(transaction, target, link).map(|found| &*unknown.insert(found))
                }
            };
            let found = served.and_then(|served| {
                let wish = describe_port_map(transaction, settings, request, served)?;
                if let Some(addr) = request.published.host
                    && !wish.is_direct()
                {
                    check_host_address(host, addr)?;
                }
                if present == Present::IsReplaced
                    && let Some(other) = tables.overlapping(&wish.published, wish.protocol)?
                    && other.id < first_number
                    && other.published == wish.published
                    && (PortMap { id: wish.id, ..other.clone() }) != wish
                {
                    tables.remove(&other)?;
                    noted.replaced.push(other);
                }
                let recorded = self.same_port_map(&tables, &wish, first_number)?;
                Ok((recorded, PortMap { id: number, ..wish }))
            });
            match found {
                Ok((Some(recorded), _)) => {
                    // The same may be asked for twice.
                    if known.insert(recorded.id) {
                        noted.mappings.push((recorded, Claim::Recorded));
                    }
                }
                Ok((None, mapping)) => {
                    known.insert(mapping.id);
                    tables.put(&mapping)?;
                    noted.new.push((nth, mapping.clone()));
                    noted.mappings.push((mapping, Claim::New));
                }
                Err(error) => noted.refused.push(Refused { nth, error }),
            }
        }
        if !noted.new.is_empty() {
            transaction.set_next_mapping(first_number + noted.new.len() as u32)?;
        }
        Ok(noted)
    }

    /// The link of the endpoint that a target names, which the world may reach.
    pub(super) fn served(
        &self,
        transaction: &Transaction,
        target: &TargetHost,
        which: WhichLink,
    ) -> Result<Served, Error> {
        let named = self.existing_endpoint(transaction, target)?;
        // What is published for one that shares a namespace leads to whoever has the addresses.
        let endpoint = match &named.namespace {
            Namespace::Own | Namespace::Foreign { .. } => named,
            Namespace::Host => return Err(Error::InHost { endpoint: named.name }),
            Namespace::Shared { with, .. } => {
                self.existing_endpoint(transaction, &TargetHost::Name(with.clone()))?
            }
        };
        let link = meant(&endpoint, target, which).cloned();
        let endpoint = endpoint.name;
        let link = link.ok_or_else(|| Error::NotLinked { endpoint: endpoint.clone() })?;
        let network = self.existing_network(transaction, &link.network)?;
        if network.internal {
            return Err(Error::InternalNetwork { endpoint, network: network.name });
        }
        Ok(Served { endpoint, link, network })
    }

    /// The same mapping, if it is there; nothing if nothing is in its way. Those with this number and later ones are
    /// asked for by the same command.
    fn same_port_map(
        &self,
        tables: &PortMapTables<'_>,
        wish: &PortMap,
        first_number: u32,
    ) -> Result<Option<PortMap>, Error> {
        let Some(other) = tables.overlapping(&wish.published, wish.protocol)? else { return Ok(None) };
        if (PortMap { id: wish.id, ..other.clone() }) == *wish {
            return Ok(Some(other));
        }
        if other.id >= first_number {
            let (published, protocol) = (wish.published, wish.protocol);
            return Err(Error::PortsAskedTwice { published, protocol, other: Box::new(other) });
        }
        let name = mapping_name(&other);
        if (PortMap { id: wish.id, allow_from: wish.allow_from.clone(), ..other.clone() }) == *wish {
            let what = format!("mapping {other}");
            let differences = match &other.allow_from[..] {
                [] => "everybody allowed".to_owned(),
                clients => format!("allow-from {}", list(clients)),
            };
            return Err(Error::Differs { what, differences, remove: format!("vnet portmap rm {name}") });
        }
        let (published, protocol) = (wish.published, wish.protocol);
        Err(Error::PortsTaken { published, protocol, other: Box::new(other), name })
    }

    /// Takes published ports back; nothing if they are not published.
    ///
    /// # Errors
    /// When the ports are part of a range, or something of the mapping stays.
    pub async fn unpublish(
        &self,
        published: &Published,
        protocol: Protocol,
    ) -> Result<Done<Option<PortMap>>, Error> {
        let Done { mut value, ops, notes } =
            self.unpublish_all(&[(*published, protocol)]).await.map_err(Error::of_the_only)?;
        Ok(Done { value: value.pop(), ops, notes })
    }

    /// Takes many published ports back at once; those that are not published are taken back already.
    ///
    /// # Errors
    /// Every request whose ports are part of a range; nothing is taken back then. Or what of the mappings stays.
    pub async fn unpublish_all(
        &self,
        requests: &[(Published, Protocol)],
    ) -> Result<Done<Vec<PortMap>>, Error> {
        let (transaction, settings) = self.begin_settled().await?;
        let blocks_before = transaction.port_blocks()?;
        let (mut mappings, mut gone, mut refused) = (Vec::new(), HashSet::new(), Vec::new());
        let mut tables = transaction.open_port_maps()?;
        for (nth, (published, protocol)) in requests.iter().enumerate() {
            match self.published_as(&tables, published, *protocol, "remove it with `vnet portmap rm") {
                Ok(Some(mapping)) if gone.insert(mapping.id) => mappings.push(mapping),
                Ok(Some(_) | None) => {}
                Err(error) => refused.push(Refused { nth, error }),
            }
        }
        if !refused.is_empty() {
            return Err(Error::Refused(refused));
        }
        if mappings.is_empty() {
            return Ok(Done::new(mappings, Vec::new()));
        }
        for mapping in &mappings {
            tables.remove(mapping)?;
        }
        drop(tables);
        let config = self.config_if_changed(&transaction, &settings, blocks_before)?;
        let mut obsolete = Vec::new();
        for mapping in &mappings {
            obsolete.extend(of_removed(&transaction, mapping)?);
        }
        let ops = self.unmake(transaction, &what(&mappings), obsolete, config).await?;
        self.forget(|_, entry| gone.contains(&entry.mapping))?;
        Ok(Done::new(mappings, ops))
    }

    /// The mapping of exactly these ports, if they are published; `advice` is what to do with one that has other
    /// ports as well, up to its name.
    pub(super) fn published_as(
        &self,
        tables: &PortMapTables<'_>,
        published: &Published,
        protocol: Protocol,
        advice: &'static str,
    ) -> Result<Option<PortMap>, Error> {
        let Some(mapping) = tables.overlapping(published, protocol)? else { return Ok(None) };
        if mapping.published == *published {
            return Ok(Some(mapping));
        }
        let name = mapping_name(&mapping);
        let (published, other) = (*published, Box::new(mapping));
        Err(Error::OtherRange { published, protocol, other, advice, name })
    }

    /// The configuration, if blocks of other lengths are in use than before.
    pub(super) fn config_if_changed(
        &self,
        transaction: &Transaction,
        settings: &Settings,
        before: u32,
    ) -> Result<Vec<Resource>, Error> {
        let now = transaction.port_blocks()?;
        Ok(if now == before { Vec::new() } else { vec![expand::config(settings, now)] })
    }
}

/// What is to be published, without a number.
pub(super) fn describe_port_map(
    transaction: &Transaction,
    settings: &Settings,
    request: &PortMapRequest,
    served: &Served,
) -> Result<PortMap, Error> {
    let PortMapRequest { published, target, protocol, allow_from } = request;
    let Served { endpoint, link, network } = served;
    if published.ports.count() != target.ports.count() {
        return Err(Error::Spec(spec::Error::Lengths {
            published: published.ports,
            count: published.ports.count(),
            target: target.ports,
            target_count: target.ports.count(),
        }));
    }
    if *protocol == Protocol::Sctp && published.ports != target.ports {
        let (published, target) = (published.ports, target.ports);
        return Err(Error::Spec(spec::Error::SctpPorts { published, target }));
    }
    if published.ports.overlaps(settings.nat_ports) {
        return Err(Error::PortsReserved { ports: published.ports, reserved: settings.nat_ports });
    }
    if let Some(addr) = published.host
        && let Some(floating) = transaction.floating(addr)?
    {
        return Err(Error::Floats { addr, floating: Box::new(floating) });
    }
    let mapping = PortMap {
        id: 0,
        published: *published,
        protocol: *protocol,
        targets: targets(endpoint, link, published.host)?,
        endpoint: endpoint.clone(),
        target_ports: target.ports,
        number: network.number,
        allow_from: Clients::distinct(allow_from),
    };
    if mapping.is_direct() {
        check_direct(network, &mapping)?;
    }
    Ok(mapping)
}

/// What mappings are called in a report of what became of them.
fn what(mappings: &[PortMap]) -> String {
    match mappings {
        [mapping] => format!("mapping {mapping}"),
        several => format!("{} mappings", several.len()),
    }
}

/// What goes with a mapping that is recorded no more: all of it but the reservations that other mappings have.
pub(super) fn of_removed(transaction: &Transaction, mapping: &PortMap) -> Result<Vec<Resource>, Error> {
    let mut obsolete = Vec::new();
    for resource in expand::port_map(mapping) {
        let shared = match &resource {
            Resource::PortMap { key, .. } => key.is_reservation() && transaction.is_reserved(key)?,
            _ => false,
        };
        if !shared {
            obsolete.push(resource);
        }
    }
    Ok(obsolete)
}

/// What is worth knowing of a mapping's restrictions: a family from which nobody may use it, and clients of a
/// family that it has not.
pub(super) fn restrictions(mapping: &PortMap) -> Vec<String> {
    if mapping.allow_from.is_empty() {
        return Vec::new();
    }
    let has_target = |v4: bool| mapping.targets.iter().any(|target| target.is_ipv4() == v4);
    let is_v4 = |clients: &Clients| clients.net().addr().is_ipv4();
    let forgotten = [(true, "IPv4"), (false, "IPv6")].into_iter().filter_map(|(v4, family)| {
        let none = has_target(v4) && mapping.allow_from.iter().all(|clients| is_v4(clients) != v4);
        none.then(|| {
            format!(
                "no {family} prefix is allowed: over {family} only programs of this host can use {mapping}"
            )
        })
    });
    let idle = mapping.allow_from.iter().filter(|clients| !has_target(is_v4(clients)));
    let idle = idle.map(|clients| format!("{clients} allows nobody: {mapping} has no target of that family"));
    forgotten.chain(idle).collect()
}

/// The link's addresses that a mapping leads to: of the published address's family, or of both.
fn targets(endpoint: &Name, link: &Link, host: Option<IpAddr>) -> Result<Vec<IpAddr>, Error> {
    let fits = |addr: &IpAddr| host.is_none_or(|host| host.is_ipv4() == addr.is_ipv4());
    let targets: Vec<IpAddr> = link.addrs().filter(fits).collect();
    match host {
        Some(host) if targets.is_empty() => {
            Err(Error::TargetFamily { host, endpoint: endpoint.clone(), family: family(host) })
        }
        _ => Ok(targets),
    }
}

/// Checks that a mapping on its endpoint's own address can be had: nothing is translated there.
fn check_direct(network: &Network, mapping: &PortMap) -> Result<(), Error> {
    if network.options.gateway_mode != GatewayMode::Routed {
        return Err(Error::NotRouted { endpoint: mapping.endpoint.clone(), network: network.name.clone() });
    }
    if mapping.published.ports != mapping.target_ports {
        let (published, target) = (mapping.published.ports, mapping.target_ports);
        return Err(Error::DirectPorts { published, target });
    }
    Ok(())
}

fn check_host_address(host: &Addresses, addr: IpAddr) -> Result<(), Error> {
    if Addr::from(addr).is_loopback() || host.all().any(|own| own == addr) {
        return Ok(());
    }
    let addresses = host.all().filter(|own| !Addr::from(*own).is_v6_link_local());
    let addresses = there_are(addresses).trim_start_matches(": there is ").to_owned();
    Err(Error::NotOurAddress { addr, addresses })
}

/// What names a mapping to `rm` and `move`.
pub(super) fn mapping_name(mapping: &PortMap) -> String {
    let PortMap { published, protocol, .. } = mapping;
    let protocol = protocol_option(*protocol);
    format!("{published}{protocol}")
}
