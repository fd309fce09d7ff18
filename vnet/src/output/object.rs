//! Networks, endpoints, mappings and rules, as they are printed.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Serialize;
use vnet_common::Hook;

use super::table::words;
use super::{
    Format, Listed, Reachable, VERSION, age, print_details, print_json, print_list, reachable, table,
};
use crate::plan::{Resource, expand};
use crate::spec;

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its number: the zone of its flows in the maps.
    pub number: u16,
    /// Its prefixes.
    pub subnets: Vec<String>,
    /// Its gateways, in the order of the prefixes.
    pub gateways: Vec<IpAddr>,
    /// Its bridge, or the interface that it has instead.
    pub bridge: String,
    /// The bridge's hardware address.
    pub mac: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// Most bytes of IPv6 that its endpoints send at once, to be cut into segments as late as possible.
    pub gso_max_size: u32,
    /// Likewise of IPv4.
    pub gso_ipv4_max_size: u32,
    /// Its endpoints reach neither the world nor other networks.
    pub internal: bool,
    /// Its endpoints do not reach each other.
    pub isolated: bool,
    /// How many endpoints it has.
    pub endpoints: usize,
    /// `nat`, `nat-unprotected` or `routed`.
    pub gateway_mode: spec::GatewayMode,
    /// External ports of UDP: `endpoint-independent` or `address-and-port`.
    pub udp_mapping: spec::Mapping,
    /// External ports of TCP, likewise.
    pub tcp_mapping: spec::Mapping,
    /// Who may send to an endpoint-independent port: `endpoint-independent`, `address` or `address-and-port`.
    pub filtering: spec::Filtering,
    /// Parts of the prefixes from which endpoints get addresses that they do not ask for; all of a prefix without.
    pub ranges: Vec<String>,
    /// Addresses that endpoints get only if they ask for them.
    pub reserved: Vec<IpAddr>,
    /// It has no bridge.
    pub no_bridge: bool,
}

impl Network {
    /// A network and the number of its endpoints.
    #[must_use]
    pub fn new(network: &spec::Network, endpoints: usize) -> Self {
        Self {
            name: network.name.to_string(),
            number: network.number,
            subnets: network.segments.subnets().map(|subnet| subnet.to_string()).collect(),
            gateways: network.segments.iter().map(|segment| segment.gateway).collect(),
            bridge: network.bridge.to_string(),
            mac: network.mac.to_string(),
            mtu: network.mtu,
            gso_max_size: network.gso.v6,
            gso_ipv4_max_size: network.gso.v4,
            internal: network.internal,
            isolated: network.isolated,
            endpoints,
            gateway_mode: network.options.gateway_mode,
            udp_mapping: network.options.udp_mapping,
            tcp_mapping: network.options.tcp_mapping,
            filtering: network.options.filtering,
            ranges: network.ranges.iter().map(ToString::to_string).collect(),
            reserved: network.reserved.clone(),
            no_bridge: !network.is_bridged(),
        }
    }

    /// What can be changed of it, in words.
    #[must_use]
    pub fn choices(&self) -> String {
        let Self { gateway_mode, udp_mapping, tcp_mapping, filtering, .. } = self;
        format!(
            "gateway mode {gateway_mode}, UDP mapping {udp_mapping}, TCP mapping {tcp_mapping}, filtering {filtering}"
        )
    }

    fn flags(&self) -> String {
        let mode = self.gateway_mode;
        let flags = [
            (self.internal, "internal"),
            (self.isolated, "isolated"),
            (self.no_bridge, "no-bridge"),
            (mode != spec::GatewayMode::default(), mode.word()),
        ];
        words(flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name))
    }
}

impl Listed for Network {
    const NOUN: &'static str = "networks";
    const HEADER: &'static [&'static str] =
        &["NAME", "SUBNETS", "GATEWAYS", "BRIDGE", "MTU", "FLAGS", "ENDPOINTS"];

    fn row(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            words(&self.subnets),
            words(&self.gateways),
            self.bridge.clone(),
            self.mtu.to_string(),
            self.flags(),
            self.endpoints.to_string(),
        ]
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        vec![
            ("mac", self.mac.clone()),
            ("number", self.number.to_string()),
            ("gateway mode", self.gateway_mode.to_string()),
            ("UDP mapping", self.udp_mapping.to_string()),
            ("TCP mapping", self.tcp_mapping.to_string()),
            ("filtering", self.filtering.to_string()),
            ("ranges", words(&self.ranges)),
            ("reserved", words(&self.reserved)),
        ]
    }
}

