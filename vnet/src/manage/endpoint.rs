//! Endpoints.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use vnet_common::{Addr, Mac};

use super::error::there_are;
use super::limit::note_limits;
use super::network::list;
use super::port_map::of_removed;
use super::{Claim, Done, Error, LimitChange, Manager, kernel};
use crate::plan::expand;
use crate::reconcile::Machine;
use crate::spec::{
    Endpoint, Floating, InterfaceName, Limits, Link, Name, Namespace, Network, PortMap, Segment, TargetHost,
};
use crate::store::Transaction;
use crate::{ipam, ours};

/// An endpoint to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointRequest {
    /// Its name.
    pub name: Name,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its place on a network; without one it has a loopback interface and nothing else.
    pub place: Option<Place>,
    /// What is to be limited of it, and what no longer.
    pub limits: LimitChange,
}

/// An endpoint's place on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The network.
    pub network: Name,
    /// Addresses it must have; the lowest free one of a family without.
    pub addresses: Vec<IpAddr>,
    /// Hardware address it must have; one of our choice without.
    pub mac: Option<Mac>,
    /// Name of its interface in the namespace.
    pub ifname: InterfaceName,
}

/// An endpoint that is gone, and what has gone with it.
#[derive(Clone, Debug)]
pub struct RemovedEndpoint {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Its published ports.
    pub mappings: Vec<PortMap>,
    /// Its floating addresses.
    pub floating: Vec<Floating>,
}

/// An endpoint that is recorded, and its network.
pub(super) struct NotedEndpoint {
    pub(super) endpoint: Endpoint,
    pub(super) network: Option<Network>,
    pub(super) claim: Claim,
    /// As it was, if it was recorded and its limits are to be others.
    pub(super) before: Option<Endpoint>,
}

impl<M: Machine> Manager<M> {
    /// Makes an endpoint.
    ///
    /// # Errors
    /// When it clashes with what is there, or is there with another description.
    pub async fn create_endpoint(&self, request: &EndpointRequest) -> Result<Done<Endpoint>, Error> {
        let (transaction, _) = self.begin_settled().await?;
        let NotedEndpoint { endpoint, network, claim, before: _ } =
            self.note_endpoint(&transaction, request, &BTreeSet::new()).await?;
        let wanted = claim.on(expand::endpoint(&endpoint, network.as_ref()));
        let what = format!("endpoint {}", endpoint.name);
        let ops = self.make(transaction, &what, wanted, Vec::new()).await?;
        Ok(Done::new(endpoint, ops))
    }

    /// Notes an endpoint, unless it is recorded. It gets none of the reserved addresses but by asking for it.
    pub(super) async fn note_endpoint(
        &self,
        transaction: &Transaction,
        request: &EndpointRequest,
        reserved: &BTreeSet<IpAddr>,
    ) -> Result<NotedEndpoint, Error> {
        let network = match &request.place {
            Some(place) => Some(self.existing_network(transaction, &place.network)?),
            None => None,
        };
        let recorded = transaction.endpoint(&request.name)?;
        let claim = Claim::of(recorded.as_ref());
        let endpoint = match &recorded {
            Some(endpoint) => same_endpoint(request, endpoint)?,
            None => {
                let link = self.describe_link(transaction, request, network.as_ref(), reserved).await?;
                let (name, namespace) = (request.name.of_new_endpoint()?.clone(), request.namespace.clone());
                let limits = Limits::default();
                let endpoint = Endpoint { name, namespace, link, created: self.now, limits };
                transaction.put_endpoint(&endpoint)?;
                endpoint
            }
        };
        if request.limits == LimitChange::default() {
            return Ok(NotedEndpoint { endpoint, network, claim, before: None });
        }
        let limited = note_limits(transaction, &endpoint, network.as_ref(), request.limits)?;
        Ok(NotedEndpoint { endpoint: limited, network, claim, before: recorded })
    }

