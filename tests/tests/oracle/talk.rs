//! Who says what: random packets, most of which belong to a conversation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use vnet_tests::case::random::Chance;
use vnet_tests::frame::Frame;

/// Where packets are sent and where they arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Outside = 0,
    Net1 = 1,
    Net2 = 2,
}

/// The ends of a packet; of an echo, the identifier is both ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ends {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
}

impl Ends {
    pub(crate) const fn reversed(self) -> Self {
        Self { from: self.to, to: self.from }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
    Echo,
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(b: u16, c: u16, d: u16, low: u16) -> IpAddr {
    let first = if b == 7 { 0xfd00 } else { 0x2001 };
    IpAddr::V6(Ipv6Addr::new(first, b, c, d, 0, 0, 0, low))
}

/// The host on its uplink, in both families.
pub(crate) const HOST: [IpAddr; 2] = [v4(203, 0, 113, 1), v6(0xdb8, 0x113, 0, 1)];
/// The host on the endpoints' network.
pub(crate) const GATEWAY: [IpAddr; 2] = [v4(192, 168, 0, 1), v6(7, 0, 0, 1)];
/// Outsiders: two on the uplink's own network, one beyond.
const OUTSIDERS: [[IpAddr; 2]; 3] = [
    [v4(203, 0, 113, 2), v6(0xdb8, 0x113, 0, 2)],
    [v4(203, 0, 113, 3), v6(0xdb8, 0x113, 0, 3)],
    [v4(198, 51, 100, 7), v6(0xdb8, 0x80, 0, 7)],
];
const NET1: [IpAddr; 2] = [v4(192, 168, 0, 2), v6(7, 0, 0, 2)];
const NET2: [IpAddr; 2] = [v4(192, 168, 0, 3), v6(7, 0, 0, 3)];

/// The addresses that the host finds at a place without asking a router.
pub(crate) const fn own_addresses(place: Place) -> &'static [IpAddr] {
    const OUTSIDE: [IpAddr; 4] = [OUTSIDERS[0][0], OUTSIDERS[0][1], OUTSIDERS[1][0], OUTSIDERS[1][1]];
    match place {
        Place::Outside => &OUTSIDE,
        Place::Net1 => &NET1,
        Place::Net2 => &NET2,
    }
}

/// Whether an address belongs to a place.
pub(crate) fn is_at(place: Place, addr: IpAddr) -> bool {
    own_addresses(place).contains(&addr) || (place == Place::Outside && OUTSIDERS[2].contains(&addr))
}

/// Source ports of endpoints: some that masquerade keeps and some that it does not. None is published, so that the
/// ruleset, which keeps every port that it can, hides no published port from anybody.
const SOURCE_PORTS: [u16; 6] = [50_000, 50_001, 50_002, 1000, 2000, 3000];
const OUTSIDE_PORTS: [u16; 6] = [53, 80, 443, 5000, 40_000, 40_001];
/// Ports of the host: published ones, and some where nobody listens.
const HOST_PORTS: [u16; 4] = [8088, 5353, 7, 81];

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A packet to be sent, whose ends may differ between the twins.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) kind: Kind,
    pub(crate) place: Place,
    pub(crate) transport: Transport,
    pub(crate) ends: [Ends; 2],
    flags: u8,
    is_reply: bool,
    pub(crate) ttl: u8,
    payload: usize,
    dress: Dress,
}

