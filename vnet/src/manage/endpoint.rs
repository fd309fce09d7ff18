//! Endpoints.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use vnet_common::{Addr, Mac};

use super::connection::with_departing;
use super::direct::check_free;
use super::error::{Refusals, nearest, there_are};
use super::limit::{check_bursts, note_limits};
use super::network::list;
use super::port_map::of_removed;
use super::{Claim, Done, Error, LimitChange, Manager, Unnamed, Wanted, kernel};
use crate::plan::expand;
use crate::reconcile::Machine;
use crate::spec::{
    DirectLink, Endpoint, ExtraRoute, Floating, InterfaceName, Limits, Link, LinkMode, Name, Namespace,
    Network, PortMap, Segment, TargetHost,
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
    /// Its places, each on another network, that of the default routes first; without one it has a loopback interface
    /// and nothing else.
    pub places: Vec<Place>,
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
    /// Name of its interface in the namespace; the first of eth0, eth1, ... that is free without.
    pub ifname: Option<InterfaceName>,
    /// Routes beside the default ones.
    pub routes: Vec<ExtraRoute>,
}

impl Place {
    /// A place about which everything else is left to us.
    #[must_use]
    pub const fn on(network: Name) -> Self {
        Self { network, addresses: Vec::new(), mac: None, ifname: None, routes: Vec::new() }
    }
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
    /// Its direct links to other endpoints.
    pub directs: Vec<DirectLink>,
}

/// An endpoint that is recorded, and its networks.
pub(super) struct NotedEndpoint {
    pub(super) endpoint: Endpoint,
    pub(super) networks: Vec<Network>,
    /// As it was, if it was recorded.
    pub(super) before: Option<Endpoint>,
    /// Links that it had and that are to be gone.
    pub(super) departing: Vec<Link>,
}

impl NotedEndpoint {
    /// What it is made of. What was there already comes first: a link that is to have the default routes takes them over
    /// once what is sent from the addresses of the others is routed without.
    pub(super) fn wanted(&self) -> Vec<Wanted> {
        let Self { endpoint, networks, before, departing } = self;
        let mut wanted = Claim::of(before.as_ref()).on(expand::namespace(endpoint));
        let endpoint = &with_departing(endpoint, departing);
        let is_recorded =
            |link: &Link| before.as_ref().is_some_and(|before| before.link_to(&link.network).is_some());
        for claim in [Claim::Recorded, Claim::New] {
            let links = expand::linked(endpoint, networks);
            for (link, network) in links.filter(|(link, _)| !departing.contains(link)) {
                if is_recorded(link) == (claim == Claim::Recorded) {
                    wanted.extend(claim.on(expand::link(endpoint, link, network)));
                }
            }
        }
        wanted
    }
}

impl NotedEndpoint {
    /// What is worth knowing of its routes: the host looks at where a packet goes, not at whom it was handed to.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (link, network) in expand::linked(&self.endpoint, &self.networks) {
            let is_gateway = |via: IpAddr| network.segments.iter().any(|segment| segment.gateway == via);
            for route in link.routes.iter().filter(|route| route.via.is_some_and(|via| !is_gateway(via))) {
                notes.push(format!(
                    "route {route} of endpoint {}: the router is none of network {}'s gateways, and what endpoints send \
                     beyond their network is routed by the host by its destination, whoever it is handed to",
                    self.endpoint.name, network.name
                ));
            }
        }
        notes
    }
}

/// What holds for the links of an endpoint that is to be noted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms<'a> {
    /// Addresses that are given only to who asks for them.
    pub(super) reserved: &'a BTreeSet<IpAddr>,
    /// What becomes of one that is there without being on a network that it is asked to be on.
    pub(super) unlinked: Unlinked,
    /// Links that it had and that are to be gone, and are there as yet.
    pub(super) departing: &'a [Link],
}

impl Terms<'_> {
    /// Those of a command about one endpoint.
    pub(super) const ALONE: Self =
        Self { reserved: &BTreeSet::new(), unlinked: Unlinked::Refused, departing: &[] };
}

