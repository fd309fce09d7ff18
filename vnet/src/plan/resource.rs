//! The things in the kernel that vnet makes and removes: the vocabulary between the plan and the kernel.
//!
//! A resource is a complete description, so that "is it there, and as described?" has an answer, creating it
//! twice is creating it once, and removing it needs nothing but the description. Interfaces are named, not
//! numbered: the kernel adapter looks the index up when it writes a map entry.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use vnet_common::{Addr, AllowFromKey, DatapathConfig, Hook, Mac, PortMapKey, PortMapValue, Zone};

use crate::spec::{Cgroup, GsoSizes, Pacing, Rate, TableSizes, Timeout};

/// Something in the kernel that belongs to an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Maps and programs, loaded and pinned; the host-local programs attached to the root cgroup. Maps that are
    /// there keep their sizes.
    DataPath(TableSizes),
    /// The configuration entry.
    Config {
        /// What it says, but for what is only known when it is written.
        config: DatapathConfig,
        /// The interface that fragments are sent out of to wait, if there is one.
        hold: Option<String>,
    },
    /// The pair of interfaces between which fragments wait.
    Hold {
        /// The end that they are sent out of, slowly.
        entrance: String,
        /// The end where they come out again.
        exit: String,
    },
    /// Ports kept from the host's own automatic choice (`net.ipv4.ip_local_reserved_ports`).
    ReservedPorts {
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
    /// A program attached to an interface of the host.
    Attachment {
        /// Which program, and on which direction of the interface.
        hook: Hook,
        /// The interface.
        interface: String,
    },
    /// The XDP program of an uplink.
    Xdp {
        /// The uplink.
        interface: String,
        /// Whether the host's stack runs it instead of the driver.
        generic: bool,
    },
    /// Sources whose packets uplinks with XDP drop.
    Denied {
        /// The sources.
        subnet: IpNet,
    },
    /// An interface that leads to the world, with the addresses it has now.
    Uplink {
        /// The interface.
        interface: String,
    },
    /// An address of the host.
    HostAddress {
        /// The address.
        addr: IpAddr,
        /// The interface that has it.
        interface: String,
    },
    /// That an interface of the host forwards, though the host may not.
    Forwarding {
        /// The interface.
        interface: String,
    },
    /// A network's bridge, up, with the gateway's addresses, forwarding for its endpoints; or the pair of interfaces that
    /// it has instead.
    Bridge {
        /// Its name.
        name: String,
        /// The other end of the pair, if it is one.
        far_end: Option<String>,
        /// Its hardware address.
        mac: Mac,
        /// Its MTU in bytes.
        mtu: u32,
        /// Most bytes that it is handed at once, if it can take as many.
        gso: GsoSizes,
        /// The gateway's addresses with the network's prefixes.
        addresses: Vec<IpNet>,
    },
    /// A network's prefix.
    Network {
        /// The prefix.
        subnet: IpNet,
        /// The network's bridge.
        bridge: String,
        /// The network's number.
        zone: Zone,
        /// Flags of [`vnet_common::NetworkValue`].
        flags: u8,
        /// The network's gateway in this prefix.
        gateway: IpAddr,
    },
    /// A masquerade rule.
    Masquerade {
        /// The sources it covers.
        subnet: IpNet,
        /// The source to use instead of the one that routing chooses.
        to: Option<IpAddr>,
        /// Whether the rule is a floating address's: the source has `to` for itself alone.
        one_to_one: bool,
    },
    /// Destinations that masquerade leaves alone.
    Unmasqueraded {
        /// The destinations.
        subnet: IpNet,
    },
    /// Where what arrives for a floating address goes.
    Floating {
        /// The host's address.
        external: IpAddr,
        /// The endpoint's address.
        addr: IpAddr,
        /// The endpoint's network.
        zone: Zone,
    },
    /// A network namespace, visible under `/run/netns`, with its loopback up.
    Namespace {
        /// Its name.
        name: String,
    },
    /// The network namespace that this process is in, visible under `/run/netns`: a router's.
    Home {
        /// Its name.
        name: String,
    },
    /// A router's link to the outside: a veth pair as an endpoint's, whose bridge is somebody else's and in the namespace
    /// that this process came from. The end in the router's namespace may have more addresses than are described.
    Leg(Veth),
    /// An address that an interface of the host has for others, and does not choose by itself.
    ExternalAddress {
        /// The address, with the length of a host's prefix.
        address: IpNet,
        /// The interface.
        interface: String,
    },
    /// An endpoint's veth pair: one end in the bridge, if there is one, the other configured in the namespace.
    Veth(Veth),
    /// A veth pair between two endpoints, both of whose ends are configured.
    Direct(Direct),
    /// How much an endpoint may send or receive.
    Limit(Shaper),
    /// Where what limited cgroups send waits, on an uplink: its queueing discipline.
    Queue(Queue),
    /// How much a cgroup may send by the uplinks.
    CgroupLimit(CgroupShare),
    /// An endpoint's address.
    Endpoint {
        /// The address.
        addr: Addr,
        /// The host-side end of its veth pair.
        interface: String,
        /// Its network's bridge.
        bridge: String,
        /// The endpoint's hardware address.
        mac: Mac,
        /// Its gateway's hardware address.
        gateway_mac: Mac,
        /// Its network.
        zone: Zone,
        /// Its MTU in bytes.
        mtu: u16,
        /// Length of its network's prefix in bits of the 128.
        prefix_len: u8,
        /// Flags of its network, as in [`Resource::Network`], and of [`vnet_common::EndpointValue`].
        flags: u8,
        /// Bits of [`vnet_common::mapping`], as its network has it.
        mapping: u8,
        /// One of [`vnet_common::filtering`], as its network has it.
        filtering: u8,
    },
    /// Clients that may use a restricted mapping.
    AllowFrom {
        /// The mapping, and the clients' prefix.
        key: AllowFromKey,
    },
    /// A block of published ports, or of ports that are reserved because they are published on one address.
    PortMap {
        /// What is published.
        key: PortMapKey,
        /// Where it leads.
        value: PortMapValue,
    },
}

