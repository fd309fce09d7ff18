//! What a file may hold: what is written, and what the schema is made from.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::manage::{
    CgroupLimitRequest, Description, DirectRequest, EndpointRequest, FloatingRequest, MasqueradeRequest,
    NetworkRequest, Place, PortMapRequest, RouterRequest,
};
use crate::spec::{Cgroup, InterfaceName, Limit, LinkMode, Namespace, Ports, Protocol, SettingsChange};

/// Version of the format.
pub(super) const VERSION: u32 = 1;

/// An instance of vnet.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(title = "vnet.toml")]
pub struct Model {
    /// Version of the format: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1))]
    pub version: Option<u32>,
    /// Prefixes of destinations that masquerade leaves alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<String>,
    /// Prefixes of sources that uplinks with XDP drop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<String>,
    /// What holds for the whole instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<Instance>,
    /// What makes the instance a router, in a network namespace of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router: Option<Router>,
    /// Networks by name. The network `default` is there without being named.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, Network>,
    /// Endpoints by name: network namespaces with a link to a network.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub endpoints: BTreeMap<String, Endpoint>,
    /// Direct links between endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub direct: Vec<Direct>,
    /// Masquerade rules beside those that networks bring.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masquerades: Vec<Masquerade>,
    /// Floating addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub floating: Vec<Floating>,
    /// Published ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub portmaps: Vec<PortMap>,
    /// Limits of cgroups; those of endpoints are said with the endpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<CgroupLimit>,
}

/// A word that may be written as a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Word {
    /// A number.
    Number(u32),
    /// A word.
    Text(String),
}

/// XDP modes: `off`, `native` or `generic`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum XdpModes {
    /// Of all uplinks.
    All(String),
    /// By uplink.
    Each(BTreeMap<String, String>),
}

/// What holds for a whole instance. What is not named stays as it is, or is as documented.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Instance {
    /// Interfaces that lead to the world [default: every Ethernet interface with a default route].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uplinks: Vec<String>,
    /// Source ports for masquerade, FIRST-LAST, 64 at least [default: 49152-65535].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat_ports: Option<String>,
    /// Room for flows that are answered; fixed until `vnet down` [default: 131072].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_flows: Option<u32>,
    /// Room for flows that are not, and for endpoint-independent ports; fixed until `vnet down` [default: 65536].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unanswered: Option<u32>,
    /// Most answered flows of one endpoint, 0 for any number [default: 65536].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_flows: Option<u32>,
    /// Most flows of one endpoint that wait for an answer, 0 for any number [default: 2048].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_unanswered: Option<u32>,
    /// What the host's firewall has to say about published ports: `bypass` or `respect` [default: bypass].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firewall: Option<String>,
    /// New flows to published ports that uplinks with XDP let pass of each source in a second; 0 for any number
    /// [default: 0].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flood_rate: Option<u32>,
    /// New flows to published ports that uplinks with XDP let pass in a second of all sources together; 0 for any
    /// number [default: 0].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flood_total: Option<u32>,
    /// XDP modes, one for all uplinks or a table with one for each: `off`, `native` or `generic` [default: off].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xdp: Option<XdpModes>,
    /// How long idle flows are kept, by name, as "90s", "5m", "2h4m" or seconds: `tcp-established`, `tcp-opening`,
    /// `tcp-closing`, `udp-unreplied`, `udp-replied`, `dns`, `icmp-query`, `fragment`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub timeouts: BTreeMap<String, Word>,
}

/// A router's link to the outside, which is one of its uplinks.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Router {
    /// A bridge of the host, which is somebody else's.
    pub outside: String,
    /// The router's addresses there, with the lengths of their prefixes.
    #[schemars(length(min = 1))]
    pub addresses: Vec<String>,
    /// Where its default routes lead, at most one of each family [default: nowhere].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub gateways: Vec<String>,
    /// Its hardware address there [default: made from the name].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

