//! Random traffic: what endpoints and the world might send, sensible and not.
//!
//! Most packets make sense, for some two thirds belong to flows that have begun earlier; a few lie about who they
//! are. [`Traffic::draw`] then flips bits of a quarter of the frames and cuts an eighth of them short.

use std::net::{IpAddr, SocketAddr};

use vnet_common::{Hook, Mac, Proto, Tuple, Zone};

use super::world::{
    BRIDGE, ENDPOINTS, Endpoint, FAMILIES, Family, HOST_MAC, NET1, OTHER_BRIDGE, PEER_MAC, STRAY, UPLINK, V4,
    V6, at, published,
};
use crate::frame::{DESTINATION_OPTIONS, Frame, HOP_BY_HOP, IcmpError, ROUTING};

/// Repeatable chance: splitmix64.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The sequence that belongs to a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub const fn below(&mut self, bound: usize) -> usize {
        ((self.word() as u128 * bound as u128) >> 64) as usize
    }

    /// True once in `n` times.
    pub const fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.word() as u8).collect()
    }
}

/// A frame and where it is met.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The hook.
    pub hook: Hook,
    /// The interface whose hook it is.
    pub ifindex: u32,
    /// The interface on which the host received it.
    pub came_in_by: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Random traffic.
#[derive(Clone, Debug)]
pub struct Traffic {
    chance: Chance,
    hooks: &'static [Hook],
    /// Tuples as which packets of a flow arrive.
    known: Vec<Tuple>,
}

/// Tuples that traffic remembers: enough for hits, few enough for repeated ones.
const MEMORY: usize = 400;
/// Bytes of a frame that no runner refuses.
const LARGEST_PAYLOAD: usize = 1600;

impl Traffic {
    /// Traffic that meets these hooks.
    #[must_use]
    pub const fn new(seed: u64, hooks: &'static [Hook]) -> Self {
        Self { chance: Chance::new(seed), hooks, known: Vec::new() }
    }

    /// The chance that everything is drawn from.
    pub const fn chance(&mut self) -> &mut Chance {
        &mut self.chance
    }

    /// Notes that a flow began, so that packets of both its directions follow.
    pub fn began(&mut self, tuple: &Tuple, translated: &Tuple) {
        for tuple in [*tuple, translated.answer()] {
            if self.known.len() < MEMORY {
                self.known.push(tuple);
            } else {
                let forgotten = self.chance.below(MEMORY);
                self.known[forgotten] = tuple;
            }
        }
    }

    /// Forgets all flows.
    pub fn forget(&mut self) {
        self.known.clear();
    }

    /// A tuple of a flow that began, if any did.
    pub fn known(&mut self) -> Option<Tuple> {
        (!self.known.is_empty()).then(|| self.chance.pick(&self.known))
    }

    /// The next packet.
    pub fn draw(&mut self) -> Packet {
        let tracked = if self.chance.below(3) > 0 { self.known() } else { None };
        let mut packet = match tracked {
            Some(tuple) => self.of_flow(&tuple),
            None => match self.chance.pick(self.hooks) {
                Hook::FromEndpoint => self.sent_by_endpoint(),
                Hook::FromUplink => self.received_by_uplink(),
                Hook::ToUplink => self.leaving_by_uplink(),
                hook @ (Hook::ToBridge | Hook::ToNetwork) => self.entering(hook),
                Hook::FromHold | Hook::XdpUplink | Hook::Shape => unreachable!("nobody sends there"),
            },
        };
        if self.chance.one_in(4) {
            for _ in 0..=self.chance.below(3) {
                let at = self.chance.below(packet.bytes.len());
                packet.bytes[at] ^= 1 << self.chance.below(8);
            }
        }
        if self.chance.one_in(8) {
            packet.bytes.truncate(self.chance.below(packet.bytes.len()));
        }
        packet
    }