/// What a [`Resource`] is, however described: to find one among many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is the resource of its name")]
pub enum Identity<'a> {
    DataPath,
    Config,
    ReservedPorts,
    Attachment(&'static str, &'a str),
    Uplink(&'a str),
    Forwarding(&'a str),
    Xdp(&'a str),
    HostAddress(IpAddr),
    Bridge(&'a str),
    Namespace(&'a str),
    Network(IpNet),
    Masquerade(IpNet),
    Unmasqueraded(IpNet),
    Denied(IpNet),
    Floating(IpAddr),
    Veth(&'a str),
    Home(&'a str),
    Leg(&'a str),
    ExternalAddress(IpNet),
    Direct([(&'a Path, &'a str); 2]),
    Limit(&'a str, Option<&'a Path>),
    Queue(&'a str),
    CgroupLimit(&'a Cgroup),
    Hold(&'a str),
    Endpoint(Addr),
    AllowFrom(AllowFromKey),
    PortMap(PortMapKey),
}

/// An endpoint's veth pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    /// The end that stays on the host.
    pub host: String,
    /// The bridge it is a port of, if there is one.
    pub bridge: Option<String>,
    /// The namespace of the other end, as a path that can be opened.
    pub namespace: PathBuf,
    /// Name of the end in the namespace.
    pub ifname: String,
    /// Hardware address of the end in the namespace.
    pub mac: Mac,
    /// MTU of both ends, in bytes.
    pub mtu: u32,
    /// Most bytes that either end is handed at once.
    pub gso: GsoSizes,
    /// Addresses of the end in the namespace, with the prefixes of its neighbours. A family without one is switched
    /// off there.
    pub addresses: Vec<IpNet>,
    /// Neighbours whose hardware address the namespace is told, so that it need not ask.
    pub neighbours: Vec<(IpAddr, Mac)>,
    /// Routers to which the default routes of the namespace lead by this link, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Other routes of the namespace that lead by this link.
    pub routes: Vec<Hop>,
    /// Where what is sent from its addresses goes, if the default routes lead elsewhere or did.
    pub by_source: Option<BySource>,
    /// Names in the namespace of the endpoint's other links: a default route by one of them may be replaced.
    pub siblings: Vec<String>,
}

/// A routing table of its own for what is sent from some of the addresses of a link: without it, answers to what came
/// in by the link would leave by another one, and be dropped there as forged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BySource {
    /// The table's number, no other link's.
    pub table: u32,
    /// The addresses; without any, the table and the rules that lead to it are to be gone.
    pub sources: Vec<IpAddr>,
    /// What the table holds.
    pub routes: Vec<Hop>,
}

/// A veth pair between two endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direct {
    /// Its ends.
    pub ends: [DirectEnd; 2],
    /// MTU of both ends, in bytes.
    pub mtu: u32,
}

/// One end of a veth pair between two endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectEnd {
    /// Its namespace, as a path that can be opened.
    pub namespace: PathBuf,
    /// Its name there.
    pub ifname: String,
    /// Its hardware address.
    pub mac: Mac,
    /// Its addresses with their prefixes. IPv6 is switched off where there is none of it.
    pub addresses: Vec<IpNet>,
}

/// A route by a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Where it leads.
    pub destination: IpNet,
    /// The router; without one, to neighbours.
    pub gateway: Option<IpAddr>,
}

/// A queue that an interface sends from at a rate: what exceeds it waits, and is dropped when too much waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shaper {
    /// The interface: the end in the namespace for what the endpoint sends, the other for what it receives.
    pub interface: String,
    /// The namespace that the interface is in, as a path that can be opened; that of the host without.
    pub namespace: Option<PathBuf>,
    /// The rate.
    pub rate: Rate,
    /// Bytes that may be sent at once.
    pub burst: u32,
    /// Bytes of packets that may wait.
    pub queue: u32,
}

/// The queueing discipline of an uplink, in place of what the kernel gives it by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// The uplink.
    pub interface: String,
    /// How it makes packets wait.
    pub pacing: Pacing,
    /// Its classes, one for each limit and the outer ones first; none where packets come with their time.
    pub classes: Vec<Class>,
}

/// A class of what is sent by an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// The number of its limit.
    pub number: u16,
    /// The number of the limit around it.
    pub parent: Option<u16>,
    /// The rate.
    pub rate: Rate,
    /// Bytes that may be sent at once.
    pub burst: u32,
    /// Bytes of packets that may wait.
    pub queue: u32,
}

/// How much a cgroup may send by the uplinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupShare {
    /// The cgroup.
    pub cgroup: Cgroup,
    /// How it is held.
    pub pacing: Pacing,
    /// The rate, and how much may be sent at once and may wait.
    pub class: Class,
}

/// How a resource stands in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// There is nothing of that identity.
    Absent,
    /// It is there as described.
    Present,
    /// It is there, but not as described; says what differs.
    Differs(String),
}