/// One end of a direct link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DirectEnd {
    /// The endpoint.
    pub endpoint: String,
    /// Its addresses on the link, with their prefixes.
    pub addresses: Vec<String>,
    /// Its hardware address there.
    pub mac: String,
    /// Name of its interface.
    pub ifname: String,
}

/// A direct link between two endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DirectLink {
    /// Its ends, by the names of the endpoints.
    pub ends: Vec<DirectEnd>,
    /// MTU in bytes.
    pub mtu: u32,
}

impl From<&spec::DirectLink> for DirectLink {
    fn from(link: &spec::DirectLink) -> Self {
        let end = |end: &spec::DirectEnd| DirectEnd {
            endpoint: end.endpoint.to_string(),
            addresses: end.addresses.iter().map(ToString::to_string).collect(),
            mac: end.mac.to_string(),
            ifname: end.ifname.to_string(),
        };
        Self { ends: link.ends.iter().map(end).collect(), mtu: link.mtu }
    }
}

impl DirectLink {
    /// Both ends, in words.
    #[must_use]
    pub fn described(&self) -> String {
        let end = |end: &DirectEnd| format!("{} {}", end.ifname, words(&end.addresses));
        self.ends.iter().map(end).collect::<Vec<_>>().join(" and ")
    }
}

impl Listed for DirectLink {
    const NOUN: &'static str = "links";
    const HEADER: &'static [&'static str] = &["ENDPOINTS", "INTERFACES", "ADDRESSES", "MTU"];

    fn row(&self) -> Vec<String> {
        vec![
            words(self.ends.iter().map(|end| &end.endpoint)),
            words(self.ends.iter().map(|end| &end.ifname)),
            words(self.ends.iter().flat_map(|end| &end.addresses)),
            self.mtu.to_string(),
        ]
    }
}

/// An address of a network that is not free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lease {
    /// The network.
    pub network: String,
    /// The address.
    pub address: IpAddr,
    /// `gateway`, `endpoint`, or `reserved` if it is for an endpoint that asks for it.
    pub kind: &'static str,
    /// The endpoint that has it.
    pub endpoint: Option<String>,
    /// Seconds since 1970 at which the endpoint got it.
    pub since: Option<u64>,
    /// Seconds since then.
    pub age: Option<u64>,
}

impl Lease {
    /// The addresses of a network that are not free at a time, in seconds since 1970, in ascending order.
    #[must_use]
    pub fn of(network: &spec::Network, endpoints: &[spec::Endpoint], now: u64) -> Vec<Self> {
        let lease = |address, kind| Self {
            network: network.name.to_string(),
            address,
            kind,
            endpoint: None,
            since: None,
            age: None,
        };
        let mut leases = BTreeMap::new();
        for addr in &network.reserved {
            leases.insert(*addr, lease(*addr, "reserved"));
        }
        for segment in network.segments.iter() {
            leases.insert(segment.gateway, lease(segment.gateway, "gateway"));
        }
        for endpoint in endpoints {
            let Some(link) = endpoint.link_to(&network.name) else { continue };
            let since = link.created.unwrap_or(endpoint.created);
            for addr in link.addrs() {
                let (endpoint, age) = (Some(endpoint.name.to_string()), Some(now.saturating_sub(since)));
                let lease = Self { endpoint, since: Some(since), age, ..lease(addr, "endpoint") };
                leases.insert(addr, lease);
            }
        }
        leases.into_values().collect()
    }
}

impl Listed for Lease {
    const NOUN: &'static str = "leases";
    const HEADER: &'static [&'static str] = &["NETWORK", "ADDRESS", "OWNER", "AGE"];

    fn row(&self) -> Vec<String> {
        let owner = self.endpoint.clone().unwrap_or_else(|| format!("({})", self.kind));
        vec![self.network.clone(), self.address.to_string(), owner, words(self.age.map(age))]
    }
}

/// A link of an endpoint to a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The network.
    pub network: String,
    /// The endpoint's addresses there.
    pub addresses: Vec<IpAddr>,
    /// Its hardware address there.
    pub mac: String,
    /// Name of its interface in the namespace.
    pub ifname: String,
    /// Name of the other end, on the host.
    pub interface: String,
    /// The families whose default route leads by this link, `IPv4` or `IPv6`.
    pub default_routes: Vec<&'static str>,
    /// The other routes, as they were given: `CIDR[=VIA]`.
    pub routes: Vec<String>,
}

