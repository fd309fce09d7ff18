//! From the objects of a spec to the resources they are made of.
//!
//! Every function gives its resources in the order of creation: links, then addresses and routes (part of the
//! links' descriptions), then attachments, then map entries. A command expands only the objects it is about,
//! so one mapping costs the same beside fifty thousand others.

use std::iter;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use vnet_common::{Addr, AllowFrom, AllowFromKey, EndpointValue, Hook, Port, PortMapKey, PortMapValue, Zone};

use super::{BySource, CgroupShare, Class, Direct, DirectEnd, Hop, Queue, Resource, Shaper, Veth, blocks};
use crate::ours;
use crate::spec::{
    CgroupLimit, Cidr, DirectLink, Endpoint, ExtraRoute, Floating, Hold, InterfaceName, Limit, Link,
    Masquerade, Namespace, Nesting, Network, Pacing, PortMap, Router, Settings, Xdp,
};

/// What every instance has, whatever its networks.
#[must_use]
pub fn instance(settings: &Settings, port_blocks: u32) -> Vec<Resource> {
    let ports = settings.nat_ports;
    let reserved = Resource::ReservedPorts { first: ports.first(), last: ports.last() };
    // The configuration says that fragments may wait, and so comes after all that they need for it.
    iter::once(Resource::DataPath(settings.tables))
        .chain(settings.hold.iter().flat_map(hold))
        .chain([reserved, config(settings, port_blocks)])
        .collect()
}

/// The configuration; bit n of `port_blocks` says whether blocks of prefix length n exist.
#[must_use]
pub fn config(settings: &Settings, port_blocks: u32) -> Resource {
    let hold = settings.hold.as_ref().map(|hold| hold.entrance.to_string());
    Resource::Config { config: settings.config(port_blocks), hold }
}

/// Where fragments wait.
#[must_use]
pub fn hold(hold: &Hold) -> Vec<Resource> {
    let Hold { entrance, exit } = hold;
    vec![
        Resource::Hold { entrance: entrance.to_string(), exit: exit.to_string() },
        Resource::Attachment { hook: Hook::FromHold, interface: exit.to_string() },
    ]
}

/// An uplink. Its address entry is there before its programs are, and what leaves is translated before what
/// comes in is looked at.
#[must_use]
pub fn uplink(interface: &InterfaceName) -> Vec<Resource> {
    let attachment = |hook| Resource::Attachment { hook, interface: interface.to_string() };
    vec![
        Resource::Uplink { interface: interface.to_string() },
        attachment(Hook::ToUplink),
        attachment(Hook::FromUplink),
    ]
}

/// The XDP program of an uplink, in whichever mode; nothing if it is to have none.
#[must_use]
pub fn xdp(interface: &InterfaceName, mode: Xdp) -> Option<Resource> {
    let generic = match mode {
        Xdp::Off => return None,
        Xdp::Native => false,
        Xdp::Generic => true,
    };
    Some(Resource::Xdp { interface: interface.to_string(), generic })
}

/// Sources on the deny list.
#[must_use]
pub fn denied(sources: Cidr) -> Resource {
    Resource::Denied { subnet: sources.net() }
}

/// That an uplink forwards: for packets that go through the host's stack.
#[must_use]
pub fn forwarding(interface: &InterfaceName) -> Resource {
    Resource::Forwarding { interface: interface.to_string() }
}

/// An address of the host.
#[must_use]
pub fn host_address(addr: IpAddr, interface: &str) -> Resource {
    Resource::HostAddress { addr, interface: interface.to_owned() }
}

