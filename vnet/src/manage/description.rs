//! A whole instance as requests: what a file asks for, and what a record amounts to.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use super::port_map::{WhichLink, target_name};
use super::{
    CgroupLimitRequest, DirectRequest, EndpointRequest, Error, FloatingRequest, LimitChange,
    MasqueradeRequest, NetworkRequest, Place, PortMapRequest, RouterRequest,
};
use crate::ours;
use crate::spec::{
    CgroupLimit, Cidr, DirectLink, Endpoint, Floating, InterfaceName, Link, Name, Namespace, Network,
    NetworkChange, NetworkOptions, PortMap, Router, Settings, SettingsChange, Target, TargetHost, XdpSetting,
};
use crate::store::Transaction;

/// What an instance is to be. Where nothing is asked for, it is what it was, or as documented.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Its uplinks; those with a default route without.
    pub uplinks: Vec<InterfaceName>,
    /// What is to hold for it.
    pub change: SettingsChange,
    /// What makes it a router.
    pub router: Option<RouterRequest>,
    /// Its networks; `default` is there without being named.
    pub networks: Vec<NetworkRequest>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointRequest>,
    /// Its direct links.
    pub directs: Vec<DirectRequest>,
    /// Its published ports.
    pub port_maps: Vec<PortMapRequest>,
    /// Its masquerade rules, but for those that its networks bring.
    pub masquerades: Vec<MasqueradeRequest>,
    /// Destinations that masquerade leaves alone.
    pub excluded: Vec<Cidr>,
    /// Its floating addresses.
    pub floating: Vec<FloatingRequest>,
    /// Sources that it denies.
    pub denied: Vec<Cidr>,
    /// Limits of cgroups.
    pub cgroup_limits: Vec<CgroupLimitRequest>,
}

/// What a description may say besides, where not all of it could be understood: what depends on that is not judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doubt {
    /// Uplinks, and what holds for the instance.
    pub instance: bool,
    /// What makes it a router, and so which addresses it has.
    pub router: bool,
    /// Networks of these names.
    pub networks: HashSet<Name>,
    /// Endpoints of these names.
    pub endpoints: HashSet<Name>,
}

impl Doubt {
    /// Whether it is about an endpoint, or what that depends on.
    pub(super) fn is_about(&self, request: &EndpointRequest) -> bool {
        let shares = match &request.namespace {
            Namespace::Shared { with, .. } => self.endpoints.contains(with),
            Namespace::Own | Namespace::Host | Namespace::Foreign { .. } => false,
        };
        let mut networks = request.places.iter().map(|place| &place.network);
        shares
            || self.endpoints.contains(&request.name)
            || networks.any(|network| self.networks.contains(network))
    }

    /// Whether it is about whom something leads to.
    pub(super) fn is_about_target(&self, target: &TargetHost) -> bool {
        match target {
            TargetHost::Name(name) => self.endpoints.contains(name),
            // It may be anybody's.
            TargetHost::Addr(_) => !self.endpoints.is_empty(),
        }
    }
}

/// A part of a [`Description`], by its place in its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Uplinks and what holds for the instance.
    Instance,
    /// What makes it a router.
    Router,
    /// A network.
    Network(usize),
    /// An endpoint.
    Endpoint(usize),
    /// A direct link.
    Direct(usize),
    /// Published ports.
    PortMap(usize),
    /// A masquerade rule.
    Masquerade(usize),
    /// Destinations that masquerade leaves alone.
    Excluded(usize),
    /// A floating address.
    Floating(usize),
    /// Denied sources.
    Denied(usize),
    /// The limit of a cgroup.
    CgroupLimit(usize),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, nth) = match self {
            Self::Instance => return f.write_str("the instance"),
            Self::Router => return f.write_str("the router"),
            Self::Network(nth) => ("network", nth),
            Self::Endpoint(nth) => ("endpoint", nth),
            Self::Direct(nth) => ("direct link", nth),
            Self::PortMap(nth) => ("mapping", nth),
            Self::Masquerade(nth) => ("masquerade rule", nth),
            Self::Excluded(nth) => ("exclusion", nth),
            Self::Floating(nth) => ("floating address", nth),
            Self::Denied(nth) => ("denied source", nth),
            Self::CgroupLimit(nth) => ("limit of a cgroup", nth),
        };
        write!(f, "{what} {}", nth + 1)
    }
}

impl Description {
    /// What is recorded of an instance, in the order of the record: asked for anew, it comes out the same. What is as
    /// documented, or follows from names, is not asked for; addresses are.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn of(instance: &str, transaction: &Transaction) -> Result<Self, Error> {
        let Some(settings) = transaction.settings()? else { return Ok(Self::default()) };
        let endpoints = transaction.endpoints()?.into_iter();
        let known: Endpoints = endpoints.map(|endpoint| (endpoint.name.clone(), endpoint)).collect();
        let masquerades = transaction.masquerades()?.into_iter().filter(|rule| rule.network.is_none());
        Ok(Self {
            uplinks: named_uplinks(&settings),
            router: settings.router.as_ref().map(|it| router(instance, it)),
            change: change(&settings),
            networks: transaction.networks()?.into_iter().map(|it| network(instance, it)).collect(),
            port_maps: transaction.port_maps()?.into_iter().map(|it| port_map(&known, it)).collect(),
            masquerades: masquerades
                .map(|rule| MasqueradeRequest { subnet: rule.subnet, to: rule.to })
                .collect(),
            excluded: transaction.unmasqueraded()?,
            floating: transaction.floatings()?.into_iter().map(|it| floating(&known, it)).collect(),
            denied: transaction.denied()?,
            cgroup_limits: transaction.cgroup_limits()?.into_iter().map(cgroup_limit).collect(),
            directs: transaction.directs()?.into_iter().map(direct).collect(),
            endpoints: known.into_values().map(|it| endpoint(instance, it)).collect(),
        })
    }
}