    async fn describe_link(
        &self,
        transaction: &Transaction,
        request: &EndpointRequest,
        network: Option<&Network>,
        reserved: &BTreeSet<IpAddr>,
    ) -> Result<Option<Link>, Error> {
        let name = &request.name;
        let Some((place, network)) = request.place.as_ref().zip(network) else { return Ok(None) };
        Ok(Some(Link {
            network: network.name.clone(),
            number: network.number,
            addresses: choose_addresses(transaction, name, place, network, reserved)?,
            mac: self.choose_mac(transaction, name, place.mac, network)?,
            ifname: place.ifname.clone(),
            host_interface: self.choose_host_interface(transaction, name).await?,
        }))
    }

    fn choose_mac(
        &self,
        transaction: &Transaction,
        name: &Name,
        wish: Option<Mac>,
        network: &Network,
    ) -> Result<Mac, Error> {
        let is_free = |mac: Mac| Ok::<_, Error>(mac != network.mac && !transaction.is_mac_taken(mac)?);
        if let Some(mac) = wish {
            return if is_free(mac)? { Ok(mac) } else { Err(Error::MacTaken { mac }) };
        }
        for mac in ours::endpoint_macs(self.instance.name(), name) {
            if is_free(mac)? {
                return Ok(mac);
            }
        }
        Err(Error::NoneLeft { what: "hardware address", name: name.clone() })
    }

    async fn choose_host_interface(
        &self,
        transaction: &Transaction,
        name: &Name,
    ) -> Result<InterfaceName, Error> {
        for candidate in ours::host_interfaces(self.instance.name(), name) {
            let text = candidate.as_str();
            let taken = self.machine.has_interface(text).await;
            let taken = taken.map_err(kernel("look for interfaces of the host"))?;
            if !taken && !transaction.has_interface(text)? {
                return Ok(candidate);
            }
        }
        Err(Error::NoneLeft { what: "interface name", name: name.clone() })
    }

    /// Removes an endpoint, the ports published for it and its floating addresses; nothing if there is none of that
    /// name.
    ///
    /// # Errors
    /// When something of it stays.
    pub async fn remove_endpoint(&self, name: &Name) -> Result<Done<Option<RemovedEndpoint>>, Error> {
        let (transaction, settings) = self.begin_settled().await?;
        let Some(endpoint) = transaction.endpoint(name)? else { return Ok(Done::new(None, Vec::new())) };
        let network = transaction.network_of(&endpoint)?;
        let mappings = transaction.port_maps_of(name)?;
        let blocks_before = transaction.port_blocks()?;
        let mut obsolete = expand::endpoint(&endpoint, network.as_ref());
        expand::order_of_going(&mut obsolete);
        let mut tables = transaction.open_port_maps()?;
        for mapping in &mappings {
            tables.remove(mapping)?;
        }
        drop(tables);
        for mapping in &mappings {
            obsolete.extend(of_removed(&transaction, mapping)?);
        }
        let mut floating = Vec::new();
        for addr in endpoint.addresses() {
            floating.extend(transaction.floating_of(addr)?);
        }
        for floating in &floating {
            obsolete.extend(expand::floating(floating));
            transaction.remove_floating(floating)?;
        }
        transaction.remove_endpoint(&endpoint)?;
        let config = self.config_if_changed(&transaction, &settings, blocks_before)?;
        let what = format!("endpoint {name}");
        let ops = self.unmake(transaction, &what, obsolete, config).await?;
        let addresses: Vec<Addr> = endpoint.addresses().map(Addr::from).collect();
        self.forget(|tuple, entry| {
            let ends = [tuple.src, tuple.dst, entry.translated.src, entry.translated.dst];
            ends.iter().any(|end| addresses.contains(end))
        })?;
        Ok(Done::new(Some(RemovedEndpoint { endpoint, mappings, floating }), ops))
    }