/// A network's bridge, or what it has instead, its prefixes and the guard of what is sent or routed into it.
#[must_use]
pub fn network(network: &Network) -> Vec<Resource> {
    let addresses = network.segments.iter().map(|segment| segment.gateway_address()).collect();
    let bridge = Resource::Bridge {
        name: network.bridge.to_string(),
        far_end: network.far_end.as_ref().map(ToString::to_string),
        mac: network.mac,
        mtu: network.mtu,
        gso: network.gso,
        addresses,
    };
    let gateways = gateways(network).into_iter().map(|addr| host_address(addr, network.bridge.as_str()));
    let prefixes = network.segments.iter().map(|segment| Resource::Network {
        subnet: segment.subnet.net(),
        bridge: network.bridge.to_string(),
        zone: network.zone(),
        flags: network.flags(),
        gateway: segment.gateway,
    });
    // After the prefixes and before any endpoint: nobody is reached past it.
    let hook = if network.is_bridged() { Hook::ToBridge } else { Hook::ToNetwork };
    let guard = Resource::Attachment { hook, interface: network.bridge.to_string() };
    iter::once(bridge).chain(gateways).chain(prefixes).chain([guard]).collect()
}

/// The addresses of a network's bridge: its gateways, and where it has IPv6 the bridge's link-local one.
#[must_use]
pub fn gateways(network: &Network) -> Vec<IpAddr> {
    let link_local = network.segments.has_v6().then(|| IpAddr::V6(ours::link_local(network.mac)));
    network.segments.iter().map(|segment| segment.gateway).chain(link_local).collect()
}

/// A masquerade rule.
#[must_use]
pub fn masquerade(rule: &Masquerade) -> Resource {
    Resource::Masquerade { subnet: rule.subnet.net(), to: rule.to, one_to_one: false }
}

/// Destinations that masquerade leaves alone.
#[must_use]
pub fn unmasqueraded(destinations: Cidr) -> Resource {
    Resource::Unmasqueraded { subnet: destinations.net() }
}

/// A floating address: what the endpoint sends goes out under it before what arrives for it comes in.
#[must_use]
pub fn floating(floating: &Floating) -> Vec<Resource> {
    let Floating { external, addr, .. } = *floating;
    let entries = [
        Resource::Masquerade { subnet: addr.into(), to: Some(external), one_to_one: true },
        Resource::Floating { external, addr, zone: floating.zone() },
    ];
    let address = |interface: &InterfaceName| Resource::ExternalAddress {
        address: external.into(),
        interface: interface.to_string(),
    };
    let own = |interface: &InterfaceName| [host_address(external, interface.as_str()), address(interface)];
    // Whoever hears of the address finds that it leads to the endpoint. What has the address only for that knows it no
    // longer than that either.
    entries.into_iter().chain(floating.on.iter().flat_map(own)).collect()
}

/// What makes an instance a router: its namespace, and the link to the outside.
#[must_use]
pub fn router(instance: &str, settings: &Settings) -> Vec<Resource> {
    let Some(router) = &settings.router else { return Vec::new() };
    vec![Resource::Home { name: instance.to_owned() }, Resource::Leg(leg(instance, router))]
}

/// A router's link to the outside.
#[must_use]
pub fn leg(instance: &str, router: &Router) -> Veth {
    let Router { bridge, host_interface, ifname, mac, mtu, gso, addresses, gateways, host: _ } = router;
    Veth {
        host: host_interface.to_string(),
        bridge: Some(bridge.to_string()),
        namespace: ours::home_path(instance),
        ifname: ifname.to_string(),
        mac: *mac,
        mtu: *mtu,
        gso: *gso,
        addresses: addresses.clone(),
        gateways: gateways.clone(),
        routes: Vec::new(),
        by_source: None,
        siblings: Vec::new(),
        neighbours: Vec::new(),
    }
}

/// An endpoint; `networks` are those it is linked to.
#[must_use]
pub fn endpoint(endpoint: &Endpoint, networks: &[Network]) -> Vec<Resource> {
    let links = linked(endpoint, networks).flat_map(|(link, network)| self::link(endpoint, link, network));
    namespace(endpoint).into_iter().chain(links).collect()
}

/// The namespace of an endpoint, if it is made for it.
#[must_use]
pub fn namespace(endpoint: &Endpoint) -> Option<Resource> {
    let own = matches!(endpoint.namespace, Namespace::Own);
    own.then(|| Resource::Namespace { name: endpoint.name.to_string() })
}

/// The links of an endpoint, each with its network.
pub fn linked<'a>(
    endpoint: &'a Endpoint,
    networks: &'a [Network],
) -> impl Iterator<Item = (&'a Link, &'a Network)> {
    let network = |link: &Link| networks.iter().find(|network| network.name == link.network);
    endpoint.links.iter().filter_map(move |link| Some((link, network(link)?)))
}