/// What becomes of an endpoint that is there and is not on a network that it is asked to be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unlinked {
    /// The request is refused.
    Refused,
    /// It is connected.
    Connected,
}

impl<M: Machine> Manager<M> {
    /// Makes an endpoint.
    ///
    /// # Errors
    /// When it clashes with what is there, or is there with another description.
    pub async fn create_endpoint(&self, request: &EndpointRequest) -> Result<Done<Endpoint>, Error> {
        let (transaction, _) = self.begin_settled().await?;
        let noted = self.note_endpoint(&transaction, request, Terms::ALONE).await?;
        let what = format!("endpoint {}", noted.endpoint.name);
        let ops = self.make(transaction, &what, noted.wanted(), Vec::new()).await?;
        let notes = noted.notes();
        Ok(Done { value: noted.endpoint, ops, notes })
    }

    /// Notes an endpoint, unless it is recorded.
    pub(super) async fn note_endpoint(
        &self,
        transaction: &Transaction,
        request: &EndpointRequest,
        terms: Terms<'_>,
    ) -> Result<NotedEndpoint, Error> {
        let mut refusals = Refusals::default();
        for place in &request.places {
            refusals.take(self.existing_network(transaction, &place.network))?;
        }
        refusals.into_result()?;
        let namespace = self.resolve(transaction, request)?;
        let request = &EndpointRequest { namespace, ..request.clone() };
        let before = transaction.endpoint(&request.name)?;
        let endpoint = match &before {
            Some(endpoint) => {
                check_same(request, endpoint, terms.unlinked)?;
                endpoint.clone()
            }
            None => {
                if let Namespace::Foreign { path } = &request.namespace {
                    let checked = self.machine.check_namespace(path);
                    checked.map_err(|source| Error::NamespaceToAttach { source: Box::new(source) })?;
                }
                Endpoint {
                    name: request.name.of_new_endpoint()?.clone(),
                    namespace: request.namespace.clone(),
                    links: Vec::new(),
                    created: self.now,
                    limits: Limits::default(),
                }
            }
        };
        let first = match terms.unlinked {
            Unlinked::Refused if before.is_some() => None,
            _ => request.places.first().map(|place| &place.network),
        };
        let endpoint = self.note_links(transaction, endpoint, &request.places, (first, terms)).await?;
        let networks = transaction.networks_of(&endpoint)?;
        let endpoint = if request.limits == LimitChange::default() {
            endpoint
        } else {
            // A limit is what is said of it.
            note_limits(transaction, &endpoint, &networks, (request.limits, Unnamed::Goes))?
        };
        Ok(NotedEndpoint { endpoint, networks, before, departing: terms.departing.to_vec() })
    }

    /// The namespace that is asked for, where it can be opened if it is another endpoint's.
    fn resolve(&self, transaction: &Transaction, request: &EndpointRequest) -> Result<Namespace, Error> {
        let Namespace::Shared { with, .. } = &request.namespace else { return Ok(request.namespace.clone()) };
        let other = self.existing_endpoint(transaction, &TargetHost::Name(with.clone()))?;
        match other.namespace {
            // That one's is another's, too: it stays that one's when this one goes between.
            shared @ Namespace::Shared { .. } => Ok(shared),
            Namespace::Host => Err(Error::SharesHost { with: with.clone() }),
            Namespace::Own | Namespace::Foreign { .. } if *with == request.name => {
                Err(Error::SharesItself { name: with.clone() })
            }
            Namespace::Own | Namespace::Foreign { .. } => {
                let path = expand::namespace_path(&other).unwrap_or_default();
                Ok(Namespace::Shared { with: with.clone(), path })
            }
        }
    }

    /// An endpoint that has links of its own, or may have some.
    pub(super) fn linkable(&self, transaction: &Transaction, name: &Name) -> Result<Endpoint, Error> {
        let endpoint = self.existing_endpoint(transaction, &TargetHost::Name(name.clone()))?;
        match &endpoint.namespace {
            Namespace::Own | Namespace::Foreign { .. } => Ok(endpoint),
            Namespace::Host => Err(Error::InHost { endpoint: name.clone() }),
            Namespace::Shared { with, .. } => {
                Err(Error::Shares { endpoint: name.clone(), with: with.clone() })
            }
        }
    }