    /// A packet with the tuple of a flow.
    fn of_flow(&mut self, tuple: &Tuple) -> Packet {
        let from = at(tuple.src.into(), tuple.sport.number());
        let to = at(tuple.dst.into(), tuple.dport.number());
        let frame = match tuple.proto {
            Proto::TCP => self.tcp(from, to),
            Proto::UDP => self.udp(from, to),
            _ if self.chance.one_in(2) => Frame::echo_request(from.ip(), to.ip(), to.port(), 1),
            _ => Frame::echo_reply(from.ip(), to.ip(), to.port(), 1),
        };
        let frame = if self.chance.one_in(5) { self.piece(frame) } else { frame };
        let frame = if self.chance.one_in(8) { self.complaint(tuple, &frame) } else { frame };
        if tuple.zone == Zone::WORLD {
            return self.arriving(frame);
        }
        let owner =
            ENDPOINTS.into_iter().find(|endpoint| endpoint.addrs.contains(&from.ip())).unwrap_or(NET1);
        if self.hooks.contains(&Hook::ToUplink) && self.chance.one_in(10) {
            return self.leaving(owner.bridge, frame);
        }
        self.sent_by(owner, frame)
    }

    /// An error about the packet that one of a flow answers, more or less whole.
    fn complaint(&mut self, tuple: &Tuple, answer: &Frame) -> Frame {
        let (from, to) = (tuple.src.into(), tuple.dst.into());
        let router = if tuple.zone == Zone::WORLD { Family::of(to).peer } else { from };
        let asked = at(to, tuple.dport.number());
        let offender = match tuple.proto {
            Proto::TCP => self.tcp(asked, at(from, tuple.sport.number())),
            Proto::UDP => self.udp(asked, at(from, tuple.sport.number())),
            _ if self.chance.one_in(2) => Frame::echo_request(to, from, tuple.dport.number(), 1),
            _ => answer.clone(),
        };
        let error = self.chance.pick(&[
            IcmpError::PortUnreachable,
            IcmpError::HostUnreachable,
            IcmpError::TooBig { mtu: 1300 },
            IcmpError::TimeExceeded,
        ]);
        let frame = Frame::icmp_error(router, to, error, &offender);
        let frame = if self.chance.one_in(3) {
            let quoted = offender.network_bytes();
            frame.payload(&quoted[..quoted.len().min(20 + self.chance.below(60))])
        } else {
            frame
        };
        self.dressed(frame)
    }

    fn sent_by_endpoint(&mut self) -> Packet {
        let sender = self.chance.pick(&ENDPOINTS);
        let family = self.family();
        if self.chance.one_in(12) {
            return self.neighbour_message(sender);
        }
        let own = sender.addrs[usize::from(family.net1.is_ipv6())];
        let from = match self.chance.below(20) {
            0 => self.anybody(&family),
            1 if family.net1.is_ipv6() => sender.addrs[2],
            _ => own,
        };
        let to = match self.chance.below(10) {
            0..=4 => self.chance.pick(&[family.www, family.peer]),
            5 | 6 => self.chance.pick(&[family.host, family.gateway]),
            7 => self.chance.pick(&[family.net1, family.net2, family.net3]),
            _ => self.anybody(&family),
        };
        let frame = self.packet(from, to);
        self.sent_by(sender, frame)
    }

    fn received_by_uplink(&mut self) -> Packet {
        let family = self.family();
        let from = match self.chance.below(10) {
            0 => self.anybody(&family),
            _ => self.chance.pick(&[family.www, family.peer]),
        };
        let to = match self.chance.below(10) {
            0..=6 => family.host,
            7 => family.gateway,
            _ => self.anybody(&family),
        };
        let frame = self.packet(from, to);
        self.arriving(frame)
    }

    fn leaving_by_uplink(&mut self) -> Packet {
        let family = self.family();
        let from = match self.chance.below(5) {
            0 => self.anybody(&family),
            _ => self.chance.pick(&[family.net1, family.net2, family.net3]),
        };
        let frame = self.packet(from, family.www);
        let bridge = self.chance.pick(&[BRIDGE, BRIDGE, OTHER_BRIDGE, UPLINK, 0]);
        self.leaving(bridge, frame)
    }