impl Link {
    fn new(endpoint: &spec::Endpoint, link: &spec::Link) -> Self {
        let defaults = link.addrs().filter(|addr| endpoint.is_default(*addr));
        Self {
            network: link.network.to_string(),
            addresses: link.addrs().collect(),
            mac: link.mac.to_string(),
            ifname: link.ifname.to_string(),
            interface: link.host_interface.to_string(),
            default_routes: defaults.map(|addr| if addr.is_ipv4() { "IPv4" } else { "IPv6" }).collect(),
            routes: link.routes.iter().map(ToString::to_string).collect(),
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, addresses, mac, ifname, interface, default_routes, routes } = self;
        write!(f, "{ifname} to {network}: {}, {mac}, by {interface}", words(addresses))?;
        if !default_routes.is_empty() {
            write!(f, ", default route of {}", default_routes.join(" and "))?;
        }
        if !routes.is_empty() {
            write!(f, ", routes {}", words(routes))?;
        }
        Ok(())
    }
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Its name.
    pub name: String,
    /// The network of its first link, `null` if it has none.
    pub network: Option<String>,
    /// Its addresses, those of the first link first.
    pub addresses: Vec<IpAddr>,
    /// Its hardware address on its first link.
    pub mac: Option<String>,
    /// Name of that link's interface in the namespace.
    pub ifname: Option<String>,
    /// Name of the other end, on the host.
    pub interface: Option<String>,
    /// Where its namespace can be opened; `host` if it is the host's.
    pub namespace: String,
    /// Whether the namespace is somebody else's and stays when the endpoint goes.
    pub attached: bool,
    /// Seconds since 1970 at which it was made.
    pub created: u64,
    /// Seconds since then.
    pub age: u64,
    /// Its links.
    pub links: Vec<Link>,
    /// `bridge`, `none`, `host`, or `container:NAME` if its namespace is that of another endpoint.
    pub mode: String,
    /// Its direct links to other endpoints; left out by commands that do not look at them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct_links: Option<Vec<DirectLink>>,
}

impl Endpoint {
    /// An endpoint as it is at a time, in seconds since 1970.
    #[must_use]
    pub fn new(endpoint: &spec::Endpoint, now: u64) -> Self {
        let link = endpoint.links.first();
        Self {
            name: endpoint.name.to_string(),
            network: link.map(|link| link.network.to_string()),
            addresses: endpoint.addresses().collect(),
            mac: link.map(|link| link.mac.to_string()),
            ifname: link.map(|link| link.ifname.to_string()),
            interface: link.map(|link| link.host_interface.to_string()),
            namespace: expand::namespace_path(endpoint)
                .map_or_else(|| "host".to_owned(), |path| path.display().to_string()),
            attached: matches!(endpoint.namespace, spec::Namespace::Foreign { .. }),
            created: endpoint.created,
            age: now.saturating_sub(endpoint.created),
            links: endpoint.links.iter().map(|link| Link::new(endpoint, link)).collect(),
            mode: endpoint.mode().to_string(),
            direct_links: None,
        }
    }

    /// With its direct links.
    #[must_use]
    pub fn with_direct(self, links: &[spec::DirectLink]) -> Self {
        Self { direct_links: Some(links.iter().map(DirectLink::from).collect()), ..self }
    }
}

/// What the first of some links has, and how many more there are: those of one fit beside the rest on a terminal.
fn of_first<T: ToString>(links: &[Link], of: impl Fn(&Link) -> Vec<T>) -> String {
    let Some((first, more)) = links.split_first() else { return words(links.iter().flat_map(of)) };
    let first = words(of(first));
    if more.is_empty() { first } else { format!("{first} +{}", more.len()) }
}

impl Listed for Endpoint {
    const NOUN: &'static str = "endpoints";
    const HEADER: &'static [&'static str] = &["NAME", "NETWORK", "ADDRESSES", "INTERFACE", "MODE", "AGE"];

    fn row(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            words(self.links.iter().map(|link| &link.network)),
            of_first(&self.links, |link| link.addresses.clone()),
            of_first(&self.links, |link| vec![link.interface.clone()]),
            if self.attached { "attached".to_owned() } else { self.mode.clone() },
            age(self.age),
        ]
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let is_its_own = ["bridge", "none"].contains(&self.mode.as_str());
        let namespace = if self.attached || !is_its_own {
            "the namespace stays when the endpoint goes"
        } else {
            "the namespace goes with the endpoint"
        };
        let mut details = vec![
            ("mac", words(self.links.iter().map(|link| &link.mac))),
            ("ifname", words(self.links.iter().map(|link| &link.ifname))),
            ("namespace", self.namespace.clone()),
            ("lifetime", namespace.to_owned()),
        ];
        // Of one of several links, with that.
        if let [link] = &self.links[..]
            && !link.routes.is_empty()
        {
            details.push(("routes", words(&link.routes)));
        }
        details
    }
}