/// A network: a bridge, or what it has instead, with its prefixes, gateway and masquerade.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Network {
    /// Its prefixes, one for each family [default: 192.168.0.0/24 for the network `default`, a free private one for
    /// others, and a local IPv6 one].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<String>,
    /// Its gateways [default: the first address of each prefix].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<String>,
    /// Parts of the prefixes from which endpoints get addresses that they do not ask for, one for each family
    /// [default: all of each prefix].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<String>,
    /// Addresses that endpoints get only if they ask for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reserved: Vec<String>,
    /// Its bridge [default: made from the name].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// It has no bridge, whose 1,023 ports are the most endpoints that a network with one can have. Endpoints reach each
    /// other by their addresses alone: there is no broadcast and no multicast.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_bridge: bool,
    /// Its MTU in bytes [default: the uplink's].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 68, max = 65535))]
    pub mtu: Option<u32>,
    /// Its endpoints reach neither the world nor other networks.
    #[serde(default, skip_serializing_if = "is_false")]
    pub internal: bool,
    /// Its endpoints do not reach each other.
    #[serde(default, skip_serializing_if = "is_false")]
    pub isolated: bool,
    /// How it and the world reach each other: `nat`, `nat-unprotected` or `routed` [default: nat].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_mode: Option<String>,
    /// External ports of UDP: `endpoint-independent` or `address-and-port` [default: endpoint-independent].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_mapping: Option<String>,
    /// External ports of TCP: `endpoint-independent` or `address-and-port` [default: address-and-port].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_mapping: Option<String>,
    /// Who may send to endpoint-independent ports: `endpoint-independent`, `address` or `address-and-port`
    /// [default: address].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filtering: Option<String>,
}

/// An endpoint: a network namespace with a link to a network.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Endpoint {
    /// Its network [default: default].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Its addresses, one for each family [default: the lowest that is free].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Its hardware address [default: made from the name].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Name of its interface in the namespace [default: eth0].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ifname: Option<String>,
    /// Routes beside the default ones, CIDR or CIDR=VIA, where VIA is a router [default: by the network's gateway].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<String>,
    /// Its links to more networks; the default routes lead by the one that is described above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// `bridge`, `none` for a loopback interface and nothing else, `host` for the host's namespace, or `container:NAME`
    /// for that of another endpoint [default: bridge].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Path of a namespace that is there already and stays when the endpoint is removed [default: one is made].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// Bits that it may send in a second, like `50mbit`, or `none` [default: any number].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<String>,
    /// Bytes that it may send at once, like 65536 or `64k` [default: those of 5 ms].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_burst: Option<Word>,
    /// Bits that it may receive in a second, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<String>,
    /// Bytes that it may receive at once, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_burst: Option<Word>,
}

/// A link of an endpoint to one more network.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Link {
    /// The network.
    pub network: String,
    /// The endpoint's addresses there, one for each family [default: the lowest that is free].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Its hardware address there [default: made from the names].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Name of its interface in the namespace [default: the first of eth0, eth1, ... that is free].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ifname: Option<String>,
    /// Routes by this link, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<String>,
}

/// Two endpoints joined by a pair of interfaces of their own, without a bridge.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Direct {
    /// The two endpoints.
    #[schemars(length(min = 2, max = 2))]
    pub between: Vec<String>,
    /// Addresses with the lengths of their prefixes: of each family the first endpoint's, then the second's.
    pub addresses: Vec<String>,
    /// Names of both interfaces [default: the first of link0, link1, ... that is free].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub ifnames: Vec<String>,
    /// MTU in bytes [default: 1500].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1280, max = 65535))]
    pub mtu: Option<u32>,
}

/// Published ports: what arrives there goes to an endpoint.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PortMap {
    /// Ports of the host, on one of its addresses or on all: [HOST-IP:]PORT[-END].
    pub publish: Word,
    /// Endpoint, by address or name, and as many of its ports: TARGET:PORT[-END].
    pub target: String,
    /// `tcp`, `udp` or `sctp` [default: tcp].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Prefixes of clients that may use it [default: everybody].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_from: Vec<String>,
}

/// Sources that leave the host under another address.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Masquerade {
    /// Their prefix.
    pub sources: String,
    /// The address [default: the one that routing chooses].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// An address of the host that is one endpoint's alone.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Floating {
    /// The host's address.
    pub external: String,
    /// The endpoint, by address or name.
    pub target: String,
}

