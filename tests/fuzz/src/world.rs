//! A small world, whose options the input chooses.
//!
//! ```text
//!   .2 --.                            .-- uplink: host, second --- peer --- www
//!        |-- network 1, gateway .1 ---|
//!   .3 --'                            '-- an interface that is no uplink --- stray
//!   .2 ----- network 2, gateway .1 ---'
//! ```

use vnet_common::filtering::{ADDRESS, ADDRESS_AND_PORT, ENDPOINT_INDEPENDENT};
use vnet_common::{
    Addr, DatapathConfig, EndpointValue, FloatingValue, HostAddressValue, Mac, MasqueradeValue, NetworkValue,
    Port, PortMapKey, PortMapValue, PortRange, PrefixKey, Proto, Tuple, UplinkValue, Zone,
};
use vnet_datapath::NextHop;
use vnet_datapath::model::{Model, ModelRoute};

use crate::input::Input;

pub(crate) const UPLINK: u32 = 1;
pub(crate) const STRAY: u32 = 2;
/// Where fragments wait.
pub(crate) const HOLD: u32 = 3;

/// The addresses of one family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    /// Two of network 1, one of network 2.
    pub(crate) endpoints: [Addr; 3],
    /// The host in each network.
    pub(crate) gateways: [Addr; 2],
    /// Length of a network's prefix, over the 128 bits.
    prefix_len: u8,
    /// The host's on the uplink.
    pub(crate) host: Addr,
    /// Another of the host's there.
    pub(crate) second: Addr,
    pub(crate) peer: Addr,
    pub(crate) www: Addr,
    pub(crate) stray: Addr,
    /// One of network 1 that nobody has.
    pub(crate) nobody: Addr,
    pub(crate) multicast: Addr,
    pub(crate) loopback: Addr,
}

const fn v6(network: u8, low: u8) -> Addr {
    Addr::v6([0xfd, 0, 0, 0, 0, 0, 0, network, 0, 0, 0, 0, 0, 0, 0, low])
}

const V4: Family = Family {
    endpoints: [Addr::v4([10, 0, 1, 2]), Addr::v4([10, 0, 1, 3]), Addr::v4([10, 0, 2, 2])],
    gateways: [Addr::v4([10, 0, 1, 1]), Addr::v4([10, 0, 2, 1])],
    prefix_len: 120,
    host: Addr::v4([203, 0, 113, 1]),
    second: Addr::v4([203, 0, 113, 9]),
    peer: Addr::v4([203, 0, 113, 2]),
    www: Addr::v4([198, 51, 100, 7]),
    stray: Addr::v4([198, 18, 0, 9]),
    nobody: Addr::v4([10, 0, 1, 77]),
    multicast: Addr::v4([224, 0, 0, 251]),
    loopback: Addr::v4([127, 0, 0, 1]),
};
const V6: Family = Family {
    endpoints: [v6(1, 2), v6(1, 3), v6(2, 2)],
    gateways: [v6(1, 1), v6(2, 1)],
    prefix_len: 64,
    host: v6(99, 1),
    second: v6(99, 9),
    peer: v6(99, 2),
    www: v6(77, 7),
    stray: v6(88, 9),
    nobody: v6(1, 77),
    multicast: Addr::v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfb]),
    loopback: Addr::v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
};

impl Family {
    /// That of the world's addresses which is chosen by a bit.
    pub(crate) const fn of(v6: bool) -> Self {
        if v6 { V6 } else { V4 }
    }

    /// Every address that somebody may talk about.
    pub(crate) fn everybody(&self) -> [Addr; 14] {
        let Self { endpoints: [a, b, c], gateways: [d, e], prefix_len: _, .. } = *self;
        let Self { host, second, peer, www, stray, nobody, multicast, loopback, .. } = *self;
        [www, peer, host, a, b, c, d, second, e, stray, nobody, multicast, loopback, www.any_of_family()]
    }
}

/// What is published, of one family: every address of the host unless another is named.
const PUBLISHED: [(Proto, u16, u8, usize, u16); 7] = [
    (Proto::TCP, 8088, 16, 0, 80),
    (Proto::UDP, 5353, 16, 1, 53),
    // On another network.
    (Proto::TCP, 8090, 16, 2, 80),
    // A port that masquerade may use.
    (Proto::UDP, 49_153, 16, 2, 49_152),
    // Sixteen, with an exception.
    (Proto::TCP, 8192, 12, 0, 7000),
    (Proto::TCP, 8200, 16, 1, 22),
    (Proto::SCTP, 9000, 16, 0, 9000),
];