/// A published port or range of ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortMap {
    /// Its number, in flows and in the port map.
    pub id: u32,
    /// The host's address, `null` for all.
    pub host: Option<IpAddr>,
    /// First port.
    pub port: u16,
    /// Last port.
    pub end: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: spec::Protocol,
    /// The endpoint it leads to.
    pub endpoint: String,
    /// The endpoint's addresses, one of each published family.
    pub targets: Vec<IpAddr>,
    /// The endpoint's port for the first port.
    pub target_port: u16,
    /// The endpoint's port for the last port.
    pub target_end: u16,
    /// Prefixes of the clients that may use it; none for everybody.
    pub allow_from: Vec<String>,
}

impl From<&spec::PortMap> for PortMap {
    fn from(mapping: &spec::PortMap) -> Self {
        Self {
            id: mapping.id,
            host: mapping.published.host,
            port: mapping.published.ports.first(),
            end: mapping.published.ports.last(),
            protocol: mapping.protocol,
            endpoint: mapping.endpoint.to_string(),
            targets: mapping.targets.clone(),
            target_port: mapping.target_ports.first(),
            target_end: mapping.target_ports.last(),
            allow_from: mapping.allow_from.iter().map(ToString::to_string).collect(),
        }
    }
}

/// One port, or the first and the last.
fn ports(first: u16, last: u16) -> String {
    if first == last { format!("{first}") } else { format!("{first}-{last}") }
}

impl PortMap {
    /// What is published, and where it leads.
    fn in_words(&self) -> String {
        let Self { host, port, end, protocol, endpoint, target_port, target_end, .. } = self;
        let host = match host {
            None => String::new(),
            Some(IpAddr::V4(host)) => format!("{host}:"),
            Some(IpAddr::V6(host)) => format!("[{host}]:"),
        };
        format!("{host}{}/{protocol} to {endpoint}:{}", ports(*port, *end), ports(*target_port, *target_end))
    }
}

impl Listed for PortMap {
    const NOUN: &'static str = "portmaps";
    const HEADER: &'static [&'static str] =
        &["ID", "HOST", "PORTS", "PROTO", "ENDPOINT", "TARGETS", "TARGET PORTS", "ALLOW FROM"];

    fn row(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.host.map_or_else(|| "*".to_owned(), |host| host.to_string()),
            ports(self.port, self.end),
            self.protocol.to_string(),
            self.endpoint.clone(),
            words(&self.targets),
            ports(self.target_port, self.target_end),
            if self.allow_from.is_empty() { "*".to_owned() } else { words(&self.allow_from) },
        ]
    }
}

/// A masquerade rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Masquerade {
    /// The sources.
    pub subnet: String,
    /// The address to use, `null` for the one that routing chooses.
    pub to: Option<IpAddr>,
    /// The network that brought the rule, if one did.
    pub network: Option<String>,
}

impl From<&spec::Masquerade> for Masquerade {
    fn from(rule: &spec::Masquerade) -> Self {
        let network = rule.network.as_ref().map(ToString::to_string);
        Self { subnet: rule.subnet.to_string(), to: rule.to, network }
    }
}

impl Listed for Masquerade {
    const NOUN: &'static str = "masquerades";
    const HEADER: &'static [&'static str] = &["SUBNET", "AS", "NETWORK"];

    fn row(&self) -> Vec<String> {
        let to = self.to.map_or_else(|| "(by route)".to_owned(), |to| to.to_string());
        vec![self.subnet.clone(), to, words(&self.network)]
    }
}

/// Destinations that masquerade leaves alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Excluded {
    /// The destinations.
    pub subnet: String,
}

impl From<&spec::Cidr> for Excluded {
    fn from(destinations: &spec::Cidr) -> Self {
        Self { subnet: destinations.to_string() }
    }
}

impl Listed for Excluded {
    const NOUN: &'static str = "excluded";
    const HEADER: &'static [&'static str] = &["EXCLUDED DESTINATIONS"];

    fn row(&self) -> Vec<String> {
        vec![self.subnet.clone()]
    }
}

