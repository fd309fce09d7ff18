//! The world in which packets of the table live: as a [`Model`], and as interfaces that a [`Stage`] makes real.
//!
//! ```text
//!   net1 192.168.0.2 --.                        .-- uplink 203.0.113.1/24 --- 203.0.113.2 (peer) --- world
//!                      |-- vnet0 192.168.0.1 ---|
//!   net2 192.168.0.3 --'                        |-- stray 198.18.0.1/24: a route leads there, vnet does not
//!                                               |
//!   net3 192.168.1.2 ----- vnet1 192.168.1.1 ---'
//! ```
//!
//! and the same in IPv6. Interface indexes are fixed, so that a case can be written down without a kernel.
//!
//! [`Stage`]: crate::runner::Stage

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use vnet::kernel::Kernel;
use vnet_common::{
    Addr, DatapathConfig, EndpointValue, HostAddressValue, Mac, MasqueradeValue, NetworkValue, Port,
    PortMapKey, PortMapValue, PortRange, PrefixKey, Proto, UplinkValue, Zone, filtering,
};
use vnet_datapath::NextHop;
use vnet_datapath::model::{Model, ModelRoute};

/// The interface that leads to the world.
pub const UPLINK: u32 = 11;
/// An interface with routes that is no uplink.
pub const STRAY: u32 = 12;
/// Bridge of network 1.
pub const BRIDGE: u32 = 21;
/// Bridge of network 2.
pub const OTHER_BRIDGE: u32 = 22;

/// Largest packet that fits every interface.
pub const MTU: u16 = 1500;

/// Ports that masquerade may use.
pub const NAT_PORTS: PortRange = PortRange { first: 49_152, last: 65_535 };

/// The uplink's hardware address.
pub const HOST_MAC: Mac = Mac::new([0x02, 0, 0, 0, 0, 0x11]);
/// Hardware address of the next hop.
pub const PEER_MAC: Mac = Mac::new([0x02, 0, 0, 0, 0, 0x99]);

/// An endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// Index of the host-side end of its veth pair.
    pub ifindex: u32,
    /// Index of its network's bridge.
    pub bridge: u32,
    /// Its hardware address.
    pub mac: Mac,
    /// Its gateway's hardware address.
    pub gateway_mac: Mac,
    /// Its network.
    pub zone: Zone,
    /// Its addresses: IPv4, IPv6, link-local.
    pub addrs: [IpAddr; 3],
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(high: [u16; 4], low: u16) -> IpAddr {
    let [a, b, c, d] = high;
    IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, low))
}

const LINK_LOCAL: [u16; 4] = [0xfe80, 0, 0, 0];
const NETWORK_1: [u16; 4] = [0xfd00, 0, 0, 0];
const NETWORK_2: [u16; 4] = [0xfd00, 0, 0, 1];

const fn endpoint(number: u8, network: u8, addrs: [IpAddr; 3]) -> Endpoint {
    Endpoint {
        ifindex: 30 + number as u32,
        bridge: if network == 1 { BRIDGE } else { OTHER_BRIDGE },
        mac: Mac::new([0x02, 0, 0, 0, 1, number]),
        gateway_mac: Mac::new([0x02, 0, 0, 0, 2, network]),
        zone: Zone { id: network as u16 },
        addrs,
    }
}

/// An endpoint of network 1.
pub const NET1: Endpoint = endpoint(1, 1, [v4(192, 168, 0, 2), v6(NETWORK_1, 2), v6(LINK_LOCAL, 0x102)]);
/// Its neighbour.
pub const NET2: Endpoint = endpoint(2, 1, [v4(192, 168, 0, 3), v6(NETWORK_1, 3), v6(LINK_LOCAL, 0x103)]);
/// An endpoint of network 2.
pub const NET3: Endpoint = endpoint(3, 2, [v4(192, 168, 1, 2), v6(NETWORK_2, 2), v6(LINK_LOCAL, 0x104)]);
/// All endpoints.
pub const ENDPOINTS: [Endpoint; 3] = [NET1, NET2, NET3];