/// Ports that packets may have.
pub(crate) const PORTS: [u16; 16] =
    [8088, 80, 49_152, 5353, 53, 49_153, 8090, 49_154, 8200, 8195, 22, 7003, 9000, 1000, 443, 49_159];

pub(crate) const ENDPOINT_ZONES: [Zone; 3] = [Zone { id: 1 }, Zone { id: 1 }, Zone { id: 2 }];

/// The host-side end of an endpoint's veth pair.
pub(crate) const fn ifindex_of(endpoint: usize) -> u32 {
    31 + endpoint as u32
}

/// The bridge of a network, or what it has instead.
pub(crate) const fn bridge_of(zone: Zone) -> u32 {
    20 + zone.id as u32
}

pub(crate) const fn mac_of(endpoint: usize) -> Mac {
    Mac::new([2, 0, 0, 0, 1, endpoint as u8])
}

/// The tables, and what may happen to them.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) model: Model,
    /// Whether entries are evicted now and then.
    pub(crate) evicts: bool,
}

impl World {
    pub(crate) fn choose(input: &mut Input<'_>) -> Self {
        let [networks, nat, room, rest] = [input.byte(), input.byte(), input.byte(), input.byte()];
        let bit = |byte: u8, bit: u8| byte >> bit & 1 != 0;
        let mut model = Model::default();
        model.config.nat_ports =
            PortRange { first: 49_152, last: 49_151 + [16_384, 1, 2, 8][usize::from(room & 3)] };
        model.config.endpoint_flows = [65_536, 0, 1, 3][usize::from(room >> 4 & 3)];
        model.config.unanswered = [8_192, 0, 1, 5][usize::from(room >> 6)];
        model.config.port_blocks = 1 << 12;
        model.config.hold = HOLD;
        if bit(rest, 0) {
            model.config.flags |= DatapathConfig::FLAG_RESPECT_FIREWALL;
        }
        model.slot_count = [1_024, 1, 3, 10][usize::from(room >> 2 & 3)];
        let unbridged = if bit(rest, 7) { NetworkValue::FLAG_UNBRIDGED } else { 0 };
        let flags =
            [network_flags(networks & 3, networks >> 4), network_flags(networks >> 2 & 3, networks >> 6)]
                .map(|flags| flags | unbridged);
        for family in [V4, V6] {
            add_networks(&mut model, &family, flags);
            add_endpoints(&mut model, &family, flags, (nat, bit(rest, 5)));
            add_host(&mut model, &family);
            add_published(&mut model, &family, bit(rest, 1));
            add_exceptions(&mut model, &family, nat >> 4);
            if bit(rest, 2) {
                for proto in [Proto::TCP, Proto::UDP] {
                    let (sport, dport) = (Port::new(80), Port::new(49_152));
                    let (src, dst) = (family.www, family.host);
                    let zone = Zone::WORLD;
                    model.host_sockets.insert(Tuple { src, dst, sport, dport, zone, proto, reserved: 0 });
                }
            }
        }
        let [v4, v6] = if bit(rest, 4) { [Addr::ANY_V4, Addr::ANY_V6] } else { [V4.host, V6.host] };
        model.uplinks.insert(UPLINK, UplinkValue { v4, v6 });
        if bit(rest, 6) {
            model.routes.iter_mut().for_each(|route| route.source = route.source.any_of_family());
        }
        Self { model, evicts: bit(rest, 3) }
    }
}

/// A network's flags: its gateway mode, or that it is the usual one without a bridge; then whether it is isolated and
/// internal.
fn network_flags(mode: u8, others: u8) -> u8 {
    let modes = [0, NetworkValue::FLAG_UNPROTECTED, NetworkValue::FLAG_ROUTED, NetworkValue::FLAG_UNBRIDGED];
    let mode = modes[usize::from(mode)];
    let isolated = if others & 1 != 0 { NetworkValue::FLAG_ISOLATED } else { 0 };
    let internal = if others & 2 != 0 { NetworkValue::FLAG_INTERNAL } else { 0 };
    mode | isolated | internal
}

fn network_prefix(family: &Family, network: usize) -> PrefixKey {
    let mut addr = family.gateways[network];
    addr.bytes[15] = 0;
    PrefixKey { prefix_len: u32::from(family.prefix_len), addr }
}

fn add_networks(model: &mut Model, family: &Family, flags: [u8; 2]) {
    for (network, gateway) in family.gateways.into_iter().enumerate() {
        let zone = Zone { id: network as u16 + 1 };
        let prefix = network_prefix(family, network);
        let value =
            NetworkValue { bridge: bridge_of(zone), zone, flags: flags[network], reserved: 0, gateway };
        model.networks.insert(prefix, value);
        model.masquerade.insert(prefix, MasqueradeValue { to: gateway.any_of_family(), flags: 0 });
        model.host_addresses.insert(gateway, HostAddressValue { ifindex: bridge_of(zone) });
    }
}