    /// An endpoint that must exist, and where its namespace can be opened.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(super) fn existing_endpoint(
        &self,
        transaction: &Transaction,
        host: &TargetHost,
    ) -> Result<Endpoint, Error> {
        let name = match host {
            TargetHost::Name(name) => Some(name.clone()),
            TargetHost::Addr(addr) => transaction.owner_of(*addr)?,
        };
        let found = match name {
            Some(name) => transaction.endpoint(&name)?,
            None => None,
        };
        if let Some(endpoint) = found {
            return Ok(endpoint);
        }
        let described = transaction.endpoints()?.into_iter().map(|endpoint| {
            let addresses: Vec<IpAddr> = endpoint.addresses().collect();
            if addresses.is_empty() {
                endpoint.name.to_string()
            } else {
                format!("{} ({})", endpoint.name, list(&addresses))
            }
        });
        Err(Error::NoSuchEndpoint { name: host.clone(), existing: there_are(described) })
    }
}

/// One address of each family of the network: the one asked for, or the lowest free one.
fn choose_addresses(
    transaction: &Transaction,
    name: &Name,
    place: &Place,
    network: &Network,
    reserved: &BTreeSet<IpAddr>,
) -> Result<Vec<IpNet>, Error> {
    check_families(place, network)?;
    let choose = |segment| choose_address(transaction, name, place, segment, reserved);
    network.segments.iter().map(choose).collect()
}

fn check_families(place: &Place, network: &Network) -> Result<(), Error> {
    for (i, &addr) in place.addresses.iter().enumerate() {
        let family = family(addr);
        if network.segments.of_family(addr).is_none() {
            return Err(Error::NoFamily { network: network.name.clone(), family, addr });
        }
        if place.addresses[..i].iter().any(|other| other.is_ipv4() == addr.is_ipv4()) {
            return Err(Error::SecondAddress { addr, family });
        }
    }
    Ok(())
}

fn choose_address(
    transaction: &Transaction,
    name: &Name,
    place: &Place,
    segment: &Segment,
    reserved: &BTreeSet<IpAddr>,
) -> Result<IpNet, Error> {
    let refused = |source| Error::Address { endpoint: name.clone(), source };
    let wish = place.addresses.iter().copied().find(|addr| addr.is_ipv4() == segment.subnet.is_v4());
    let addr = match wish {
        Some(addr) => {
            ipam::check(segment, addr, transaction.owner_of(addr)?).map_err(refused)?;
            addr
        }
        None => {
            let mut taken = transaction.taken_in(segment.subnet)?;
            taken.extend(reserved.range(segment.subnet.first_host()..=segment.subnet.last_host()));
            taken.sort_unstable();
            taken.dedup();
            ipam::lowest_free(segment, taken).map_err(refused)?
        }
    };
    Ok(segment.address(addr))
}

/// "IPv4" or "IPv6".
pub(super) fn family(addr: IpAddr) -> &'static str {
    if addr.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The endpoint that is there, if it is the one that is asked for. What was left to us may be anything.
fn same_endpoint(request: &EndpointRequest, endpoint: &Endpoint) -> Result<Endpoint, Error> {
    let mut differences = Vec::new();
    if request.namespace != endpoint.namespace {
        let namespace = expand::namespace_path(endpoint);
        differences.push(format!("namespace {}", namespace.display()));
    }
    match (&request.place, &endpoint.link) {
        (Some(place), Some(link)) => differences.extend(link_differences(place, link)),
        (None, Some(link)) => differences.push(format!("network {}", link.network)),
        (Some(_), None) => differences.push("no network".to_owned()),
        (None, None) => {}
    }
    if differences.is_empty() {
        return Ok(endpoint.clone());
    }
    Err(Error::Differs {
        what: format!("endpoint {}", endpoint.name),
        differences: differences.join(", "),
        remove: format!("vnet ns rm {}", endpoint.name),
    })
}

fn link_differences(place: &Place, link: &Link) -> Vec<String> {
    let mut differences = Vec::new();
    if place.network != link.network {
        differences.push(format!("network {}", link.network));
    }
    let addresses: Vec<IpAddr> = link.addresses.iter().map(IpNet::addr).collect();
    if !place.addresses.iter().all(|addr| addresses.contains(addr)) {
        differences.push(format!("address {}", list(&addresses)));
    }
    if place.mac.is_some_and(|mac| mac != link.mac) {
        differences.push(format!("hardware address {}", link.mac));
    }
    if place.ifname != link.ifname {
        differences.push(format!("interface {}", link.ifname));
    }
    differences
}