/// Who is masqueraded, and towards whom not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Masquerades {
    /// [`VERSION`].
    pub version: u32,
    /// The rules.
    pub masquerades: Vec<Masquerade>,
    /// Destinations that they leave alone.
    pub excluded: Vec<Excluded>,
}

impl Masquerades {
    /// Rules, and destinations that they leave alone.
    #[must_use]
    pub fn new(rules: &[spec::Masquerade], excluded: &[spec::Cidr]) -> Self {
        let masquerades = rules.iter().map(Masquerade::from).collect();
        Self { version: VERSION, masquerades, excluded: excluded.iter().map(Excluded::from).collect() }
    }

    /// Prints them: the excluded destinations as a table of their own, if there are any.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn print(&self, out: &mut impl Write, format: Format) -> io::Result<()> {
        if format == Format::Json {
            return print_json(out, self);
        }
        print_list(out, format, &self.masquerades)?;
        if self.excluded.is_empty() {
            return Ok(());
        }
        writeln!(out)?;
        print_list(out, format, &self.excluded)
    }
}

/// A router: an instance in a network namespace of its own, with a link to somebody else's bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Router {
    /// Its name, and its instance's.
    pub name: String,
    /// Where its network namespace can be opened.
    pub netns: PathBuf,
    /// The bridge outside.
    pub outside: String,
    /// The end of its link that is a port of the bridge.
    pub interface: String,
    /// The end in its namespace, which is its uplink.
    pub ifname: String,
    /// Its hardware address outside.
    pub mac: String,
    /// MTU of its link in bytes: the bridge's.
    pub mtu: u32,
    /// Its addresses outside, with their prefixes.
    pub addresses: Vec<String>,
    /// Where its default routes lead.
    pub gateways: Vec<IpAddr>,
    /// Seconds since 1970 at which it was made.
    pub created: u64,
    /// `up`, `namespace-gone`, `bridge-gone`, `link-gone`, or `unknown` where one may not look.
    pub state: &'static str,
}

impl Router {
    /// A router of that name, and how it stands.
    #[must_use]
    pub fn new(name: &str, router: &spec::Router, created: u64, state: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            netns: expand::leg(name, router).namespace,
            outside: router.bridge.to_string(),
            interface: router.host_interface.to_string(),
            ifname: router.ifname.to_string(),
            mac: router.mac.to_string(),
            mtu: router.mtu,
            addresses: router.addresses.iter().map(ToString::to_string).collect(),
            gateways: router.gateways.clone(),
            created,
            state,
        }
    }

    /// Where its default routes lead, after a comma; nothing if it has none.
    fn by(&self) -> String {
        if self.gateways.is_empty() { String::new() } else { format!(", by {}", words(&self.gateways)) }
    }
}

impl Listed for Router {
    const NOUN: &'static str = "routers";
    const HEADER: &'static [&'static str] = &["NAME", "STATE", "OUTSIDE", "ADDRESS", "GATEWAY", "NAMESPACE"];

    fn row(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.state.to_owned(),
            self.outside.clone(),
            words(&self.addresses),
            words(&self.gateways),
            self.netns.display().to_string(),
        ]
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        vec![
            ("interface", format!("{} on the host, {} inside", self.interface, self.ifname)),
            ("mac", self.mac.clone()),
            ("mtu", self.mtu.to_string()),
        ]
    }
}

/// A router with what it has inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InspectedRouter {
    /// The router.
    #[serde(flatten)]
    pub router: Router,
    /// MTU of the bridge outside in bytes, `null` if it is gone or may not be looked at.
    pub outside_mtu: Option<u32>,
    /// Its networks.
    pub networks: Vec<Network>,
    /// How many endpoints it has.
    pub endpoints: u64,
    /// Its floating addresses.
    pub floating_addresses: Vec<Floating>,
    /// Its published ports.
    pub published: Vec<PortMap>,
}

impl InspectedRouter {
    /// How many floating addresses, and how many mappings, are shown to people; programs get all of them.
    const SHOWN: usize = 20;