/// The addresses of one family.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// "IPv4" or "IPv6".
    pub name: &'static str,
    /// [`NET1`].
    pub net1: IpAddr,
    /// [`NET2`].
    pub net2: IpAddr,
    /// [`NET3`].
    pub net3: IpAddr,
    /// The host on network 1.
    pub gateway: IpAddr,
    /// The host on network 2.
    pub other_gateway: IpAddr,
    /// An address of network 1 that nobody has.
    pub nobody: IpAddr,
    /// The host on its uplink.
    pub host: IpAddr,
    /// Another address of the host, which the maps do not know.
    pub spare: IpAddr,
    /// The next hop, directly on the uplink.
    pub peer: IpAddr,
    /// Somebody far away.
    pub www: IpAddr,
    /// Somebody behind the interface that is no uplink.
    pub stray: IpAddr,
    /// The host on that interface.
    pub stray_host: IpAddr,
    /// Many.
    pub multicast: IpAddr,
    /// The host, for itself.
    pub loopback: IpAddr,
}

/// The addresses of IPv4.
pub const V4: Family = Family {
    name: "IPv4",
    net1: NET1.addrs[0],
    net2: NET2.addrs[0],
    net3: NET3.addrs[0],
    gateway: v4(192, 168, 0, 1),
    other_gateway: v4(192, 168, 1, 1),
    nobody: v4(192, 168, 0, 77),
    host: v4(203, 0, 113, 1),
    spare: v4(203, 0, 113, 7),
    peer: v4(203, 0, 113, 2),
    www: v4(198, 51, 100, 80),
    stray: v4(198, 18, 0, 9),
    stray_host: v4(198, 18, 0, 1),
    multicast: v4(224, 0, 0, 251),
    loopback: IpAddr::V4(Ipv4Addr::LOCALHOST),
};
/// The addresses of IPv6.
pub const V6: Family = Family {
    name: "IPv6",
    net1: NET1.addrs[1],
    net2: NET2.addrs[1],
    net3: NET3.addrs[1],
    gateway: v6(NETWORK_1, 1),
    other_gateway: v6(NETWORK_2, 1),
    nobody: v6(NETWORK_1, 0x77),
    host: v6([0x2001, 0xdb8, 0x113, 0], 1),
    spare: v6([0x2001, 0xdb8, 0x113, 0], 7),
    peer: v6([0x2001, 0xdb8, 0x113, 0], 2),
    www: v6([0x2001, 0xdb8, 0x80, 0], 0x80),
    stray: v6([0x2001, 0xdb8, 5, 0], 9),
    stray_host: v6([0x2001, 0xdb8, 5, 0], 1),
    multicast: v6([0xff02, 0, 0, 0], 0xfb),
    loopback: IpAddr::V6(Ipv6Addr::LOCALHOST),
};
/// Both.
pub const FAMILIES: [Family; 2] = [V4, V6];

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { V4 } else { V6 }
    }
}

/// An address and a port.
#[must_use]
pub const fn at(addr: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(addr, port)
}

/// The zone that an address belongs to: where its packets come from.
#[must_use]
pub fn zone_of(addr: IpAddr) -> Zone {
    ENDPOINTS
        .iter()
        .find(|endpoint| endpoint.addrs.contains(&addr))
        .map_or(Zone::WORLD, |endpoint| endpoint.zone)
}

/// What the world publishes; each on every address of the host and for both families, unless it says otherwise.
pub mod published {
    use super::{Family, IpAddr};

    /// A published port or block of ports.
    #[derive(Clone, Copy, Debug)]
    pub struct Publication {
        /// [`vnet_common::PortMapValue::id`].
        pub id: u32,
        /// The port, or the first of the block.
        pub port: u16,
        /// [`vnet_common::PortMapKey::prefix_len`].
        pub prefix_len: u8,
        /// On which address; unspecified for all.
        pub on: fn(&Family) -> Option<IpAddr>,
        /// Whose it is.
        pub target: fn(&Family) -> IpAddr,
        /// The target's port.
        pub target_port: u16,
        /// TCP or UDP.
        pub proto: super::Proto,
    }

    const fn one(
        id: u32,
        proto: super::Proto,
        port: u16,
        target: fn(&Family) -> IpAddr,
        target_port: u16,
    ) -> Publication {
        Publication { id, port, prefix_len: 16, on: |_| None, target, target_port, proto }
    }

    const TCP: super::Proto = super::Proto::TCP;
    const UDP: super::Proto = super::Proto::UDP;