/// The uplinks that somebody has named: a router's link is one by itself.
fn named_uplinks(settings: &Settings) -> Vec<InterfaceName> {
    if settings.follows_default_route {
        return Vec::new();
    }
    let leg = settings.router.as_ref().map(|router| &router.ifname);
    settings.uplinks.iter().filter(|name| leg != Some(name)).cloned().collect()
}

fn router(instance: &str, router: &Router) -> RouterRequest {
    let usual = ours::leg_macs(instance).next();
    RouterRequest {
        bridge: router.bridge.clone(),
        addresses: router.addresses.clone(),
        gateways: router.gateways.clone(),
        mac: Some(router.mac).filter(|mac| usual != Some(*mac)),
    }
}

/// What of the settings is not as documented.
fn change(settings: &Settings) -> SettingsChange {
    let Settings { nat_ports, timeouts, tables, quotas, firewall, xdp, flood, .. } = settings;
    let documented = settings.as_documented();
    let default = Settings::new(0, 0);
    let xdp = xdp.iter().map(|(name, &mode)| XdpSetting { interface: Some(name.clone()), mode });
    SettingsChange {
        nat_ports: other(*nat_ports, documented.nat_ports),
        timeouts: timeouts.iter().collect(),
        max_flows: other(tables.flows, default.tables.flows),
        max_unanswered: other(tables.unanswered, default.tables.unanswered),
        endpoint_flows: other(quotas.flows, documented.quotas.flows),
        endpoint_unanswered: other(quotas.unanswered, documented.quotas.unanswered),
        firewall: other(*firewall, documented.firewall),
        xdp: xdp.collect(),
        flood_rate: other(flood.rate, documented.flood.rate),
        flood_total: other(flood.total, documented.flood.total),
    }
}

/// A value, if it is another one.
fn other<T: PartialEq>(value: T, than: T) -> Option<T> {
    (value != than).then_some(value)
}

fn cgroup_limit(limit: CgroupLimit) -> CgroupLimitRequest {
    CgroupLimitRequest { cgroup: limit.cgroup, limit: limit.limit }
}

fn network(instance: &str, network: Network) -> NetworkRequest {
    let chosen = network.segments.iter().filter(|segment| segment.gateway != segment.subnet.first_host());
    let gateways = chosen.map(|segment| segment.gateway).collect();
    let NetworkOptions { gateway_mode, udp_mapping, tcp_mapping, filtering } = network.options;
    let default = NetworkOptions::default();
    let usual = ours::bridge_names(instance, &network.name).next();
    let bridge = network.is_bridged().then_some(network.bridge.clone());
    NetworkRequest {
        subnets: network.segments.subnets().collect(),
        gateways,
        ranges: network.ranges,
        reserved: network.reserved,
        bridge: bridge.filter(|bridge| usual.as_ref() != Some(bridge)),
        no_bridge: network.far_end.is_some(),
        mtu: (!network.follows_uplink).then_some(network.mtu),
        internal: network.internal,
        isolated: network.isolated,
        options: NetworkChange {
            gateway_mode: other(gateway_mode, default.gateway_mode),
            udp_mapping: other(udp_mapping, default.udp_mapping),
            tcp_mapping: other(tcp_mapping, default.tcp_mapping),
            filtering: other(filtering, default.filtering),
        },
        name: network.name,
    }
}

fn direct(link: DirectLink) -> DirectRequest {
    let DirectLink { ends: [first, second], mtu } = link;
    DirectRequest {
        endpoints: [first.endpoint, second.endpoint],
        addresses: [first.addresses, second.addresses].concat(),
        ifnames: [Some(first.ifname), Some(second.ifname)],
        mtu: other(mtu, DirectRequest::MTU),
    }
}

/// Endpoints by name.
type Endpoints = BTreeMap<Name, Endpoint>;

fn endpoint(instance: &str, endpoint: Endpoint) -> EndpointRequest {
    let Endpoint { name, namespace, links, limits, created: _ } = endpoint;
    let limits = LimitChange { egress: limits.egress.map(Some), ingress: limits.ingress.map(Some) };
    let place = |(nth, link): (usize, Link)| {
        let further = (nth > 0).then_some(&link.network);
        let usual = ours::endpoint_macs(instance, &name, further).next();
        let usual_ifname = format!("eth{nth}");
        Place {
            addresses: link.addrs().collect(),
            mac: Some(link.mac).filter(|mac| usual != Some(*mac)),
            ifname: Some(link.ifname).filter(|ifname| ifname.as_str() != usual_ifname),
            routes: link.routes,
            network: link.network,
        }
    };
    let places = links.into_iter().enumerate().map(place).collect();
    EndpointRequest { name, namespace, places, limits }
}

fn port_map(known: &Endpoints, mapping: PortMap) -> PortMapRequest {
    let PortMap { published, protocol, endpoint, targets, target_ports, allow_from, .. } = mapping;
    let host = match targets.first() {
        Some(addr) => {
            let which = WhichLink::published_on(published.host);
            target_name(known.get(&endpoint), &endpoint, *addr, which)
        }
        None => TargetHost::Name(endpoint),
    };
    let target = Target { host, ports: target_ports };
    PortMapRequest { published, target, protocol, allow_from }
}

fn floating(known: &Endpoints, floating: Floating) -> FloatingRequest {
    let Floating { external, endpoint, addr, .. } = floating;
    let target = target_name(known.get(&endpoint), &endpoint, addr, WhichLink::Like(external));
    FloatingRequest { external, target }
}