    /// Prints it for people.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn print(&self, out: &mut impl Write) -> io::Result<()> {
        print_details(out, &self.router)?;
        let mut line = |name: &str, value: &str| writeln!(out, "{name:<12}  {value}");
        let bridge = self.outside_mtu.map_or_else(|| "-".to_owned(), |mtu| mtu.to_string());
        line("mtu outside", &bridge)?;
        for Network { name, subnets, bridge, mtu, .. } in &self.networks {
            line("network", &format!("{name}: {} on {bridge}, MTU {mtu}", words(subnets)))?;
        }
        line("endpoints", &self.endpoints.to_string())?;
        for Floating { external, endpoint, address } in self.floating_addresses.iter().take(Self::SHOWN) {
            line("floating", &format!("{external} to {endpoint} ({address})"))?;
        }
        for mapping in self.published.iter().take(Self::SHOWN) {
            line("published", &mapping.in_words())?;
        }
        for (name, all) in [("floating", self.floating_addresses.len()), ("published", self.published.len())]
        {
            if let more @ 1.. = all.saturating_sub(Self::SHOWN) {
                line(name, &format!("and {more} more: --json has all"))?;
            }
        }
        Ok(())
    }
}

impl Listed for InspectedRouter {
    const NOUN: &'static str = Router::NOUN;
    const HEADER: &'static [&'static str] = Router::HEADER;

    fn row(&self) -> Vec<String> {
        self.router.row()
    }
}

/// A floating address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Floating {
    /// The host's address.
    pub external: IpAddr,
    /// The endpoint.
    pub endpoint: String,
    /// The endpoint's address.
    pub address: IpAddr,
}

impl From<&spec::Floating> for Floating {
    fn from(floating: &spec::Floating) -> Self {
        Self { external: floating.external, endpoint: floating.endpoint.to_string(), address: floating.addr }
    }
}

impl Listed for Floating {
    const NOUN: &'static str = "floating";
    const HEADER: &'static [&'static str] = &["EXTERNAL", "ENDPOINT", "ADDRESS"];

    fn row(&self) -> Vec<String> {
        vec![self.external.to_string(), self.endpoint.clone(), self.address.to_string()]
    }
}

/// How much an endpoint may send and receive, or a cgroup may send by the uplinks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// The endpoint; `null` for a cgroup.
    pub endpoint: Option<String>,
    /// The cgroup of the unified hierarchy, by its path there; `null` for others.
    pub cgroup: Option<String>,
    /// The class of net_cls, MAJOR:MINOR in hexadecimal; `null` for others.
    pub classid: Option<String>,
    /// The queueing discipline by which packets are made to wait: `tbf`, `fq` or `htb`.
    pub by: &'static str,
    /// Bits that it may send in a second, `null` for any number.
    pub egress: Option<u64>,
    /// Bytes that it may send at once, `null` where that follows from the rate.
    pub egress_burst: Option<u32>,
    /// Bits that it may receive in a second, `null` for any number.
    pub ingress: Option<u64>,
    /// Bytes that it may receive at once, `null` where that follows from the rate.
    pub ingress_burst: Option<u32>,
}

impl From<&spec::Endpoint> for Limit {
    fn from(endpoint: &spec::Endpoint) -> Self {
        let rate = |limit: Option<spec::Limit>| limit.map(|limit| limit.rate.bits());
        let burst = |limit: Option<spec::Limit>| limit.and_then(|limit| limit.burst).map(u32::from);
        let spec::Limits { egress, ingress } = endpoint.limits;
        Self {
            endpoint: Some(endpoint.name.to_string()),
            cgroup: None,
            classid: None,
            by: "tbf",
            egress: rate(egress),
            egress_burst: burst(egress),
            ingress: rate(ingress),
            ingress_burst: burst(ingress),
        }
    }
}

impl From<&spec::CgroupLimit> for Limit {
    fn from(limit: &spec::CgroupLimit) -> Self {
        let (cgroup, classid) = match &limit.cgroup {
            spec::Cgroup::Path(path) => (Some(path.to_string()), None),
            spec::Cgroup::ClassId(class) => (None, Some(class.to_string())),
        };
        Self {
            endpoint: None,
            cgroup,
            classid,
            by: limit.pacing.discipline(),
            egress: Some(limit.limit.rate.bits()),
            egress_burst: limit.limit.burst.map(u32::from),
            ingress: None,
            ingress_burst: None,
        }
    }
}