/// Why a packet is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To somebody, whether or not there is a conversation already.
    Fresh,
    /// By the opener of a conversation.
    Opener(usize),
    /// By the other side.
    Answer(usize),
    /// By an outsider to the external port of a conversation that is not theirs.
    Stranger(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dress {
    Plain,
    /// Options that do nothing (IPv4).
    Options,
    /// No checksum (UDP over IPv4).
    NoSum,
    /// A wrong one.
    WrongSum,
}

impl Packet {
    pub(crate) fn frame(&self, twin: usize) -> Frame {
        let Ends { from, to } = self.ends[twin];
        let frame = match self.transport {
            Transport::Tcp => flagged(Frame::tcp(from, to), self.flags),
            Transport::Udp => Frame::udp(from, to),
            Transport::Echo if self.is_reply => Frame::echo_reply(from.ip(), to.ip(), from.port(), 1),
            Transport::Echo => Frame::echo_request(from.ip(), to.ip(), from.port(), 1),
        };
        let frame = frame.ttl(self.ttl).payload(&vec![0x5a; self.payload]);
        let (v4, header) = (from.is_ipv4(), if from.is_ipv4() { 34 } else { 54 });
        match (self.dress, self.transport) {
            (Dress::Options, _) if v4 => frame.ip_options(&[1, 1, 1, 1]),
            (Dress::NoSum, Transport::Udp) if v4 => frame.zero_udp_checksum(),
            (Dress::WrongSum, Transport::Tcp) => frame.flip(header + 4),
            (Dress::WrongSum, Transport::Echo) => frame.flip(header + 6),
            (Dress::WrongSum, Transport::Udp) if self.payload > 0 => frame.flip(header + 8),
            _ => frame,
        }
    }

    pub(crate) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// A TCP segment that asks for a connection.
    pub(crate) fn opens(&self) -> bool {
        self.transport == Transport::Tcp && self.has(SYN) && !self.has(ACK)
    }

    pub(crate) fn has_wrong_sum(&self) -> bool {
        self.dress == Dress::WrongSum
    }

    pub(crate) fn resets(&self) -> bool {
        self.transport == Transport::Tcp && self.has(RST)
    }

    pub(crate) fn closes(&self) -> bool {
        self.transport == Transport::Tcp && self.has(FIN)
    }
}

fn flagged(frame: Frame, flags: u8) -> Frame {
    let frame = if flags & SYN != 0 { frame.syn() } else { frame };
    let frame = if flags & ACK != 0 { frame.ack() } else { frame };
    let frame = if flags & FIN != 0 { frame.fin() } else { frame };
    if flags & RST != 0 { frame.rst() } else { frame }
}

/// Two ends that talk through the host, which both twins translate.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    pub(crate) transport: Transport,
    pub(crate) opener: Place,
    pub(crate) receiver: Place,
    /// As the opener sends.
    pub(crate) near: Ends,
    /// As the receiver sees it, of each twin.
    pub(crate) far: [Ends; 2],
    /// A FIN or RST has passed, and for connection tracking not every SYN begins it anew.
    pub(crate) closed: bool,
    /// A RST has passed, after which connection tracking may have forgotten it: the next packet of the opener begins
    /// it anew.
    pub(crate) reset: bool,
}

/// Draws the next packet.
pub(crate) fn draw(chance: &mut Chance, talk: &[Conversation]) -> Packet {
    let mut packet = match chance.below(100) {
        0..=29 => None,
        30..=59 => continued(chance, talk, Conversation::said),
        60..=91 => continued(chance, talk, Conversation::answered),
        _ => strange(chance, talk),
    }
    .unwrap_or_else(|| fresh(chance));
    packet.ttl = chance.pick(&[64, 64, 64, 64, 64, 64, 64, 255, 2, 1]);
    packet.payload = chance.pick(&[0, 0, 1, 8, 100, 1400]);
    packet.dress = match chance.below(40) {
        0 => Dress::Options,
        1 => Dress::NoSum,
        2 => Dress::WrongSum,
        _ => Dress::Plain,
    };
    packet
}

fn plain(kind: Kind, place: Place, transport: Transport, ends: [Ends; 2]) -> Packet {
    Packet {
        kind,
        place,
        transport,
        ends,
        flags: 0,
        is_reply: false,
        ttl: 64,
        payload: 0,
        dress: Dress::Plain,
    }
}

