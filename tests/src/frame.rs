//! Ethernet frames, written the way a test wants to read them.
//!
//! ```
//! use vnet_tests::frame::Frame;
//! let syn = Frame::tcp("192.168.0.2:1234".parse().unwrap(), "203.0.113.2:80".parse().unwrap()).syn();
//! assert_eq!(syn.to_string(), "IP 192.168.0.2.1234 > 203.0.113.2.80: Flags [S], seq 1000, win 64240, length 0");
//! Frame::verify(&syn.build()).unwrap();
//! ```
//!
//! A [`Frame`] is a description; [`Frame::build`] turns it into bytes with every length and checksum right.
//! What is deliberately wrong (a truncated header, a flipped bit) is said on top of that, so that a test shows
//! exactly what it breaks. [`Frame::verify`] and [`dissect`] read bytes without sharing a line with the builder
//! or with vnet, so that a mistake in one is not hidden by the same mistake in the other.

mod build;
pub mod dissect;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use vnet_common::Mac;

pub use dissect::describe;

/// Who sends, unless [`Frame::macs`] says otherwise.
pub const SOURCE_MAC: Mac = Mac::new([0x02, 0, 0, 0, 0, 0x0a]);
/// Who receives, unless [`Frame::macs`] says otherwise.
pub const DESTINATION_MAC: Mac = Mac::new([0x02, 0, 0, 0, 0, 0x0b]);
/// Everybody on the link.
pub const BROADCAST_MAC: Mac = Mac::new([0xff; 6]);

/// IPv6 hop-by-hop options, for [`Frame::ext_header`].
pub const HOP_BY_HOP: u8 = 0;
/// IPv6 routing header, for [`Frame::ext_header`].
pub const ROUTING: u8 = 43;
/// IPv6 destination options, for [`Frame::ext_header`].
pub const DESTINATION_OPTIONS: u8 = 60;

/// A frame to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Frame {
    source: Mac,
    destination: Mac,
    vlans: Vec<u16>,
    network: Network,
    trailer: Vec<u8>,
    flips: Vec<usize>,
    truncate: Option<usize>,
}