/// What is limited of an endpoint, on each of its links: what it sends at its own end of the pair, what it receives at
/// the other.
#[must_use]
pub fn limits(endpoint: &Endpoint, networks: &[Network]) -> Vec<Resource> {
    linked(endpoint, networks).flat_map(|(link, network)| link_limits(endpoint, link, network)).collect()
}

fn link_limits(endpoint: &Endpoint, link: &Link, network: &Network) -> Vec<Resource> {
    let shaper = |limit: Limit, interface: &InterfaceName, namespace| {
        let (burst, queue) = (limit.burst(network.mtu), limit.queue(network.mtu));
        let interface = interface.to_string();
        Resource::Limit(Shaper { interface, namespace, rate: limit.rate, burst, queue })
    };
    let inside = namespace_path(endpoint);
    let egress = endpoint.limits.egress.map(|limit| shaper(limit, &link.ifname, inside));
    let ingress = endpoint.limits.ingress.map(|limit| shaper(limit, &link.host_interface, None));
    egress.into_iter().chain(ingress).collect()
}

/// Where what limited cgroups send waits, on one uplink, and the program that finds them; nothing if none is limited. The
/// queue is there before anything is sent through it.
#[must_use]
pub fn shaping(uplink: &InterfaceName, limits: &[CgroupLimit]) -> Vec<Resource> {
    let Some(first) = limits.first() else { return Vec::new() };
    let mut classes: Vec<(usize, Class)> = match first.pacing {
        Pacing::Fq => Vec::new(),
        Pacing::Htb => {
            let nesting = Nesting::of(limits);
            let place = |limit: &CgroupLimit| {
                let around = nesting.around(&limit.cgroup);
                let parent = around.map(|limit| limit.number).next();
                (nesting.around(&limit.cgroup).count(), Class { parent, ..class(limit) })
            };
            limits.iter().map(place).collect()
        }
    };
    classes.sort_by_key(|(depth, class)| (*depth, class.number));
    let classes = classes.into_iter().map(|(_, class)| class).collect();
    let interface = uplink.to_string();
    vec![
        Resource::Queue(Queue { interface: interface.clone(), pacing: first.pacing, classes }),
        Resource::Attachment { hook: Hook::Shape, interface },
    ]
}

/// What [`shaping`] an uplink may have, to be taken away whatever it is.
#[must_use]
pub fn any_shaping(uplink: &InterfaceName) -> Vec<Resource> {
    let interface = uplink.to_string();
    vec![
        Resource::Queue(Queue { interface: interface.clone(), pacing: Pacing::Fq, classes: Vec::new() }),
        Resource::Attachment { hook: Hook::Shape, interface },
    ]
}

/// The limit of a cgroup, wherever it sends.
#[must_use]
pub fn cgroup_limit(limit: &CgroupLimit) -> Resource {
    Resource::CgroupLimit(CgroupShare {
        cgroup: limit.cgroup.clone(),
        pacing: limit.pacing,
        class: class(limit),
    })
}

/// The class of a limit, as if it were alone.
fn class(limit: &CgroupLimit) -> Class {
    Class {
        number: limit.number,
        parent: None,
        rate: limit.limit.rate,
        burst: limit.burst(),
        queue: limit.queue(),
    }
}

/// A direct link between two endpoints.
#[must_use]
pub fn direct(link: &DirectLink) -> Resource {
    let ends = link.ends.each_ref().map(|end| DirectEnd {
        namespace: end.namespace.clone(),
        ifname: end.ifname.to_string(),
        mac: end.mac,
        addresses: end.addresses.clone(),
    });
    Resource::Direct(Direct { ends, mtu: link.mtu })
}