impl Resource {
    /// Whether two resources are the same thing, however described: at most one of them can exist.
    #[must_use]
    pub fn same_identity(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }

    /// What it is, however described.
    #[must_use]
    pub fn identity(&self) -> Identity<'_> {
        match self {
            Self::DataPath(_) => Identity::DataPath,
            Self::Config { .. } => Identity::Config,
            Self::ReservedPorts { .. } => Identity::ReservedPorts,
            Self::Attachment { hook, interface } => Identity::Attachment(hook.name(), interface),
            Self::Uplink { interface } => Identity::Uplink(interface),
            Self::Forwarding { interface } => Identity::Forwarding(interface),
            Self::Xdp { interface, .. } => Identity::Xdp(interface),
            Self::HostAddress { addr, .. } => Identity::HostAddress(*addr),
            Self::Bridge { name, .. } => Identity::Bridge(name),
            Self::Namespace { name } => Identity::Namespace(name),
            Self::Network { subnet, .. } => Identity::Network(*subnet),
            Self::Masquerade { subnet, .. } => Identity::Masquerade(*subnet),
            Self::Unmasqueraded { subnet } => Identity::Unmasqueraded(*subnet),
            Self::Denied { subnet } => Identity::Denied(*subnet),
            Self::Floating { external, .. } => Identity::Floating(*external),
            Self::Veth(veth) => Identity::Veth(&veth.host),
            Self::Home { name } => Identity::Home(name),
            Self::Leg(veth) => Identity::Leg(&veth.host),
            Self::ExternalAddress { address, .. } => Identity::ExternalAddress(*address),
            Self::Direct(direct) => {
                Identity::Direct(direct.ends.each_ref().map(|end| (&*end.namespace, &*end.ifname)))
            }
            Self::Limit(limit) => Identity::Limit(&limit.interface, limit.namespace.as_deref()),
            Self::Queue(queue) => Identity::Queue(&queue.interface),
            Self::CgroupLimit(share) => Identity::CgroupLimit(&share.cgroup),
            Self::Hold { entrance, .. } => Identity::Hold(entrance),
            Self::Endpoint { addr, .. } => Identity::Endpoint(*addr),
            Self::AllowFrom { key } => Identity::AllowFrom(*key),
            Self::PortMap { key, .. } => Identity::PortMap(*key),
        }
    }

    /// Whether it can be had by one owner only, so that one that is there already may be somebody else's.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        matches!(
            self,
            Self::DataPath(_)
                | Self::Attachment { .. }
                | Self::Xdp { .. }
                | Self::Bridge { .. }
                | Self::Namespace { .. }
                | Self::Veth(_)
                | Self::Home { .. }
                | Self::Leg(_)
                | Self::Direct(_)
                | Self::Hold { .. }
        )
    }

    /// Whether it is lost, or wrong, when the other is made anew: what is on one end of a pair of interfaces or numbers
    /// one, and what is in a map or runs a program.
    #[must_use]
    pub fn hangs_on(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Attachment { .. } | Self::Xdp { .. }, Self::DataPath(_)) => true,
            (entry, Self::DataPath(_)) => entry.is_map_entry(),
            (Self::Attachment { interface, .. } | Self::Endpoint { interface, .. }, Self::Veth(veth)) => {
                *interface == veth.host
            }
            (Self::Limit(Shaper { interface, namespace: Some(path), .. }), Self::Veth(veth)) => {
                *interface == veth.ifname && *path == veth.namespace
            }
            (Self::Limit(Shaper { interface, namespace: None, .. }), Self::Veth(veth)) => {
                *interface == veth.host
            }
            (
                Self::Attachment { interface, .. }
                | Self::Xdp { interface, .. }
                | Self::Uplink { interface }
                | Self::Forwarding { interface }
                | Self::ExternalAddress { interface, .. },
                Self::Leg(veth),
            ) => *interface == veth.ifname,
            (Self::Attachment { interface, .. }, Self::Hold { exit, .. }) => interface == exit,
            (
                Self::Attachment { interface: it, .. }
                | Self::HostAddress { interface: it, .. }
                | Self::Network { bridge: it, .. }
                | Self::Endpoint { bridge: it, .. },
                Self::Bridge { name, far_end: Some(_), .. },
            ) => it == name,
            (Self::Config { hold: Some(hold), .. }, Self::Hold { entrance, .. }) => hold == entrance,
            _ => false,
        }
    }

    /// The address, if it is one of the host's.
    #[must_use]
    pub fn as_host_address(&self) -> Option<IpAddr> {
        match self {
            Self::HostAddress { addr, .. } => Some(*addr),
            _ => None,
        }
    }

    /// Whether it is an entry of a map, which goes with the map.
    #[must_use]
    pub fn is_map_entry(&self) -> bool {
        matches!(
            self,
            Self::Config { .. }
                | Self::Uplink { .. }
                | Self::HostAddress { .. }
                | Self::Network { .. }
                | Self::Masquerade { .. }
                | Self::Unmasqueraded { .. }
                | Self::Floating { .. }
                | Self::Denied { .. }
                | Self::CgroupLimit(_)
                | Self::Endpoint { .. }
                | Self::AllowFrom { .. }
                | Self::PortMap { .. }
        )
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataPath(_) => f.write_str("maps and programs"),
            Self::Config { config, hold: _ } => {
                write!(
                    f,
                    "configuration: source ports {}-{}",
                    config.nat_ports.first, config.nat_ports.last
                )?;
                let lengths = (0..16).rev().filter(|length| config.port_blocks & 1 << length != 0);
                let sizes: Vec<String> = lengths.map(|length| (1_u32 << (16 - length)).to_string()).collect();
                if !sizes.is_empty() {
                    write!(f, ", blocks of {} ports", sizes.join(", "))?;
                }
                differences(config).iter().try_for_each(|difference| write!(f, ", {difference}"))
            }
            Self::Hold { entrance, exit } => write!(f, "veth {entrance} and {exit}, where fragments wait"),
            Self::ReservedPorts { first, last } => write!(f, "reserved local ports {first}-{last}"),
            Self::Attachment { hook, interface } => write!(f, "program {} on {interface}", hook.name()),
            Self::Xdp { interface, generic } => {
                let mode = if *generic { "generic" } else { "native" };
                write!(f, "program {} on {interface}, {mode}", Hook::XdpUplink.name())
            }
            Self::Denied { subnet } => write!(f, "denied sources {subnet}"),
            Self::Uplink { interface } => write!(f, "uplink {interface}"),
            Self::HostAddress { addr, interface } => write!(f, "host address {addr} of {interface}"),
            Self::Bridge { name, far_end, addresses, mtu, .. } => {
                match far_end {
                    None => write!(f, "bridge {name}")?,
                    Some(far_end) => write!(f, "veth {name} and {far_end} in place of a bridge")?,
                }
                write!(f, ", mtu {mtu}, addresses {}", list(addresses))
            }
            Self::Network { subnet, bridge, zone, .. } => {
                write!(f, "network {subnet} on {bridge}, number {}", zone.id)
            }
            Self::Forwarding { interface } => write!(f, "forwarding of {interface}"),
            Self::Masquerade { subnet, to: None, .. } => write!(f, "masquerade {subnet}"),
            Self::Masquerade { subnet, to: Some(to), .. } => write!(f, "masquerade {subnet} as {to}"),
            Self::Unmasqueraded { subnet } => write!(f, "destinations {subnet} left out of masquerade"),
            Self::Floating { external, addr, .. } => write!(f, "floating address {external} to {addr}"),
            Self::Namespace { name } => write!(f, "namespace {name}"),
            Self::Home { name } => write!(f, "namespace {name} of the router"),
            Self::Veth(veth) | Self::Leg(veth) => {
                write!(f, "veth {}", veth.host)?;
                veth.bridge.as_ref().map_or(Ok(()), |bridge| write!(f, " in {bridge}"))?;
                let (ifname, namespace) = (&veth.ifname, veth.namespace.display());
                write!(f, ", {ifname} in {namespace}, addresses {}", list(&veth.addresses))
            }
            Self::ExternalAddress { address, interface } => write!(f, "address {address} of {interface}"),
            Self::Direct(Direct { ends: [a, b], .. }) => write!(
                f,
                "veth {} in {}, {}, and {} in {}, {}",
                a.ifname,
                a.namespace.display(),
                list(&a.addresses),
                b.ifname,
                b.namespace.display(),
                list(&b.addresses)
            ),
            Self::Limit(Shaper { interface, namespace, rate, .. }) => {
                write!(f, "limit of {rate} to what {interface} sends")?;
                namespace.as_ref().map_or(Ok(()), |namespace| write!(f, " in {}", namespace.display()))
            }
            Self::Queue(Queue { interface, pacing, .. }) => {
                write!(f, "queueing discipline {} of {interface}", pacing.discipline())
            }
            Self::CgroupLimit(CgroupShare { cgroup, class, .. }) => {
                write!(f, "limit of {} to what {} sends", class.rate, cgroup.in_full())
            }
            Self::Endpoint { addr, interface, mac, .. } => {
                write!(f, "endpoint {addr}, {mac}, behind {interface}")
            }
            Self::AllowFrom { key } => {
                let (client, bits) = (key.data.client, key.prefix_len.saturating_sub(u32::BITS));
                let bits = if client.is_v4() { bits.saturating_sub(96) } else { bits };
                write!(f, "clients {client}/{bits} of mapping {}", key.data.mapping)
            }
            Self::PortMap { key, .. } if key.is_reservation() => {
                let family = if key.addr.is_v4() { "IPv4" } else { "IPv6" };
                write!(f, "reserved {} ports {}-{} ({family})", key.proto, key.port, last_port(key))
            }
            Self::PortMap { key, value } => {
                let last = last_port(key);
                let host =
                    if key.addr.is_unspecified() { "every address".to_owned() } else { key.addr.to_string() };
                let family = if key.addr.is_v4() { "IPv4" } else { "IPv6" };
                write!(f, "published {} ports {}-{last} of {host} ({family})", key.proto, key.port)?;
                write!(f, " to {} from port {}", value.addr, value.port)
            }
        }
    }
}