/// How much processes of a cgroup may send by the uplinks. Either `cgroup` or `classid` says which.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CgroupLimit {
    /// A cgroup of the unified hierarchy, with those below it: its path there, or as the directory that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// A class of net_cls, as in `net_cls.classid`: "1:10".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classid: Option<String>,
    /// Bits that it may send in a second, like "50mbit".
    pub egress: String,
    /// Bytes that it may send at once [default: those of 5 ms].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_burst: Option<Word>,
}

/// The JSON schema of a file, as text.
///
/// # Panics
/// Never: what it is made of can always be written.
#[must_use]
pub fn schema() -> String {
    let schema = schemars::schema_for!(Model);
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    text.push('\n');
    text
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Model {
    /// The text of a file that says this.
    ///
    /// # Errors
    /// Never: what it is made of can always be written.
    pub fn to_text(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

impl From<&Description> for Model {
    fn from(description: &Description) -> Self {
        let Description {
            uplinks,
            change,
            router,
            networks,
            endpoints,
            directs,
            port_maps,
            masquerades,
            excluded,
            floating,
            denied,
            cgroup_limits,
        } = description;
        let named = |network: &NetworkRequest| (network.name.to_string(), Network::from(network));
        let placed = |endpoint: &EndpointRequest| (endpoint.name.to_string(), Endpoint::from(endpoint));
        Self {
            version: Some(VERSION),
            excluded: texts(excluded),
            denied: texts(denied),
            instance: Some(instance(uplinks, change)),
            router: router.as_ref().map(Router::from),
            networks: networks.iter().map(named).collect(),
            endpoints: endpoints.iter().map(placed).collect(),
            direct: directs.iter().map(Direct::from).collect(),
            masquerades: masquerades.iter().map(Masquerade::from).collect(),
            floating: floating.iter().map(Floating::from).collect(),
            portmaps: port_maps.iter().map(PortMap::from).collect(),
            limits: cgroup_limits.iter().map(CgroupLimit::from).collect(),
        }
    }
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn text<T: ToString>(item: &Option<T>) -> Option<String> {
    item.as_ref().map(ToString::to_string)
}

fn instance(uplinks: &[InterfaceName], change: &SettingsChange) -> Instance {
    let all = change.xdp.iter().rev().find(|setting| setting.interface.is_none());
    let each =
        change.xdp.iter().filter_map(|it| Some((it.interface.as_ref()?.to_string(), it.mode.to_string())));
    let each: BTreeMap<String, String> = each.collect();
    let xdp = match all {
        Some(setting) => Some(XdpModes::All(setting.mode.to_string())),
        None if each.is_empty() => None,
        None => Some(XdpModes::Each(each)),
    };
    let timeout =
        |it: &crate::spec::TimeoutSetting| (it.timeout.to_string(), Word::Text(it.value.to_string()));
    Instance {
        uplinks: texts(uplinks),
        nat_ports: text(&change.nat_ports),
        max_flows: change.max_flows,
        max_unanswered: change.max_unanswered,
        endpoint_flows: change.endpoint_flows,
        endpoint_unanswered: change.endpoint_unanswered,
        firewall: text(&change.firewall),
        flood_rate: change.flood_rate,
        flood_total: change.flood_total,
        xdp,
        timeouts: change.timeouts.iter().map(timeout).collect(),
    }
}

impl From<&RouterRequest> for Router {
    fn from(request: &RouterRequest) -> Self {
        Self {
            outside: request.bridge.to_string(),
            addresses: texts(&request.addresses),
            gateways: texts(&request.gateways),
            mac: text(&request.mac),
        }
    }
}

impl From<&NetworkRequest> for Network {
    fn from(request: &NetworkRequest) -> Self {
        let options = &request.options;
        Self {
            subnets: texts(&request.subnets),
            gateways: texts(&request.gateways),
            ranges: texts(&request.ranges),
            reserved: texts(&request.reserved),
            bridge: text(&request.bridge),
            no_bridge: request.no_bridge,
            mtu: request.mtu,
            internal: request.internal,
            isolated: request.isolated,
            gateway_mode: text(&options.gateway_mode),
            udp_mapping: text(&options.udp_mapping),
            tcp_mapping: text(&options.tcp_mapping),
            filtering: text(&options.filtering),
        }
    }
}

impl From<&EndpointRequest> for Endpoint {
    fn from(request: &EndpointRequest) -> Self {
        let netns = match &request.namespace {
            Namespace::Foreign { path } => Some(path.display().to_string()),
            Namespace::Own | Namespace::Host | Namespace::Shared { .. } => None,
        };
        let [place, further @ ..] = &request.places[..] else {
            let mode = match &request.namespace {
                Namespace::Own | Namespace::Foreign { .. } => LinkMode::None,
                Namespace::Host => LinkMode::Host,
                Namespace::Shared { with, .. } => LinkMode::Container(with.clone()),
            };
            return Self { mode: Some(mode.to_string()), netns, ..Self::default() };
        };
        Self {
            network: Some(place.network.to_string()).filter(|name| name != "default"),
            addresses: texts(&place.addresses),
            mac: text(&place.mac),
            ifname: text(&place.ifname),
            routes: texts(&place.routes),
            links: further.iter().map(Link::from).collect(),
            mode: None,
            netns,
            egress: rate(request.limits.egress),
            egress_burst: burst(request.limits.egress),
            ingress: rate(request.limits.ingress),
            ingress_burst: burst(request.limits.ingress),
        }
    }
}

impl From<&Place> for Link {
    fn from(place: &Place) -> Self {
        Self {
            network: place.network.to_string(),
            addresses: texts(&place.addresses),
            mac: text(&place.mac),
            ifname: text(&place.ifname),
            routes: texts(&place.routes),
        }
    }
}

fn rate(wish: Option<Option<Limit>>) -> Option<String> {
    wish.map(|limit| limit.map_or_else(|| "none".to_owned(), |limit| limit.rate.to_string()))
}

fn burst(wish: Option<Option<Limit>>) -> Option<Word> {
    wish.flatten().and_then(|limit| limit.burst).map(|bytes| Word::Number(bytes.into()))
}

impl From<&PortMapRequest> for PortMap {
    fn from(request: &PortMapRequest) -> Self {
        let PortMapRequest { published, target, protocol, allow_from } = request;
        let single = published.host.is_none() && published.ports.count() == 1;
        let publish = if single {
            Word::Number(u32::from(Ports::first(published.ports)))
        } else {
            Word::Text(published.to_string())
        };
        Self {
            publish,
            target: target.to_string(),
            protocol: Some(*protocol).filter(|it| *it != Protocol::default()).map(|it| it.to_string()),
            allow_from: texts(allow_from),
        }
    }
}

impl From<&DirectRequest> for Direct {
    fn from(request: &DirectRequest) -> Self {
        let usual = |name: &Option<InterfaceName>| name.as_ref().is_none_or(|name| name.as_str() == "link0");
        let named: Vec<String> = request.ifnames.iter().flatten().map(ToString::to_string).collect();
        Self {
            between: texts(&request.endpoints),
            addresses: texts(&request.addresses),
            ifnames: if request.ifnames.iter().all(usual) { Vec::new() } else { named },
            mtu: request.mtu,
        }
    }
}

impl From<&MasqueradeRequest> for Masquerade {
    fn from(request: &MasqueradeRequest) -> Self {
        Self { sources: request.subnet.to_string(), to: text(&request.to) }
    }
}

impl From<&CgroupLimitRequest> for CgroupLimit {
    fn from(request: &CgroupLimitRequest) -> Self {
        let (cgroup, classid) = match &request.cgroup {
            Cgroup::Path(path) => (Some(path.to_string()), None),
            Cgroup::ClassId(class) => (None, Some(class.to_string())),
        };
        let limit = Some(Some(request.limit));
        Self { cgroup, classid, egress: request.limit.rate.to_string(), egress_burst: burst(limit) }
    }
}

impl From<&FloatingRequest> for Floating {
    fn from(request: &FloatingRequest) -> Self {
        Self { external: request.external.to_string(), target: request.target.to_string() }
    }
}