/// What follows the Ethernet header.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Network {
    Arp(Arp),
    Ip(Ip),
    Raw { ethertype: u16, bytes: Vec<u8> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Arp {
    operation: u16,
    sender_mac: Mac,
    sender: [u8; 4],
    target_mac: Mac,
    target: [u8; 4],
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Ip {
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    traffic_class: u8,
    id: u16,
    dont_fragment: bool,
    options: Vec<u8>,
    ext_headers: Vec<(u8, Vec<u8>)>,
    fragment: Option<Fragment>,
    jumbo: bool,
    transport: Transport,
    payload: Vec<u8>,
}

/// One piece of a datagram: where it stands, in bytes, and whether another follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fragment {
    offset: u16,
    more: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Transport {
    Tcp(Tcp),
    Udp { sport: u16, dport: u16, checksum: UdpChecksum },
    Icmp { kind: u8, code: u8, rest: [u8; 4] },
    Raw { protocol: u8 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Tcp {
    sport: u16,
    dport: u16,
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    options: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UdpChecksum {
    Computed,
    Absent,
}

/// What an ICMP error reports; each family says it in its own type and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Nobody listens on the port.
    PortUnreachable,
    /// No way to the host.
    HostUnreachable,
    /// The packet does not fit and must not be fragmented (IPv4), or does not fit (IPv6).
    TooBig {
        /// What would fit.
        mtu: u16,
    },
    /// The TTL or hop limit ran out on the way.
    TimeExceeded,
    /// It is not allowed.
    Prohibited,
    /// No way to the network.
    NetworkUnreachable,
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// What to say of a frame.
impl Frame {
    /// A TCP segment without flags: add [`Self::syn`], [`Self::ack`], [`Self::fin`] or [`Self::rst`].
    ///
    /// # Panics
    /// When the addresses are of different families, as for every constructor with two addresses.
    pub fn tcp(source: SocketAddr, destination: SocketAddr) -> Self {
        let tcp = Tcp {
            sport: source.port(),
            dport: destination.port(),
            seq: 1000,
            ack: 0,
            flags: 0,
            window: 64240,
            options: Vec::new(),
        };
        Self::ip(source.ip(), destination.ip(), Transport::Tcp(tcp))
    }

    /// A UDP datagram.
    pub fn udp(source: SocketAddr, destination: SocketAddr) -> Self {
        let udp = Transport::Udp {
            sport: source.port(),
            dport: destination.port(),
            checksum: UdpChecksum::Computed,
        };
        Self::ip(source.ip(), destination.ip(), udp)
    }

    /// An ICMP or ICMPv6 echo request.
    pub fn echo_request(source: IpAddr, destination: IpAddr, id: u16, seq: u16) -> Self {
        let kind = if source.is_ipv4() { 8 } else { 128 };
        Self::icmp(source, destination, kind, 0).icmp_rest(halves(id, seq))
    }

    /// An ICMP or ICMPv6 echo reply.
    pub fn echo_reply(source: IpAddr, destination: IpAddr, id: u16, seq: u16) -> Self {
        let kind = if source.is_ipv4() { 0 } else { 129 };
        Self::icmp(source, destination, kind, 0).icmp_rest(halves(id, seq))
    }

    /// An ICMP or ICMPv6 message of any type, its second word zero.
    pub fn icmp(source: IpAddr, destination: IpAddr, kind: u8, code: u8) -> Self {
        Self::ip(source, destination, Transport::Icmp { kind, code, rest: [0; 4] })
    }

    /// An ICMP error about `offender`, quoting as much of it as RFC 1812 (IPv4, 576 bytes in all) and RFC 4443
    /// (IPv6, 1280) allow.
    pub fn icmp_error(source: IpAddr, destination: IpAddr, error: IcmpError, offender: &Self) -> Self {
        Self::icmp_error_quoting((source, destination), error, &offender.network_bytes())
    }

    /// The same about the packet that these bytes are, from its network header on.
    pub fn icmp_error_quoting(
        (source, destination): (IpAddr, IpAddr),
        error: IcmpError,
        offender: &[u8],
    ) -> Self {
        let v4 = source.is_ipv4();
        let (kind, code, mtu) = match (error, v4) {
            (IcmpError::PortUnreachable, true) => (3, 3, 0),
            (IcmpError::PortUnreachable, false) => (1, 4, 0),
            (IcmpError::HostUnreachable, true) => (3, 1, 0),
            (IcmpError::HostUnreachable, false) => (1, 3, 0),
            (IcmpError::TooBig { mtu }, true) => (3, 4, mtu),
            (IcmpError::TooBig { mtu }, false) => (2, 0, mtu),
            (IcmpError::TimeExceeded, true) => (11, 0, 0),
            (IcmpError::TimeExceeded, false) => (3, 0, 0),
            (IcmpError::Prohibited, true) => (3, 13, 0),
            (IcmpError::Prohibited, false) => (1, 1, 0),
            (IcmpError::NetworkUnreachable, true) => (3, 0, 0),
            (IcmpError::NetworkUnreachable, false) => (1, 0, 0),
        };
        let most = if v4 { 576 - 28 } else { 1280 - 48 };
        let quoted = &offender[..offender.len().min(most)];
        Self::icmp(source, destination, kind, code).icmp_rest(halves(0, mtu)).payload(quoted)
    }

    /// An IP packet of a protocol that this builder does not know; its payload is all that follows the header.
    pub fn protocol(source: IpAddr, destination: IpAddr, protocol: u8) -> Self {
        Self::ip(source, destination, Transport::Raw { protocol })
    }

    /// "Who has `target`? Tell `sender`."
    ///
    /// # Panics
    /// When an address is not IPv4, as for [`Self::arp_reply`].
    pub fn arp_request(sender_mac: Mac, sender: IpAddr, target: IpAddr) -> Self {
        let arp = Arp {
            operation: 1,
            sender_mac,
            sender: v4(sender),
            target_mac: Mac::new([0; 6]),
            target: v4(target),
        };
        Self::with(Network::Arp(arp)).macs(sender_mac, BROADCAST_MAC)
    }

    /// "`sender` is at `sender_mac`", told to `target`.
    pub fn arp_reply(sender_mac: Mac, sender: IpAddr, target_mac: Mac, target: IpAddr) -> Self {
        let arp = Arp { operation: 2, sender_mac, sender: v4(sender), target_mac, target: v4(target) };
        Self::with(Network::Arp(arp)).macs(sender_mac, target_mac)
    }

    /// "Who has `target`?" of IPv6, sent to its solicited-node group.
    ///
    /// # Panics
    /// When an address is not IPv6, as for the other neighbour messages.
    pub fn neighbour_solicitation(sender_mac: Mac, sender: IpAddr, target: IpAddr) -> Self {
        let group = build::solicited_node(v6(target));
        let [.., a, b, c] = group.octets();
        Self::icmp(sender, IpAddr::V6(group), 135, 0)
            .ttl(255)
            .payload(&neighbour_body(target, 1, sender_mac))
            .macs(sender_mac, Mac::new([0x33, 0x33, 0xff, a, b, c]))
    }

    /// "`target` is at `sender_mac`" of IPv6, solicited and overriding.
    pub fn neighbour_advertisement(
        sender_mac: Mac,
        sender: IpAddr,
        destination: IpAddr,
        target: IpAddr,
    ) -> Self {
        Self::icmp(sender, destination, 136, 0)
            .icmp_rest([0x60, 0, 0, 0])
            .ttl(255)
            .payload(&neighbour_body(target, 2, sender_mac))
            .macs(sender_mac, DESTINATION_MAC)
    }

    /// A router advertisement to all nodes, with nothing but the sender's hardware address.
    pub fn router_advertisement(sender_mac: Mac, sender: IpAddr) -> Self {
        let mut body = vec![0; 8];
        body.extend([1, 1]);
        body.extend(sender_mac.bytes);
        Self::icmp(sender, "ff02::1".parse().expect("an address"), 134, 0)
            .icmp_rest([64, 0, 0x07, 0x08])
            .ttl(255)
            .payload(&body)
            .macs(sender_mac, Mac::new([0x33, 0x33, 0, 0, 0, 1]))
    }

    /// Any ethertype with any bytes behind it.
    pub fn raw(ethertype: u16, bytes: &[u8]) -> Self {
        Self::with(Network::Raw { ethertype, bytes: bytes.to_vec() })
    }

    /// Sets SYN.
    pub fn syn(self) -> Self {
        self.flag(SYN)
    }

    /// Sets ACK, acknowledging byte 2000 unless [`Self::seq_ack`] says otherwise.
    pub fn ack(self) -> Self {
        self.flag(ACK).change_tcp(|tcp| tcp.ack = 2000)
    }

    /// Sets FIN.
    pub fn fin(self) -> Self {
        self.flag(FIN)
    }

    /// Sets RST.
    pub fn rst(self) -> Self {
        self.flag(RST)
    }

    /// Sets PSH.
    pub fn psh(self) -> Self {
        self.flag(PSH)
    }

    /// Sets the sequence and acknowledgement numbers.
    pub fn seq_ack(self, seq: u32, ack: u32) -> Self {
        self.change_tcp(|tcp| (tcp.seq, tcp.ack) = (seq, ack))
    }

    /// Sets the window, unscaled.
    pub fn window(self, window: u16) -> Self {
        self.change_tcp(|tcp| tcp.window = window)
    }

    /// Adds TCP options, padded to whole words.
    pub fn tcp_options(self, options: &[u8]) -> Self {
        self.change_tcp(|tcp| tcp.options = padded(options, 4))
    }

    /// Sets what follows the transport header (after the second word of ICMP).
    pub fn payload(self, payload: &[u8]) -> Self {
        self.change_ip(|ip| ip.payload = payload.to_vec())
    }

    /// Sets the TTL or hop limit.
    pub fn ttl(self, ttl: u8) -> Self {
        self.change_ip(|ip| ip.ttl = ttl)
    }

    /// Sets DSCP and ECN: IPv4's type of service, IPv6's traffic class.
    pub fn traffic_class(self, class: u8) -> Self {
        self.change_ip(|ip| ip.traffic_class = class)
    }

    /// Sets the IPv4 identification, or that of an IPv6 fragment header.
    pub fn id(self, id: u16) -> Self {
        self.change_ip(|ip| ip.id = id)
    }

    /// Lets routers fragment the packet (IPv4): the bit `DF` is set otherwise.
    pub fn may_fragment(self) -> Self {
        self.change_ip(|ip| ip.dont_fragment = false)
    }

    /// Sets the source address.
    pub fn source(self, addr: IpAddr) -> Self {
        self.change_ip(|ip| ip.source = addr)
    }

    /// Sets source and destination hardware addresses.
    pub fn macs(mut self, source: Mac, destination: Mac) -> Self {
        (self.source, self.destination) = (source, destination);
        self
    }

    /// Adds IPv4 options, padded to whole words.
    ///
    /// # Panics
    /// When the packet is not IPv4 or there are more than 40 bytes.
    pub fn ip_options(self, options: &[u8]) -> Self {
        assert!(options.len() <= 40, "an IPv4 header holds 40 bytes of options");
        self.change_ip(|ip| {
            assert!(ip.source.is_ipv4(), "IPv6 has no options: use ext_header");
            ip.options = padded(options, 4);
        })
    }

    /// Adds an IPv6 extension header of number `number` with `body` behind its two fixed bytes, padded to a
    /// multiple of eight. The first one added stands first.
    ///
    /// # Panics
    /// When the packet is not IPv6.
    pub fn ext_header(self, number: u8, body: &[u8]) -> Self {
        self.change_ip(|ip| {
            assert!(ip.source.is_ipv6(), "IPv4 has no extension headers: use ip_options");
            let mut header = vec![0, 0];
            header.extend(body);
            let mut header = padded(&header, 8);
            header[1] = (header.len() / 8 - 1) as u8;
            ip.ext_headers.push((number, header));
        })
    }

    /// Makes it as Linux writes an aggregate that is too long for the length field (BIG TCP): the field is 0, and IPv6
    /// has an extension header with the length, which goes when the aggregate is cut into segments.
    pub fn jumbo(self) -> Self {
        self.change_ip(|ip| ip.jumbo = true)
    }

    /// Makes this one piece of a datagram: `offset` bytes (a multiple of eight) into it. Only a piece at
    /// offset 0 has a transport header; its checksum is that of the datagram without the other pieces.
    /// [`Self::fragments`] cuts a whole datagram into pieces that fit together.
    pub fn fragment(self, offset: u16, more: bool) -> Self {
        assert!(offset.is_multiple_of(8), "fragment offsets count in eights");
        self.change_ip(|ip| {
            ip.fragment = Some(Fragment { offset, more });
            ip.dont_fragment = false;
        })
    }

    /// Adds an 802.1Q tag; the first one added stands first.
    pub fn vlan(mut self, id: u16) -> Self {
        self.vlans.push(id);
        self
    }

    /// Sends UDP without a checksum (RFC 768; over IPv6 RFC 6935).
    ///
    /// # Panics
    /// When the packet is not UDP.
    pub fn zero_udp_checksum(self) -> Self {
        self.change_ip(|ip| match &mut ip.transport {
            Transport::Udp { checksum, .. } => *checksum = UdpChecksum::Absent,
            other => panic!("not UDP: {other:?}"),
        })
    }

    /// Appends bytes that no header counts: what a NIC pads short frames with.
    pub fn trailer(mut self, bytes: &[u8]) -> Self {
        self.trailer = bytes.to_vec();
        self
    }

    /// Inverts one byte of the built frame, after the checksums were computed.
    pub fn flip(mut self, offset: usize) -> Self {
        self.flips.push(offset);
        self
    }

    /// Cuts the built frame to its first `length` bytes.
    pub fn truncate(mut self, length: usize) -> Self {
        self.truncate = Some(length);
        self
    }

    /// Checks every length and checksum of a frame: IPv4 header, TCP, UDP, ICMP, ICMPv6.
    ///
    /// # Errors
    /// Says what is wrong, with the value found and the one expected.
    pub fn verify(bytes: &[u8]) -> Result<(), String> {
        dissect::verify(bytes)
    }

    fn with(network: Network) -> Self {
        Self {
            source: SOURCE_MAC,
            destination: DESTINATION_MAC,
            vlans: Vec::new(),
            network,
            trailer: Vec::new(),
            flips: Vec::new(),
            truncate: None,
        }
    }

    fn ip(source: IpAddr, destination: IpAddr, transport: Transport) -> Self {
        assert_eq!(source.is_ipv4(), destination.is_ipv4(), "{source} and {destination} cannot talk");
        Self::with(Network::Ip(Ip {
            source,
            destination,
            ttl: 64,
            traffic_class: 0,
            id: 0x1234,
            dont_fragment: true,
            options: Vec::new(),
            ext_headers: Vec::new(),
            fragment: None,
            jumbo: false,
            transport,
            payload: Vec::new(),
        }))
    }

    /// Sets the second word of an ICMP header.
    ///
    /// # Panics
    /// When the packet is not ICMP.
    pub fn icmp_rest(self, word: [u8; 4]) -> Self {
        self.change_ip(|ip| match &mut ip.transport {
            Transport::Icmp { rest, .. } => *rest = word,
            other => panic!("not ICMP: {other:?}"),
        })
    }

    fn flag(self, flag: u8) -> Self {
        self.change_tcp(|tcp| tcp.flags |= flag)
    }

    fn change_tcp(self, change: impl FnOnce(&mut Tcp)) -> Self {
        self.change_ip(|ip| match &mut ip.transport {
            Transport::Tcp(tcp) => change(tcp),
            other => panic!("not TCP: {other:?}"),
        })
    }

    fn change_ip(mut self, change: impl FnOnce(&mut Ip)) -> Self {
        match &mut self.network {
            Network::Ip(ip) => change(ip),
            other => panic!("not IP: {other:?}"),
        }
        self
    }
}

/// Like tcpdump: see [`describe`].
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&describe(&self.build()))
    }
}

fn halves(high: u16, low: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    [a, b, c, d]
}

/// Target and link-layer address option of a neighbour message.
fn neighbour_body(target: IpAddr, option: u8, mac: Mac) -> Vec<u8> {
    let mut body = v6(target).octets().to_vec();
    body.extend([option, 1]);
    body.extend(mac.bytes);
    body
}

fn padded(bytes: &[u8], to: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(to), 0);
    bytes
}

fn v4(addr: IpAddr) -> [u8; 4] {
    match addr {
        IpAddr::V4(addr) => addr.octets(),
        IpAddr::V6(addr) => panic!("{addr} is not IPv4"),
    }
}

fn v6(addr: IpAddr) -> std::net::Ipv6Addr {
    match addr {
        IpAddr::V6(addr) => addr,
        IpAddr::V4(addr) => panic!("{addr} is not IPv6"),
    }
}