    /// Notes an endpoint with links to the networks that it is not on yet, the one to `first` in front of all others.
    pub(super) async fn note_links(
        &self,
        transaction: &Transaction,
        mut endpoint: Endpoint,
        places: &[Place],
        (first, terms): (Option<&Name>, Terms<'_>),
    ) -> Result<Endpoint, Error> {
        // So that what is chosen for one link is not free for the next.
        transaction.put_endpoint(&endpoint)?;
        let mut refusals = Refusals::default();
        for place in places {
            if endpoint.link_to(&place.network).is_none() {
                let network = self.existing_network(transaction, &place.network)?;
                refusals.take(check_bursts(&endpoint, &network))?;
                let link = self.describe_link(transaction, &endpoint, place, (&network, terms)).await;
                let Some(link) = refusals.take(link)? else { continue };
                refusals.take(check_free(transaction, &endpoint, &link.addresses))?;
                endpoint.links.push(link);
                transaction.put_endpoint(&endpoint)?;
            }
        }
        refusals.into_result()?;
        if let Some(at) = first.and_then(|first| endpoint.links.iter().position(|it| it.network == *first)) {
            endpoint.links[..=at].rotate_right(1);
        }
        if endpoint.links.len() > 1 {
            for link in &mut endpoint.links {
                let table = || ours::routing_table(self.instance.name(), &endpoint.name, &link.network);
                link.table = Some(link.table.unwrap_or_else(table));
            }
        }
        transaction.put_endpoint(&endpoint)?;
        Ok(endpoint)
    }

    async fn describe_link(
        &self,
        transaction: &Transaction,
        endpoint: &Endpoint,
        place: &Place,
        (network, terms): (&Network, Terms<'_>),
    ) -> Result<Link, Error> {
        let name = &endpoint.name;
        let mut refusals = Refusals::default();
        let addresses = refusals.take(choose_addresses(transaction, name, place, network, terms.reserved))?;
        let own = addresses.as_deref().unwrap_or_default();
        refusals.take(check_routes(endpoint, place, (network, own)))?;
        let mac = refusals.take(self.choose_mac(transaction, endpoint, place.mac, network))?;
        let ifname = refusals.take(choose_ifname(endpoint, place, terms.departing))?;
        let host_interface = refusals.take(self.choose_host_interface(transaction, name).await)?;
        let found = addresses.zip(mac).zip(ifname).zip(host_interface);
        let Some((((addresses, mac), ifname), host_interface)) = found else {
            return Err(refusals.into_error());
        };
        refusals.into_result()?;
        Ok(Link {
            network: network.name.clone(),
            number: network.number,
            addresses,
            mac,
            ifname,
            host_interface,
            created: Some(self.now),
            routes: place.routes.clone(),
            table: None,
        })
    }

    fn choose_mac(
        &self,
        transaction: &Transaction,
        endpoint: &Endpoint,
        wish: Option<Mac>,
        network: &Network,
    ) -> Result<Mac, Error> {
        let name = &endpoint.name;
        let is_free = |mac: Mac| Ok::<_, Error>(mac != network.mac && !transaction.is_mac_taken(mac)?);
        if let Some(mac) = wish {
            return if is_free(mac)? { Ok(mac) } else { Err(Error::MacTaken { mac }) };
        }
        let further = (!endpoint.links.is_empty()).then_some(&network.name);
        for mac in ours::endpoint_macs(self.instance.name(), name, further) {
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
        let others = transaction.endpoints()?.into_iter().filter(|other| other.shares_with(name));
        let others: Vec<Name> = others.map(|other| other.name).collect();
        if !others.is_empty() {
            return Err(Error::SharedWith { endpoint: name.clone(), others: list(&others) });
        }
        let mappings = transaction.port_maps_of(name)?;
        let blocks_before = transaction.port_blocks()?;
        let mut obsolete = expand::endpoint(&endpoint, &transaction.networks_of(&endpoint)?);
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
        let directs = transaction.directs_of(name)?;
        for link in &directs {
            obsolete.push(expand::direct(link));
            transaction.remove_direct(link)?;
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
        Ok(Done::new(Some(RemovedEndpoint { endpoint, mappings, floating, directs }), ops))
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
        Err(no_such_endpoint(host.clone(), &transaction.endpoints()?))
    }
}

/// What is said of an endpoint that is not among those that there are.
#[must_use]
pub fn no_such_endpoint(asked: TargetHost, endpoints: &[Endpoint]) -> Error {
    let described = endpoints.iter().map(|endpoint| {
        let addresses: Vec<IpAddr> = endpoint.addresses().collect();
        if addresses.is_empty() {
            endpoint.name.to_string()
        } else {
            format!("{} ({})", endpoint.name, list(&addresses))
        }
    });
    let mut existing = there_are(described);
    let nearest = match &asked {
        TargetHost::Name(name) => nearest(name.as_str(), endpoints.iter().map(|it| it.name.as_str())),
        TargetHost::Addr(_) => None,
    };
    existing.push_str(&match nearest {
        _ if endpoints.is_empty() => ", nor any other: `vnet ns create` makes one".to_owned(),
        Some(nearest) => format!("; did you mean {nearest}?"),
        None => "; `vnet ns ls` lists them".to_owned(),
    });
    Error::NoSuchEndpoint { name: asked, existing }
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
    let choose = |segment| choose_address(transaction, name, place, (network, segment, reserved));
    let mut refusals = Refusals::default();
    let mut addresses = Vec::new();
    for chosen in network.segments.iter().map(choose) {
        addresses.extend(refusals.take(chosen)?);
    }
    refusals.into_result()?;
    Ok(addresses)
}

fn check_families(place: &Place, network: &Network) -> Result<(), Error> {
    let mut refusals = Refusals::default();
    for (i, &addr) in place.addresses.iter().enumerate() {
        let family = family(addr);
        let mut refuse = |error| refusals.take(Err::<(), _>(error)).map(|_| ());
        if network.segments.of_family(addr).is_none() {
            refuse(Error::NoFamily { network: network.name.clone(), family, addr })?;
        } else if place.addresses[..i].iter().any(|other| other.is_ipv4() == addr.is_ipv4()) {
            refuse(Error::SecondAddress { addr, family })?;
        }
    }
    refusals.into_result()
}

fn choose_address(
    transaction: &Transaction,
    name: &Name,
    place: &Place,
    (network, segment, reserved): (&Network, &Segment, &BTreeSet<IpAddr>),
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
            taken.extend(&network.reserved);
            taken.retain(|addr| addr.is_ipv4() == segment.subnet.is_v4());
            taken.sort_unstable();
            taken.dedup();
            ipam::lowest_free(segment, network.range_of(segment), taken).map_err(refused)?
        }
    };
    Ok(segment.address(addr))
}

/// "IPv4" or "IPv6".
pub(super) fn family(addr: IpAddr) -> &'static str {
    if addr.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The interface's name that is asked for, or the first of eth0, eth1, ... that none of the other links has.
fn choose_ifname(endpoint: &Endpoint, place: &Place, departing: &[Link]) -> Result<InterfaceName, Error> {
    let links = || endpoint.links.iter().chain(departing);
    let owner = |name: &InterfaceName| links().find(|link| link.ifname == *name);
    if let Some(name) = &place.ifname {
        return match owner(name) {
            Some(link) => Err(Error::IfnameTaken {
                endpoint: endpoint.name.clone(),
                ifname: name.clone(),
                network: link.network.clone(),
            }),
            None => Ok(name.clone()),
        };
    }
    let mut names = (0..=links().count()).filter_map(|nth| format!("eth{nth}").parse().ok());
    let free = names.find(|name| owner(name).is_none());
    free.ok_or_else(|| Error::NoneLeft { what: "interface name", name: endpoint.name.clone() })
}

/// Checks that the routes of a link lead somewhere by it, and nowhere where another link leads.
fn check_routes(
    endpoint: &Endpoint,
    place: &Place,
    (network, addresses): (&Network, &[IpNet]),
) -> Result<(), Error> {
    let mut refusals = Refusals::default();
    for nth in 0..place.routes.len() {
        refusals.take(check_route(endpoint, (place, nth), (network, addresses)))?;
    }
    refusals.into_result()
}

fn check_route(
    endpoint: &Endpoint,
    (place, nth): (&Place, usize),
    (network, addresses): (&Network, &[IpNet]),
) -> Result<(), Error> {
    let route = &place.routes[nth];
    let bad = |reason: String| {
        let (endpoint, route) = (endpoint.name.clone(), Box::new(*route));
        Err(Error::ExtraRoute { endpoint, route, reason })
    };
    let destination = route.destination.net();
    let Some(segment) = network.segments.of_family(destination.addr()) else {
        let family = family(destination.addr());
        return bad(format!("network {} has no {family} prefix", network.name));
    };
    if let Some(via) = route.via
        && (!segment.subnet.is_host(via) || addresses.iter().any(|own| own.addr() == via))
    {
        return bad(format!("the router must be another address of {}", segment.subnet));
    }
    if route.via.is_some_and(|via| via != segment.gateway) && !network.is_bridged() {
        return bad(format!(
            "network {} has no bridge, by which another router than {} could be reached",
            network.name, segment.gateway
        ));
    }
    if place.routes[..nth].iter().any(|other| other.destination == route.destination) {
        return bad("there are two to the same destination".to_owned());
    }
    for link in &endpoint.links {
        let same_route = link.routes.iter().any(|other| other.destination == route.destination);
        if same_route || link.addresses.iter().any(|net| net.trunc() == destination) {
            return bad(format!("its link to network {} leads there", link.network));
        }
    }
    if segment.subnet.net() == destination {
        return bad(format!("that is network {} itself", network.name));
    }
    Ok(())
}

/// Checks that the endpoint that is there is the one that is asked for. What was left to us may be anything, and it may
/// have been connected to more networks since.
fn check_same(request: &EndpointRequest, endpoint: &Endpoint, unlinked: Unlinked) -> Result<(), Error> {
    let mut differences = Vec::new();
    if request.namespace != endpoint.namespace {
        differences.push(match endpoint.mode() {
            mode @ (LinkMode::Host | LinkMode::Container(_)) => format!("mode {mode}"),
            LinkMode::Bridge | LinkMode::None => {
                format!("namespace {}", expand::namespace_path(endpoint).unwrap_or_default().display())
            }
        });
    }
    let networks: Vec<&Name> = endpoint.links.iter().map(|link| &link.network).collect();
    let networks =
        || if networks.is_empty() { "no network".to_owned() } else { format!("network {}", list(&networks)) };
    if request.places.is_empty() && !endpoint.links.is_empty() {
        differences.push(networks());
    }
    for place in &request.places {
        match endpoint.link_to(&place.network) {
            Some(link) => differences.extend(link_differences(place, link)),
            None if unlinked == Unlinked::Refused => differences.push(networks()),
            None => {}
        }
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::Differs {
        what: format!("endpoint {}", endpoint.name),
        differences: differences.join(", "),
        remove: format!("vnet ns rm {}", endpoint.name),
    })
}

/// What of a link is not as it is asked for.
pub(super) fn link_differences(place: &Place, link: &Link) -> Vec<String> {
    let mut differences = Vec::new();
    let addresses: Vec<IpAddr> = link.addrs().collect();
    if !place.addresses.iter().all(|addr| addresses.contains(addr)) {
        differences.push(format!("address {}", list(&addresses)));
    }
    if place.mac.is_some_and(|mac| mac != link.mac) {
        differences.push(format!("hardware address {}", link.mac));
    }
    if place.ifname.as_ref().is_some_and(|ifname| *ifname != link.ifname) {
        differences.push(format!("interface {}", link.ifname));
    }
    if place.routes != link.routes {
        let routes = if link.routes.is_empty() {
            "no more routes".to_owned()
        } else {
            format!("route {}", list(&link.routes))
        };
        differences.push(routes);
    }
    differences
}