    fn entering(&mut self, hook: Hook) -> Packet {
        let family = self.family();
        let from = self.anybody(&family);
        let to = self.chance.pick(&[family.net1, family.net2, family.nobody]);
        let bytes = self.packet(from, to).macs(HOST_MAC, PEER_MAC).build();
        let came_in_by = self.chance.pick(&[STRAY, STRAY, UPLINK, BRIDGE, OTHER_BRIDGE, 0]);
        Packet { hook, ifindex: BRIDGE, came_in_by, bytes }
    }

    fn sent_by(&mut self, sender: Endpoint, frame: Frame) -> Packet {
        let mac = if self.chance.one_in(40) { PEER_MAC } else { sender.mac };
        let ifindex =
            if self.chance.one_in(40) { self.chance.pick(&ENDPOINTS).ifindex } else { sender.ifindex };
        let bytes = frame.macs(mac, sender.gateway_mac).build();
        Packet { hook: Hook::FromEndpoint, ifindex, came_in_by: 0, bytes }
    }

    fn arriving(&self, frame: Frame) -> Packet {
        let bytes = frame.macs(PEER_MAC, HOST_MAC).build();
        Packet { hook: Hook::FromUplink, ifindex: UPLINK, came_in_by: 0, bytes }
    }

    fn leaving(&self, came_in_by: u32, frame: Frame) -> Packet {
        let bytes = frame.macs(HOST_MAC, PEER_MAC).build();
        Packet { hook: Hook::ToUplink, ifindex: UPLINK, came_in_by, bytes }
    }

    fn family(&mut self) -> Family {
        self.chance.pick(&FAMILIES)
    }

    /// Any address there is, some of which nobody should use.
    fn anybody(&mut self, f: &Family) -> IpAddr {
        self.chance.pick(&[
            f.net1,
            f.net2,
            f.net3,
            f.gateway,
            f.other_gateway,
            f.nobody,
            f.host,
            f.peer,
            f.www,
            f.stray,
            f.multicast,
            f.loopback,
        ])
    }

    /// A packet of some protocol between two addresses.
    fn packet(&mut self, from: IpAddr, to: IpAddr) -> Frame {
        let (from, to) = (at(from, self.source_port()), at(to, self.destination_port()));
        match self.chance.below(20) {
            0..=6 => self.tcp(from, to),
            7..=13 => self.udp(from, to),
            14 | 15 => {
                let id = self.source_port();
                self.dressed(Frame::echo_request(from.ip(), to.ip(), id, 1))
            }
            16 => Frame::icmp(
                from.ip(),
                to.ip(),
                self.chance.pick(&[0, 3, 8, 11, 128, 129, 133, 134, 135, 136, 137]),
                0,
            )
            .payload(&self.chance.bytes(24)),
            17 => {
                let offender = self.udp(to, from);
                Frame::icmp_error(from.ip(), to.ip(), IcmpError::PortUnreachable, &offender)
            }
            18 => {
                let any = self.chance.word() as u8;
                let protocol = self.chance.pick(&[any, Proto::SCTP.number]);
                Frame::protocol(from.ip(), to.ip(), protocol).payload(&self.chance.bytes(40))
            }
            _ => {
                let frame = self.udp(from, to);
                self.piece(frame)
            }
        }
    }

    /// A piece of a datagram, of which others may have come or may follow.
    fn piece(&mut self, frame: Frame) -> Frame {
        let payload = vec![7; 8 * (1 + self.chance.below(4)) + self.chance.pick(&[0, 0, 0, 0, 4])];
        let offset = 8 * self.chance.pick(&[0, 0, 0, 1, 2, 3, 5]);
        frame.payload(&payload).id(self.chance.below(2) as u16).fragment(offset, !self.chance.one_in(3))
    }