fn fresh(chance: &mut Chance) -> Packet {
    let family = chance.below(2);
    let transport =
        chance.pick(&[Transport::Tcp, Transport::Tcp, Transport::Udp, Transport::Udp, Transport::Echo]);
    let place = chance.pick(&[Place::Outside, Place::Net1, Place::Net2]);
    let outsider = chance.pick(&OUTSIDERS)[family];
    let inside = chance.pick(&[NET1, NET2])[family];
    let of_host = chance.pick(&[HOST, HOST, GATEWAY])[family];
    let (from, to) = match (place, chance.below(8)) {
        // Nobody outside may address an endpoint directly.
        (Place::Outside, 0) => (outsider, inside),
        (Place::Outside, _) => (outsider, of_host),
        (_, 0..=2) => (own_addresses(place)[family], of_host),
        _ => (own_addresses(place)[family], outsider),
    };
    let sport =
        if place == Place::Outside { chance.pick(&OUTSIDE_PORTS) } else { chance.pick(&SOURCE_PORTS) };
    let dport = if to == outsider { chance.pick(&OUTSIDE_PORTS) } else { chance.pick(&HOST_PORTS) };
    let dport = if transport == Transport::Echo { sport } else { dport };
    let ends = Ends { from: SocketAddr::new(from, sport), to: SocketAddr::new(to, dport) };
    let mut packet = plain(Kind::Fresh, place, transport, [ends; 2]);
    packet.flags = if chance.one_in(4) { any_flags(chance) } else { SYN };
    packet.is_reply = chance.one_in(10);
    packet
}

fn any_flags(chance: &mut Chance) -> u8 {
    chance.pick(&[ACK, ACK, SYN, SYN | ACK, FIN | ACK, RST, RST | ACK, 0, FIN, SYN | FIN, SYN | RST])
}

fn continued(
    chance: &mut Chance,
    talk: &[Conversation],
    say: fn(&Conversation, &mut Chance, usize) -> Option<Packet>,
) -> Option<Packet> {
    let which = chance.below(talk.len().max(1));
    say(talk.get(which)?, chance, which)
}

impl Conversation {
    fn said(&self, chance: &mut Chance, which: usize) -> Option<Packet> {
        let mut packet = plain(Kind::Opener(which), self.opener, self.transport, [self.near; 2]);
        let flags = chance.pick(&[ACK, ACK, ACK, ACK, ACK, FIN | ACK, SYN]);
        packet.flags = if chance.one_in(15) { any_flags(chance) } else { flags };
        Some(packet)
    }

    fn answered(&self, chance: &mut Chance, which: usize) -> Option<Packet> {
        if self.reset {
            return None;
        }
        let ends = self.far.map(Ends::reversed);
        let mut packet = plain(Kind::Answer(which), self.receiver, self.transport, ends);
        packet.is_reply = true;
        let flags = chance.pick(&[SYN | ACK, SYN | ACK, ACK, ACK, ACK, FIN | ACK]);
        packet.flags = if chance.one_in(15) { any_flags(chance) } else { flags };
        if self.closed && packet.opens() {
            // Connection tracking takes it for a new connection the other way, to the host itself.
            packet.flags |= ACK;
        }
        Some(packet)
    }
}

/// Somebody outside knocks at the external port of an endpoint's conversation.
fn strange(chance: &mut Chance, talk: &[Conversation]) -> Option<Packet> {
    let outwards = |it: &Conversation| it.receiver == Place::Outside && it.transport != Transport::Echo;
    let outwards: Vec<usize> =
        (0..talk.len()).filter(|at| outwards(&talk[*at]) && !talk[*at].reset).collect();
    let which = *outwards.get(chance.below(outwards.len().max(1)))?;
    let Conversation { transport, near, far, .. } = &talk[which];
    let family = usize::from(near.from.is_ipv6());
    let anybody = chance.pick(&OUTSIDERS)[family];
    let stranger = chance.pick(&[near.to.ip(), anybody]);
    let from = |twin: usize| {
        // From a port that nobody else talks from.
        Ends { from: SocketAddr::new(stranger, 61_000), to: far[twin].from }
    };
    let mut packet = plain(Kind::Stranger(which), Place::Outside, *transport, [from(0), from(1)]);
    packet.flags = SYN;
    Some(packet)
}