fn add_endpoints(model: &mut Model, family: &Family, flags: [u8; 2], (nat, narrow): (u8, bool)) {
    for (number, addr) in family.endpoints.into_iter().enumerate() {
        let zone = ENDPOINT_ZONES[number];
        let value = EndpointValue {
            ifindex: ifindex_of(number),
            bridge: bridge_of(zone),
            mac: mac_of(number),
            gateway_mac: Mac::new([2, 0, 0, 0, 2, zone.id as u8]),
            zone,
            mtu: if narrow { 100 } else { 1500 },
            prefix_len: family.prefix_len,
            flags: flags[usize::from(zone.id) - 1],
            mapping: nat & 3,
            filtering: [ADDRESS_AND_PORT, ADDRESS, ENDPOINT_INDEPENDENT, ADDRESS][usize::from(nat >> 2 & 3)],
        };
        model.endpoints.insert(addr, value);
        if !addr.is_v4() {
            let mut link_local = addr;
            link_local.bytes[..8].copy_from_slice(&[0xfe, 0x80, 0, 0, 0, 0, 0, 0]);
            model.endpoints.insert(link_local, EndpointValue { prefix_len: 64, ..value });
        }
    }
}

fn add_host(model: &mut Model, family: &Family) {
    for addr in [family.host, family.second] {
        model.host_addresses.insert(addr, HostAddressValue { ifindex: UPLINK });
    }
    let any = family.host.any_of_family();
    let everywhere = PrefixKey { prefix_len: if any.is_v4() { 96 } else { 0 }, addr: any };
    let to_peer = NextHop { ifindex: UPLINK, addr: family.peer };
    let astray = NextHop { ifindex: STRAY, addr: any };
    model.routes.extend([
        ModelRoute { prefix: everywhere, next_hop: to_peer, source: family.host, mtu: 1500 },
        ModelRoute {
            prefix: PrefixKey::host(family.stray),
            next_hop: astray,
            source: family.host,
            mtu: 1500,
        },
    ]);
}

fn add_published(model: &mut Model, family: &Family, restricted: bool) {
    for (number, (proto, port, prefix_len, target, target_port)) in PUBLISHED.into_iter().enumerate() {
        let key = PortMapKey { addr: family.host.any_of_family(), port: Port::new(port), proto, prefix_len };
        let id = number as u32 + 1;
        let restricted = restricted && number == 0;
        let value = PortMapValue {
            addr: family.endpoints[target],
            port: Port::new(target_port),
            zone: ENDPOINT_ZONES[target],
            id,
            flags: if restricted { PortMapValue::FLAG_RESTRICTED } else { 0 },
        };
        model.port_map.insert(key, value);
        if restricted {
            model.allow_from.insert((id, PrefixKey::host(family.www)), 0);
        }
        // The first also on one address alone, for somebody else; and on an endpoint's own.
        if number == 0 {
            let other = PortMapValue { addr: family.endpoints[1], zone: ENDPOINT_ZONES[1], id: 100, ..value };
            model.port_map.insert(PortMapKey { addr: family.second, ..key }, other);
            let port = Port::new(target_port);
            let own = PortMapKey { addr: family.endpoints[target], port, ..key };
            model.port_map.insert(own, PortMapValue { id: 101, ..value });
        }
    }
}

/// Sources and destinations that are treated unlike the rest.
fn add_exceptions(model: &mut Model, family: &Family, which: u8) {
    if which & 1 != 0 {
        let exempt = MasqueradeValue { to: family.host.any_of_family(), flags: MasqueradeValue::FLAG_EXEMPT };
        model.masquerade.insert(network_prefix(family, 1), exempt);
    }
    if which & 2 != 0 {
        model.unmasqueraded.insert(PrefixKey::host(family.www), 0);
    }
    let own = PrefixKey::host(family.endpoints[1]);
    if which & 4 != 0 {
        let value = FloatingValue { addr: family.endpoints[1], zone: ENDPOINT_ZONES[1], reserved: [0; 2] };
        model.floating.insert(family.second, value);
        let value = MasqueradeValue { to: family.second, flags: MasqueradeValue::FLAG_ONE_TO_ONE };
        model.masquerade.insert(own, value);
    } else if which & 8 != 0 {
        model.masquerade.insert(own, MasqueradeValue { to: family.second, flags: 0 });
    }
    if which & 12 == 12 {
        model.masquerade.remove(&network_prefix(family, 0));
    }
}