    fn tcp(&mut self, from: SocketAddr, to: SocketAddr) -> Frame {
        let frame = Frame::tcp(from, to);
        let frame = match self.chance.below(12) {
            0..=4 => frame.syn(),
            5 => frame.syn().ack(),
            6 => frame.fin().ack(),
            7 => frame.rst(),
            _ => frame.ack(),
        };
        let frame = if self.chance.one_in(3) { frame.tcp_options(&self.chance.bytes(12)) } else { frame };
        let payload = self.payload();
        self.dressed(frame.payload(&payload))
    }

    fn udp(&mut self, from: SocketAddr, to: SocketAddr) -> Frame {
        let payload = self.payload();
        let frame = Frame::udp(from, to).payload(&payload);
        let frame = if self.chance.one_in(10) { frame.zero_udp_checksum() } else { frame };
        self.dressed(frame)
    }

    fn payload(&mut self) -> Vec<u8> {
        let length =
            if self.chance.one_in(12) { self.chance.below(LARGEST_PAYLOAD) } else { self.chance.below(32) };
        self.chance.bytes(length)
    }

    /// With hop limits, options and tags that packets may have.
    fn dressed(&mut self, frame: Frame) -> Frame {
        let v4 = frame.build()[14] >> 4 == 4;
        let frame = frame.ttl(self.chance.pick(&[64, 64, 64, 64, 255, 3, 2, 1, 0]));
        match self.chance.below(25) {
            4 | 5 => frame.may_fragment(),
            0 => frame.vlan(5),
            1 => frame.trailer(&self.chance.bytes(13)),
            2 | 3 if v4 => {
                let length = 4 + self.chance.below(37);
                frame.ip_options(&self.chance.bytes(length))
            }
            2 | 3 => (0..=self.chance.below(4)).fold(frame, |frame, _| {
                let number = self.chance.pick(&[HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS]);
                let length = self.chance.below(20);
                frame.ext_header(number, &self.chance.bytes(length))
            }),
            _ => frame,
        }
    }

    fn neighbour_message(&mut self, sender: Endpoint) -> Packet {
        let [v4, v6, link_local] = sender.addrs;
        let claimed = self.family();
        let (v4_claimed, v6_claimed) = match self.chance.below(3) {
            0 => (V4.net2, V6.net2),
            1 => (V4.gateway, V6.gateway),
            _ => (v4, v6),
        };
        let (mac, own) = (sender.mac, sender.gateway_mac);
        let frame = match self.chance.below(7) {
            0 => Frame::arp_request(mac, v4_claimed, self.chance.pick(&[V4.gateway, V4.net2, V4.net3])),
            1 => Frame::arp_reply(mac, v4_claimed, own, V4.gateway),
            2 => Frame::neighbour_solicitation(mac, v6, self.chance.pick(&[V6.gateway, V6.net2, V6.net3])),
            3 => Frame::neighbour_advertisement(mac, v6, V6.gateway, v6_claimed),
            4 => Frame::router_advertisement(mac, link_local),
            5 => Frame::udp(at(claimed.net1, 1), at(claimed.multicast, published::DNS.port))
                .macs(mac, Mac::new([0xff; 6])),
            _ => Frame::raw(self.chance.pick(&[0x88cc, 0x0026, 0x8863]), &self.chance.bytes(46)),
        };
        Packet { hook: Hook::FromEndpoint, ifindex: sender.ifindex, came_in_by: 0, bytes: frame.build() }
    }

    /// Mostly one that masquerade may keep.
    fn source_port(&mut self) -> u16 {
        if self.chance.one_in(5) {
            self.chance.pick(&[80, 1024, 5353, 40_000])
        } else {
            49_152 + self.chance.below(64) as u16
        }
    }

    /// Mostly one that is published, or that a server of the world has.
    fn destination_port(&mut self) -> u16 {
        match self.chance.below(4) {
            0 => self.chance.pick(&[53, 80, 443, 7000]),
            1 => published::BLOCK.port + self.chance.below(20) as u16 - 2,
            2 => 49_152 + self.chance.below(64) as u16,
            _ => self.chance.pick(&published::ALL).port,
        }
    }
}