impl Listed for Limit {
    const NOUN: &'static str = "limits";
    const HEADER: &'static [&'static str] =
        &["ENDPOINT OR CGROUP", "EGRESS", "BURST", "INGRESS", "BURST", "BY"];

    fn row(&self) -> Vec<String> {
        let rate = |bits: Option<u64>| match bits.map(spec::Rate::try_from) {
            Some(Ok(rate)) => rate.to_string(),
            _ => "-".to_owned(),
        };
        let burst = |bytes: Option<u32>| bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
        let Self { endpoint, cgroup, classid, by, egress, egress_burst, ingress, ingress_burst } = self;
        let whose = [endpoint, cgroup, classid].into_iter().flatten().next().cloned().unwrap_or_default();
        let (egress, ingress) =
            ((rate(*egress), burst(*egress_burst)), (rate(*ingress), burst(*ingress_burst)));
        vec![whose, egress.0, egress.1, ingress.0, ingress.1, (*by).to_owned()]
    }
}

/// Sources on the deny list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Denied {
    /// The sources.
    pub subnet: String,
}

impl From<&spec::Cidr> for Denied {
    fn from(sources: &spec::Cidr) -> Self {
        Self { subnet: sources.to_string() }
    }
}

impl Listed for Denied {
    const NOUN: &'static str = "denied";
    const HEADER: &'static [&'static str] = &["DENIED SOURCES"];

    fn row(&self) -> Vec<String> {
        vec![self.subnet.clone()]
    }
}

/// What holds for an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// First source port for masquerade.
    pub nat_port: u16,
    /// Last source port for masquerade.
    pub nat_end: u16,
    /// Seconds that idle flows are kept, by the names of `vnet up --timeout`.
    pub timeouts: BTreeMap<&'static str, u32>,
    /// Room for answered flows.
    pub max_flows: u32,
    /// Room for unanswered flows.
    pub max_unanswered: u32,
    /// Most answered flows of one endpoint, 0 for any number.
    pub endpoint_flows: u32,
    /// Most unanswered flows of one endpoint, 0 for any number.
    pub endpoint_unanswered: u32,
    /// `bypass` or `respect`.
    pub firewall: spec::Firewall,
    /// `native` or `generic`, by uplink; those without XDP are not named.
    pub xdp: BTreeMap<String, spec::Xdp>,
    /// New flows to published ports that uplinks with XDP let pass of each source in a second, 0 for any number.
    pub flood_rate: u32,
    /// The same for all sources together.
    pub flood_total: u32,
}

impl From<&spec::Settings> for Settings {
    fn from(settings: &spec::Settings) -> Self {
        let config = settings.config(0);
        let timeout = |timeout: &spec::Timeout| (timeout.word(), timeout.of(&config).into());
        Self {
            nat_port: settings.nat_ports.first(),
            nat_end: settings.nat_ports.last(),
            timeouts: spec::Timeout::ALL.iter().map(timeout).collect(),
            max_flows: settings.tables.flows,
            max_unanswered: settings.tables.unanswered,
            endpoint_flows: settings.quotas.flows,
            endpoint_unanswered: settings.quotas.unanswered,
            firewall: settings.firewall,
            xdp: settings.xdp.iter().map(|(uplink, mode)| (uplink.to_string(), *mode)).collect(),
            flood_rate: settings.flood.rate,
            flood_total: settings.flood.total,
        }
    }
}

impl Settings {
    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let limit = |limit: u32| if limit == 0 { "any number".to_owned() } else { limit.to_string() };
        writeln!(out, "source ports for masquerade: {}-{}", self.nat_port, self.nat_end)?;
        let timeouts = spec::Timeout::ALL.iter().filter_map(|timeout| {
            let seconds = *self.timeouts.get(timeout.word())?;
            Some(format!("{timeout} {}", spec::Seconds::try_from(seconds).ok()?))
        });
        writeln!(out, "timeouts: {}", timeouts.collect::<Vec<_>>().join(", "))?;
        writeln!(out, "room for flows: {}, unanswered {}", self.max_flows, self.max_unanswered)?;
        let (flows, unanswered) = (limit(self.endpoint_flows), limit(self.endpoint_unanswered));
        writeln!(out, "flows of one endpoint: {flows}, unanswered {unanswered}")?;
        writeln!(out, "firewall of the host: {}", self.firewall)?;
        if !self.xdp.is_empty() {
            let modes = self.xdp.iter().map(|(uplink, mode)| format!("{uplink} {mode}"));
            let (rate, total) = (limit(self.flood_rate), limit(self.flood_total));
            let modes = modes.collect::<Vec<_>>().join(", ");
            writeln!(out, "XDP: {modes}; new flows a second of one source: {rate}, in all {total}")?;
        }
        Ok(())
    }
}

/// A program and where it is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Program {
    /// Its name.
    pub hook: String,
    /// The interface.
    pub interface: String,
}