    /// A web server of [`super::NET1`].
    pub const WEB: Publication = one(1, TCP, 8088, |f| f.net1, 80);
    /// A name server of [`super::NET2`].
    pub const DNS: Publication = one(2, UDP, 5353, |f| f.net2, 53);
    /// A web server of [`super::NET2`]...
    pub const EVERYWHERE: Publication = one(3, TCP, 8089, |f| f.net2, 82);
    /// ...whose port leads to [`super::NET1`] on the uplink's address.
    pub const ON_UPLINK: Publication =
        Publication { on: |f| Some(f.host), ..one(4, TCP, 8089, |f| f.net1, 81) };
    /// Sixteen ports from 8192 on, of [`super::NET1`] from 7000 on...
    pub const BLOCK: Publication = Publication { prefix_len: 12, ..one(5, TCP, 8192, |f| f.net1, 7000) };
    /// ...but for one in the middle, of [`super::NET2`].
    pub const IN_BLOCK: Publication = one(6, TCP, 8200, |f| f.net2, 22);
    /// A server of [`super::NET3`], on another network.
    pub const OTHER_NETWORK: Publication = one(7, TCP, 8090, |f| f.net3, 80);
    /// The same for UDP, on a port that masquerade may use.
    pub const IN_NAT_RANGE: Publication = one(8, UDP, 49_200, |f| f.net3, 50);
    /// One whose endpoint is gone.
    pub const GONE: Publication = one(9, TCP, 8099, |f| f.nobody, 80);

    /// All of them.
    pub const ALL: [Publication; 9] =
        [WEB, DNS, EVERYWHERE, ON_UPLINK, BLOCK, IN_BLOCK, OTHER_NETWORK, IN_NAT_RANGE, GONE];
}

/// The tables of the world, with no flow tracked, at the present time.
#[must_use]
pub fn world() -> Model {
    let mut model = Model { clock: now(), config: config(), routes: routes(), ..Model::default() };
    for endpoint in &ENDPOINTS {
        model.endpoints.extend(endpoint.addrs.map(|addr| (Addr::from(addr), endpoint.entry(addr))));
    }
    let uplink = UplinkValue { v4: V4.host.into(), v6: V6.host.into() };
    model.uplinks.insert(UPLINK, uplink);
    for family in &FAMILIES {
        add_networks(&mut model, family);
        for publication in published::ALL {
            let (key, value) = publication.entry(family);
            model.port_map.insert(key, value);
        }
    }
    model
}

/// Seconds since boot.
///
/// # Panics
/// When the machine has been up for less than a minute: flows that are to have expired must have begun somewhen.
#[must_use]
pub fn now() -> u32 {
    let now = Kernel::now();
    assert!(now > 60, "the machine has been up for {now} s: expired flows need a past of a minute");
    now
}

/// Short timeouts, so that the past need not be long.
fn config() -> DatapathConfig {
    DatapathConfig {
        port_blocks: 1 << published::BLOCK.prefix_len,
        nat_ports: NAT_PORTS,
        tcp_established: 50,
        tcp_opening: 40,
        tcp_closing: 40,
        udp_unreplied: 20,
        udp_replied: 30,
        dns: 12,
        icmp_query: 15,
        // All of them: how many there may be is a subject of its own.
        icmp_errors: u32::MAX,
        ..DatapathConfig::DEFAULT
    }
}

impl Endpoint {
    /// The entry for one of its addresses.
    #[must_use]
    pub const fn entry(&self, addr: IpAddr) -> EndpointValue {
        let Self { ifindex, bridge, mac, gateway_mac, zone, addrs: _ } = *self;
        let prefix_len = if addr.is_ipv4() { 120 } else { 64 };
        EndpointValue {
            ifindex,
            bridge,
            mac,
            gateway_mac,
            zone,
            mtu: MTU,
            prefix_len,
            flags: 0,
            mapping: 0,
            filtering: filtering::ADDRESS_AND_PORT,
        }
    }
}