/// What endpoints are made of, in the order whose reverse is that of their removal: with its namespace the kernel takes
/// an endpoint's link away, and with that the program, without anybody having to wait until every processor has
/// forgotten either. Entries go first: what an endpoint without one sends is dropped. Limits go with their interfaces.
pub fn order_of_going(resources: &mut Vec<Resource>) {
    resources.retain(|resource| !matches!(resource, Resource::Limit(_)));
    resources.sort_by_key(|resource| match resource {
        Resource::Attachment { .. } => 0,
        Resource::Veth(_) => 1,
        Resource::Namespace { .. } => 2,
        _ => 3,
    });
}

/// A link of an endpoint.
#[must_use]
pub fn link(endpoint: &Endpoint, link: &Link, network: &Network) -> Vec<Resource> {
    let attachment =
        Resource::Attachment { hook: Hook::FromEndpoint, interface: link.host_interface.to_string() };
    // The entries before the program that looks for them: an endpoint speaks as soon as its link is up, and what
    // it says is not forged.
    iter::once(veth(endpoint, link, network))
        .chain(link_limits(endpoint, link, network))
        .chain(endpoint_entries(endpoint, link, network))
        .chain([attachment])
        .collect()
}

/// The pair of interfaces that is a link, with its addresses and routes.
#[must_use]
pub fn veth(endpoint: &Endpoint, link: &Link, network: &Network) -> Resource {
    let siblings = endpoint.links.iter().filter(|other| other.network != link.network);
    let to = |route: &ExtraRoute| {
        let destination = route.destination.net();
        let gateway = route.via.or_else(|| gateway_like(network, destination.addr()));
        Hop { destination, gateway }
    };
    // Without a bridge the gateway is all there is on the link, and its hardware address is no secret: nobody asks for
    // neighbours, of which the kernel remembers no more than about a thousand at a time, in all namespaces together.
    let within = if network.is_bridged() { Vec::new() } else { routes_within(link, network) };
    let addresses = link.addresses.iter();
    let addresses = addresses.map(|net| if network.is_bridged() { *net } else { IpNet::from(net.addr()) });
    let neighbours = gateways(network).into_iter().filter(|_| !network.is_bridged());
    let neighbours = neighbours.filter(|addr| has_family(link, *addr));
    Resource::Veth(Veth {
        host: link.host_interface.to_string(),
        bridge: network.is_bridged().then(|| network.bridge.to_string()),
        // Whatever has a link has a namespace.
        namespace: namespace_path(endpoint).unwrap_or_default(),
        ifname: link.ifname.to_string(),
        mac: link.mac,
        mtu: network.mtu,
        gso: network.gso,
        addresses: addresses.collect(),
        neighbours: neighbours.map(|addr| (addr, network.mac)).collect(),
        gateways: default_routes(endpoint, link, network),
        routes: within.into_iter().chain(link.routes.iter().map(to)).collect(),
        by_source: by_source(endpoint, link, network),
        siblings: siblings.map(|other| other.ifname.to_string()).collect(),
    })
}

/// The routes into a network that has no bridge, of the families that a link has: to the gateways, and by them.
fn routes_within(link: &Link, network: &Network) -> Vec<Hop> {
    let own = network.segments.iter().filter(|segment| has_family(link, segment.gateway));
    own.flat_map(|segment| {
        let (subnet, gateway) = (segment.subnet.net(), segment.gateway);
        let to_gateway = Hop { destination: gateway.into(), gateway: None };
        [to_gateway, Hop { destination: subnet, gateway: Some(gateway) }]
    })
    .collect()
}

/// Whether a link has an address of the family of another.
fn has_family(link: &Link, like: IpAddr) -> bool {
    link.addrs().any(|addr| addr.is_ipv4() == like.is_ipv4())
}

/// What is sent from addresses of a link by which the default route of their family does not lead: to neighbours, by
/// the link's other routes, or to the gateway.
fn by_source(endpoint: &Endpoint, link: &Link, network: &Network) -> Option<BySource> {
    let table = link.table?;
    let others: Vec<&IpNet> = link.addresses.iter().filter(|net| !endpoint.is_default(net.addr())).collect();
    let mut routes = Vec::new();
    for net in &others {
        let gateway = gateway_like(network, net.addr());
        let extra = link.routes.iter().filter(|route| is_v4(route.destination.net()) == is_v4(**net));
        let neighbours = if network.is_bridged() { Some(net.trunc()) } else { gateway.map(IpNet::from) };
        routes.extend(neighbours.map(|destination| Hop { destination, gateway: None }));
        routes.extend(
            extra.map(|route| Hop { destination: route.destination.net(), gateway: route.via.or(gateway) }),
        );
        routes.push(Hop { destination: everything(net.addr()), gateway });
    }
    Some(BySource { table, sources: others.into_iter().map(IpNet::addr).collect(), routes })
}