impl Program {
    /// The program that a resource stands for, if it does.
    #[must_use]
    pub fn of(resource: &Resource) -> Option<Self> {
        let (hook, interface) = match resource {
            Resource::Attachment { hook, interface } => (*hook, interface),
            Resource::Xdp { interface, .. } => (Hook::XdpUplink, interface),
            _ => return None,
        };
        Some(Self { hook: hook.name().to_owned(), interface: interface.clone() })
    }
}

/// How an instance is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// The instance's name.
    pub instance: String,
    /// Whether it is up. If not, everything below is empty.
    pub up: bool,
    /// Seconds since 1970 at which it came up.
    pub created: Option<u64>,
    /// Its uplinks.
    pub uplinks: Vec<String>,
    /// Its networks.
    pub networks: Vec<Network>,
    /// How many endpoints it has.
    pub endpoints: u64,
    /// How many mappings it has.
    pub portmaps: u64,
    /// How many flows it tracks.
    pub flows: u64,
    /// The programs on its uplinks.
    pub programs: Vec<Program>,
    /// What is not as recorded; `vnet up` brings it back.
    pub problems: Vec<String>,
    /// From where each mapping is reached. Endpoints themselves are, by whoever has a route to them, where their network's
    /// `gateway_mode` is `nat-unprotected`.
    pub reachable: Vec<Reachable>,
    /// How many floating addresses it has.
    pub floating: u64,
    /// What holds for it.
    pub settings: Option<Settings>,
    /// What is as recorded and will not work: addresses that the host has not.
    pub warnings: Vec<String>,
    /// What flows have nearly all in use, and what happens when it is full.
    pub filling: Vec<String>,
    /// Its floating addresses: the world reaches everything of their endpoints by them.
    pub floating_addresses: Vec<Floating>,
    /// Its link to the outside, if it is a router.
    pub router: Option<Router>,
}

impl Status {
    /// An instance that is not up.
    #[must_use]
    pub fn not_up(instance: &str) -> Self {
        Self {
            version: VERSION,
            instance: instance.to_owned(),
            up: false,
            created: None,
            uplinks: Vec::new(),
            networks: Vec::new(),
            endpoints: 0,
            portmaps: 0,
            flows: 0,
            programs: Vec::new(),
            problems: Vec::new(),
            reachable: Vec::new(),
            floating: 0,
            settings: None,
            warnings: Vec::new(),
            filling: Vec::new(),
            floating_addresses: Vec::new(),
            router: None,
        }
    }

    /// Prints it for people. `now` is the time in seconds since 1970.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn print(&self, out: &mut impl Write, now: u64) -> io::Result<()> {
        if !self.up {
            return writeln!(out, "instance {} is not up", self.instance);
        }
        let since = self.created.map(|created| age(now.saturating_sub(created))).unwrap_or_default();
        writeln!(out, "instance {}, up for {since}", self.instance)?;
        if let Some(router) = &self.router {
            writeln!(
                out,
                "router: {} on bridge {}{}",
                words(&router.addresses),
                router.outside,
                router.by()
            )?;
        }
        let programs = |uplink: &String| {
            let hooks = self.programs.iter().filter(|program| program.interface == *uplink);
            words(hooks.map(|program| &program.hook))
        };
        for uplink in &self.uplinks {
            writeln!(out, "uplink {uplink}: {}", programs(uplink))?;
        }
        let Self { endpoints, portmaps, floating, flows, .. } = self;
        writeln!(
            out,
            "endpoints: {endpoints}, port mappings: {portmaps}, floating addresses: {floating}, flows: {flows}"
        )?;
        self.settings.iter().try_for_each(|settings| settings.print(out))?;
        writeln!(out)?;
        table::print(out, Network::HEADER, self.networks.iter().map(Network::row))?;
        reachable::print(out, self)?;
        if !self.problems.is_empty() {
            writeln!(out, "\nnot as recorded; `vnet up` brings it back:")?;
        }
        self.problems.iter().try_for_each(|problem| writeln!(out, "  {problem}"))?;
        if !self.warnings.is_empty() {
            writeln!(out, "\nanswers do not arrive unless somebody routes them here:")?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(out, "  {warning}"))?;
        if !self.filling.is_empty() {
            writeln!(out, "\nfills up; `vnet flow stats` says who has it:")?;
        }
        self.filling.iter().try_for_each(|filling| writeln!(out, "  {filling}"))
    }
}