impl published::Publication {
    /// Its entry in one family.
    #[must_use]
    pub fn entry(&self, family: &Family) -> (PortMapKey, PortMapValue) {
        let any = Addr::from(family.host).any_of_family();
        let target = (self.target)(family);
        // Of an endpoint that is gone there is still its network.
        let zone = if target == family.nobody { NET1.zone } else { zone_of(target) };
        (
            PortMapKey {
                addr: (self.on)(family).map_or(any, Addr::from),
                port: Port::new(self.port),
                proto: self.proto,
                prefix_len: self.prefix_len,
            },
            PortMapValue {
                addr: target.into(),
                port: Port::new(self.target_port),
                zone,
                id: self.id,
                flags: 0,
            },
        )
    }
}

/// A prefix as a key: `bits` of the family's own length.
#[must_use]
pub fn prefix(addr: IpAddr, bits: u32) -> PrefixKey {
    let prefix_len = if addr.is_ipv4() { 96 + bits } else { bits };
    let mut addr = Addr::from(addr);
    let kept = u128::MAX.checked_shl(128 - prefix_len).unwrap_or(0);
    addr.bytes = (u128::from_be_bytes(addr.bytes) & kept).to_be_bytes();
    PrefixKey { prefix_len, addr }
}

/// The prefixes of networks 1 and 2 in a family.
#[must_use]
pub fn subnets(family: &Family) -> [PrefixKey; 2] {
    let bits = if family.net1.is_ipv4() { 24 } else { 64 };
    [prefix(family.net1, bits), prefix(family.net3, bits)]
}

fn add_networks(model: &mut Model, family: &Family) {
    let any = Addr::from(family.host).any_of_family();
    let ends = [(NET1, family.gateway), (NET3, family.other_gateway)];
    for (subnet, (endpoint, gateway)) in subnets(family).into_iter().zip(ends) {
        let Endpoint { bridge, zone, .. } = endpoint;
        let network = NetworkValue { bridge, zone, flags: 0, reserved: 0, gateway: gateway.into() };
        model.networks.insert(subnet, network);
        model.masquerade.insert(subnet, MasqueradeValue { to: any, flags: 0 });
    }
    let of_host = [
        (family.host, UPLINK),
        (family.stray_host, STRAY),
        (family.gateway, BRIDGE),
        (family.other_gateway, OTHER_BRIDGE),
    ];
    let entry = |(addr, ifindex)| (Addr::from(addr), HostAddressValue { ifindex });
    model.host_addresses.extend(of_host.map(entry));
    model.unnoted.insert(family.spare.into());
    // Broadcasts, and what all routers of a network answer to (RFC 4291 section 2.6.1): those where forwarding is on.
    let for_all = of_host.into_iter().filter_map(|(addr, ifindex)| match addr {
        IpAddr::V4(addr) => Some(IpAddr::V4(addr | Ipv4Addr::new(0, 0, 0, 255))),
        IpAddr::V6(addr) if ifindex == BRIDGE || ifindex == OTHER_BRIDGE => {
            Some(IpAddr::V6(addr & Ipv6Addr::from_bits(u128::MAX << 64)))
        }
        IpAddr::V6(_) => None,
    });
    model.unnoted.extend(for_all.map(Addr::from));
}

/// What the routing tables of the stage say.
fn routes() -> Vec<ModelRoute> {
    let route = |prefix, ifindex, addr: IpAddr, source: IpAddr| ModelRoute {
        prefix,
        next_hop: NextHop { ifindex, addr: addr.into() },
        source: source.into(),
        mtu: MTU,
    };
    // Nothing fits: for the kernel itself to deal with, whatever a wider route says.
    let kept = |prefix| ModelRoute { mtu: 0, ..route(prefix, UPLINK, V4.host, V4.host) };
    let (any_v4, any_v6) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    vec![
        route(prefix(any_v4, 0), UPLINK, V4.peer, V4.host),
        route(prefix(any_v6, 0), UPLINK, V6.peer, V6.host),
        route(prefix(V4.host, 24), UPLINK, any_v4, V4.host),
        route(prefix(V6.host, 64), UPLINK, any_v6, V6.host),
        route(prefix(V4.stray, 24), STRAY, any_v4, V4.stray_host),
        route(prefix(V6.stray, 64), STRAY, any_v6, V6.stray_host),
        // Directed broadcasts.
        kept(prefix(v4(203, 0, 113, 255), 32)),
        kept(prefix(v4(198, 18, 0, 255), 32)),
        // What is meant for one link is never forwarded (RFC 4291 section 2.5.6).
        kept(prefix(v6(LINK_LOCAL, 0), 10)),
    ]
}