fn is_v4(net: IpNet) -> bool {
    net.addr().is_ipv4()
}

/// The prefix that holds every address of a family.
fn everything(like: IpAddr) -> IpNet {
    let any = if like.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    // No length is shorter than 0.
    IpNet::new(any, 0).unwrap_or_else(|_| IpNet::from(any))
}

fn gateway_like(network: &Network, like: IpAddr) -> Option<IpAddr> {
    network.segments.of_family(like).map(|segment| segment.gateway)
}

/// The entries of an endpoint's addresses: what of it depends on the choices of its network, and on its limits.
#[must_use]
pub fn endpoint_entries(endpoint: &Endpoint, link: &Link, network: &Network) -> Vec<Resource> {
    let queued = if endpoint.limits.ingress.is_some() { EndpointValue::FLAG_QUEUED } else { 0 };
    let entry = |(addr, prefix_len): (IpAddr, u8)| Resource::Endpoint {
        addr: addr.into(),
        interface: link.host_interface.to_string(),
        bridge: network.bridge.to_string(),
        mac: link.mac,
        gateway_mac: network.mac,
        zone: link.zone(),
        mtu: u16::try_from(network.mtu).unwrap_or(u16::MAX),
        prefix_len,
        flags: network.flags() | queued,
        mapping: network.mapping(),
        filtering: network.filtering(),
    };
    entry_prefixes(link).into_iter().map(entry).collect()
}

/// Where an endpoint's namespace can be opened, if it is not the host's.
#[must_use]
pub fn namespace_path(endpoint: &Endpoint) -> Option<PathBuf> {
    match &endpoint.namespace {
        Namespace::Own => Some(ours::namespace_path(&endpoint.name)),
        Namespace::Foreign { path } | Namespace::Shared { path, .. } => Some(path.clone()),
        Namespace::Host => None,
    }
}

/// The gateways of the families whose default routes lead by the link.
fn default_routes(endpoint: &Endpoint, link: &Link, network: &Network) -> Vec<IpAddr> {
    let own = link.addrs().filter(|addr| endpoint.is_default(*addr));
    own.filter_map(|addr| gateway_like(network, addr)).collect()
}

/// Every address the endpoint sends from, with the length of its prefix in bits of the 128.
fn entry_prefixes(link: &Link) -> Vec<(IpAddr, u8)> {
    let given = link.addresses.iter().map(|net| match net.addr() {
        addr @ IpAddr::V4(_) => (addr, 96 + net.prefix_len()),
        addr @ IpAddr::V6(_) => (addr, net.prefix_len()),
    });
    let has_v6 = link.addresses.iter().any(|net| net.addr().is_ipv6());
    let link_local = has_v6.then(|| (IpAddr::V6(ours::link_local(link.mac)), 64));
    given.chain(link_local).collect()
}

/// A mapping: who may use it, its reservations, and its blocks on its address of the host or on every address of
/// the families its target has. A restricted mapping is never there without its restrictions.
#[must_use]
pub fn port_map(mapping: &PortMap) -> Vec<Resource> {
    let clients = mapping
        .allow_from
        .iter()
        .map(|clients| Resource::AllowFrom { key: allow_from(mapping.id, clients.net()) });
    let reserved = reservations(mapping).into_iter().map(|key| {
        // Nobody looks at the value.
        let addr = key.addr.any_of_family();
        let value = PortMapValue { addr, port: Port::new(0), zone: Zone::WORLD, id: 0, flags: 0 };
        Resource::PortMap { key, value }
    });
    let published = mapping.targets.iter().flat_map(|&target| {
        let target = Addr::from(target);
        let addr = mapping.published.host.map_or(target.any_of_family(), Addr::from);
        keys(mapping, addr).into_iter().map(move |key| published_block(mapping, key, target))
    });
    clients.chain(reserved).chain(published).collect()
}