/// The last port of a block.
fn last_port(key: &PortMapKey) -> u32 {
    u32::from(key.port.number()) + (1 << (16 - u32::from(key.prefix_len.min(16)))) - 1
}

/// What of a configuration is not as documented, ports apart.
fn differences(config: &DatapathConfig) -> Vec<String> {
    const DEFAULT: DatapathConfig = DatapathConfig::DEFAULT;
    let timeouts = Timeout::ALL.iter().filter(|timeout| timeout.of(config) != timeout.of(&DEFAULT));
    let mut differences: Vec<String> =
        timeouts.map(|timeout| format!("{timeout} {}", timeout.of(config))).collect();
    for (name, value, default) in [
        ("flows", config.endpoint_flows, DEFAULT.endpoint_flows),
        ("unanswered flows", config.unanswered, DEFAULT.unanswered),
    ] {
        if value != default {
            let limit = if value == 0 { "any number of".to_owned() } else { value.to_string() };
            differences.push(format!("{limit} {name} for each endpoint"));
        }
    }
    for (whose, limit) in [("of each source", config.flood_rate), ("in all", config.flood_total)] {
        if limit != 0 {
            differences.push(format!("{limit} new flows a second {whose}"));
        }
    }
    if config.flags & DatapathConfig::FLAG_RESPECT_FIREWALL != 0 {
        differences.push("first packets through the host's firewall".to_owned());
    }
    differences
}

fn list(addresses: &[IpNet]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