/// The notes that ports are published on one address of the host, which other mappings may share: those of the
/// same ports on its other addresses. What is published on the endpoint's own address is in no program's way.
#[must_use]
pub fn reservations(mapping: &PortMap) -> Vec<PortMapKey> {
    let host = mapping.published.host.filter(|_| !mapping.is_direct()).map(Addr::from);
    host.map_or_else(Vec::new, |host| keys(mapping, PortMapKey::some_of_family(&host)))
}

/// The keys of a mapping's blocks on an address.
fn keys(mapping: &PortMap, addr: Addr) -> Vec<PortMapKey> {
    let proto = mapping.protocol.number();
    let key = |block: super::Block| PortMapKey {
        addr,
        port: Port::new(block.first),
        proto,
        prefix_len: block.prefix_len,
    };
    blocks(mapping.published.ports).into_iter().map(key).collect()
}

fn published_block(mapping: &PortMap, key: PortMapKey, target: Addr) -> Resource {
    let offset = key.port.number() - mapping.published.ports.first();
    let restricted = if mapping.allow_from.is_empty() { 0 } else { PortMapValue::FLAG_RESTRICTED };
    let value = PortMapValue {
        addr: target,
        port: Port::new(mapping.target_ports.first() + offset),
        zone: mapping.zone(),
        id: mapping.id,
        flags: restricted,
    };
    Resource::PortMap { key, value }
}

/// The key of a prefix of clients that may use a mapping: the mapping's number in full, then the prefix, counted over
/// 128 bits.
fn allow_from(mapping: u32, clients: IpNet) -> AllowFromKey {
    let of_the_128 = if clients.addr().is_ipv4() { 96 } else { 0 };
    let prefix_len = u32::BITS + of_the_128 + u32::from(clients.prefix_len());
    AllowFromKey { prefix_len, data: AllowFrom { mapping, client: Addr::from(clients.network()) } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Protocol;

    fn mapping(published: &str, allow_from: &[&str]) -> PortMap {
        PortMap {
            id: 7,
            published: published.parse().unwrap(),
            protocol: Protocol::Tcp,
            endpoint: "net1".parse().unwrap(),
            targets: vec!["192.168.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            target_ports: "80-83".parse().unwrap(),
            number: 1,
            allow_from: allow_from.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn restrictions_come_before_what_they_restrict() {
        let resources = port_map(&mapping("8000-8003", &["10.0.0.0/8", "2001:db8::/32"]));
        let keys: Vec<(u32, u32, String)> = resources[..2]
            .iter()
            .map(|resource| match resource {
                Resource::AllowFrom { key } => {
                    (key.prefix_len, key.data.mapping, key.data.client.to_string())
                }
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!(keys, [(32 + 96 + 8, 7, "10.0.0.0".to_owned()), (32 + 32, 7, "2001:db8::".to_owned())]);
        assert_eq!(resources.len(), 4);
        for resource in &resources[2..] {
            let Resource::PortMap { value, .. } = resource else { panic!("{resource}") };
            assert_eq!((value.id, value.flags), (7, PortMapValue::FLAG_RESTRICTED), "{resource}");
        }
        let open = port_map(&mapping("8000-8003", &[]));
        assert!(
            open.iter()
                .all(|resource| matches!(resource, Resource::PortMap { value, .. } if value.flags == 0))
        );
    }

    #[test]
    fn what_is_published_on_one_address_is_reserved_for_all_of_its_family() {
        assert_eq!(reservations(&mapping("8000-8003", &[])), []);
        for (published, addr) in [
            ("203.0.113.1:8000-8003", "255.255.255.255"),
            ("[fd00::1]:8000-8003", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            let reserved = reservations(&mapping(published, &[]));
            assert_eq!(reserved.len(), 1);
            assert!(reserved[0].is_reservation());
            assert_eq!((reserved[0].addr.to_string(), reserved[0].port.number()), (addr.to_owned(), 8000));
        }
    }
}
