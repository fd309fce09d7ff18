//! From bytes back to what they say: for captures, for messages of failed tests, and to check checksums.
//!
//! Shares nothing with the builder or with vnet's own parser: a second opinion is worth something only if it is
//! somebody else's.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use vnet_common::Mac;

/// A frame taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dissected<'a> {
    /// Who sent it on this link.
    pub source_mac: Mac,
    /// Who is to receive it on this link.
    pub destination_mac: Mac,
    /// Its 802.1Q tags, outermost first.
    pub vlans: Vec<u16>,
    /// What is inside.
    pub network: Network<'a>,
}

/// What is inside a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network<'a> {
    /// An ARP message.
    Arp(Arp),
    /// A packet of either family.
    Ip(Ip<'a>),
    /// Anything else.
    Other {
        /// Its ethertype.
        ethertype: u16,
        /// Its bytes.
        bytes: &'a [u8],
    },
}

/// An ARP message for IPv4 on Ethernet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arp {
    /// 1 asks, 2 answers.
    pub operation: u16,
    /// The sender's hardware address.
    pub sender_mac: Mac,
    /// The sender's address.
    pub sender: Ipv4Addr,
    /// The address asked for, or of the one answered.
    pub target: Ipv4Addr,
}

/// An IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip<'a> {
    /// Its source.
    pub source: IpAddr,
    /// Its destination.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Protocol, behind all extension headers.
    pub protocol: u8,
    /// Offset in bytes and whether more follow, of a piece of a datagram.
    pub fragment: Option<(u16, bool)>,
    /// The IPv4 header with its options; empty for IPv6, which has no checksum of its own.
    pub v4_header: &'a [u8],
    /// What it carries, as long as its header says.
    pub carried: &'a [u8],
}

impl Ip<'_> {
    /// Source and destination with their ports: TCP and UDP, whole or first piece.
    #[must_use]
    pub fn sockets(&self) -> Option<(SocketAddr, SocketAddr)> {
        let first = self.fragment.is_none_or(|(offset, _)| offset == 0);
        let [a, b, c, d, ..] = *self.carried else { return None };
        (first && matches!(self.protocol, TCP | UDP)).then(|| {
            (
                SocketAddr::new(self.source, u16::from_be_bytes([a, b])),
                SocketAddr::new(self.destination, u16::from_be_bytes([c, d])),
            )
        })
    }
}

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Takes a frame apart.
///
/// # Errors
/// Says which header is cut short or contradicts itself.
pub fn dissect(frame: &[u8]) -> Result<Dissected<'_>, String> {
    let (link, mut rest) = frame.split_at_checked(12).ok_or("no Ethernet header")?;
    let mut vlans = Vec::new();
    let ethertype = loop {
        let ethertype = word(rest, 0).ok_or("no ethertype")?;
        rest = &rest[2..];
        if ethertype != 0x8100 {
            break ethertype;
        }
        vlans.push(word(rest, 0).ok_or("VLAN tag cut short")? & 0x0fff);
        rest = &rest[2..];
    };
    let network = match ethertype {
        0x0800 => Network::Ip(ipv4(rest)?),
        0x86dd => Network::Ip(ipv6(rest)?),
        0x0806 => Network::Arp(arp(rest)?),
        _ => Network::Other { ethertype, bytes: rest },
    };
    Ok(Dissected { source_mac: mac(&link[6..12]), destination_mac: mac(&link[..6]), vlans, network })
}

/// What a length field says; in an aggregate that is too long for it, it says 0.
fn claimed(field: u16, there: usize) -> usize {
    if field == 0 { there } else { usize::from(field) }
}

fn ipv4(bytes: &[u8]) -> Result<Ip<'_>, String> {
    let fixed: &[u8; 20] = bytes.first_chunk().ok_or("IPv4 header cut short")?;
    let (version, header_length) = (fixed[0] >> 4, usize::from(fixed[0] & 0x0f) * 4);
    let total = claimed(u16::from_be_bytes([fixed[2], fixed[3]]), bytes.len());
    if version != 4 || header_length < 20 || total < header_length || total > bytes.len() {
        return Err(format!(
            "IPv4 header: version {version}, header {header_length}, total {total} of {} bytes",
            bytes.len()
        ));
    }
    let field = u16::from_be_bytes([fixed[6], fixed[7]]);
    let (offset, more) = ((field & 0x1fff) * 8, field & 0x2000 != 0);
    let address = |at: usize| Ipv4Addr::new(fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]).into();
    Ok(Ip {
        source: address(12),
        destination: address(16),
        ttl: fixed[8],
        protocol: fixed[9],
        fragment: (offset > 0 || more).then_some((offset, more)),
        v4_header: &bytes[..header_length],
        carried: &bytes[header_length..total],
    })
}

fn ipv6(bytes: &[u8]) -> Result<Ip<'_>, String> {
    let fixed: &[u8; 40] = bytes.first_chunk().ok_or("IPv6 header cut short")?;
    let length = claimed(u16::from_be_bytes([fixed[4], fixed[5]]), bytes.len() - 40);
    let version = fixed[0] >> 4;
    if version != 6 || 40 + length > bytes.len() {
        return Err(format!(
            "IPv6 header: version {version}, payload {length} of {} bytes",
            bytes.len() - 40
        ));
    }
    let mut carried = &bytes[40..40 + length];
    let mut protocol = fixed[6];
    let mut fragment = None;
    while matches!(protocol, 0 | 43 | 44 | 60) {
        let header: &[u8; 8] = carried.first_chunk().ok_or("IPv6 extension header cut short")?;
        let size = if protocol == 44 { 8 } else { 8 + usize::from(header[1]) * 8 };
        if protocol == 44 {
            let field = u16::from_be_bytes([header[2], header[3]]);
            fragment = Some((field & !7, field & 1 != 0));
        }
        protocol = header[0];
        carried = carried.get(size..).ok_or("IPv6 extension header longer than the packet")?;
        if fragment.is_some_and(|(offset, _)| offset > 0) {
            break;
        }
    }
    let address = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&fixed[at..at + 16]).expect("16 bytes"));
    Ok(Ip {
        source: address(8).into(),
        destination: address(24).into(),
        ttl: fixed[7],
        protocol,
        fragment,
        v4_header: &[],
        carried,
    })
}

fn arp(bytes: &[u8]) -> Result<Arp, String> {
    let message: &[u8; 28] = bytes.first_chunk().ok_or("ARP message cut short")?;
    let address = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&message[at..at + 4]).expect("4 bytes"));
    Ok(Arp {
        operation: u16::from_be_bytes([message[6], message[7]]),
        sender_mac: mac(&message[8..14]),
        sender: address(14),
        target: address(24),
    })
}

/// Checks every length and checksum of a frame. A piece of a datagram cannot be checked beyond its IP header.
///
/// # Errors
/// Says what is wrong, with the value found and the one expected.
pub fn verify(frame: &[u8]) -> Result<(), String> {
    let Network::Ip(ip) = dissect(frame)?.network else { return Ok(()) };
    if !ip.v4_header.is_empty() {
        check("IPv4 header", ip.v4_header, 10, &[])?;
    }
    if ip.fragment.is_some() {
        return Ok(());
    }
    let pseudo = pseudo_header(&ip);
    match ip.protocol {
        TCP => {
            let offset = ip.carried.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4);
            if offset < 20 || offset > ip.carried.len() {
                return Err(format!("TCP data offset {offset} of {} bytes", ip.carried.len()));
            }
            check("TCP", ip.carried, 16, &pseudo)
        }
        UDP => {
            let length = word(ip.carried, 4).ok_or("UDP header cut short")?;
            if usize::from(length) != ip.carried.len() {
                return Err(format!("UDP length {length} of {} bytes", ip.carried.len()));
            }
            match word(ip.carried, 6) {
                Some(0) => Ok(()),
                _ => check("UDP", ip.carried, 6, &pseudo),
            }
        }
        ICMP => check("ICMP", ip.carried, 2, &[]),
        ICMPV6 => check("ICMPv6", ip.carried, 2, &pseudo),
        _ => Ok(()),
    }
}

fn pseudo_header(ip: &Ip<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for addr in [ip.source, ip.destination] {
        match addr {
            IpAddr::V4(addr) => bytes.extend(addr.octets()),
            IpAddr::V6(addr) => bytes.extend(addr.octets()),
        }
    }
    bytes.extend([0, ip.protocol]);
    bytes.extend((ip.carried.len() as u16).to_be_bytes());
    bytes
}

/// Sums as a receiver does, checksum included: the result of intact bytes is all ones.
fn check(what: &str, bytes: &[u8], at: usize, pseudo: &[u8]) -> Result<(), String> {
    let found = word(bytes, at).ok_or_else(|| format!("{what} header cut short"))?;
    let all = ones_complement_sum(pseudo, ones_complement_sum(bytes, 0));
    if all == 0xffff {
        return Ok(());
    }
    let expected = !ones_complement_sum(&found.to_be_bytes().map(|byte| !byte), all);
    Err(format!("{what} checksum is {found:#06x}, expected {expected:#06x}"))
}

fn ones_complement_sum(bytes: &[u8], start: u16) -> u16 {
    bytes.chunks(2).fold(start, |sum, pair| {
        let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

/// One line about a frame, as tcpdump would print it; for a frame that cannot be read, why.
#[must_use]
pub fn describe(frame: &[u8]) -> String {
    let dissected = match dissect(frame) {
        Ok(dissected) => dissected,
        Err(error) => return format!("[{error}] {} bytes", frame.len()),
    };
    let mut line = String::new();
    for vlan in &dissected.vlans {
        let _ = write!(line, "vlan {vlan}, ");
    }
    line += &match dissected.network {
        Network::Arp(arp) => describe_arp(&arp),
        Network::Ip(ip) => describe_ip(&ip),
        Network::Other { ethertype, bytes } => format!("ethertype {ethertype:#06x}, length {}", bytes.len()),
    };
    line
}

fn describe_arp(arp: &Arp) -> String {
    let Arp { operation, sender_mac, sender, target } = arp;
    match operation {
        1 => format!("ARP, Request who-has {target} tell {sender}, length 28"),
        2 => format!("ARP, Reply {sender} is-at {sender_mac}, length 28"),
        _ => format!("ARP, operation {operation} from {sender}, length 28"),
    }
}

fn describe_ip(ip: &Ip<'_>) -> String {
    let family = if ip.source.is_ipv4() { "IP" } else { "IP6" };
    let length = ip.carried.len();
    let mut line = match ip.sockets() {
        Some((from, to)) => {
            format!("{family} {}.{} > {}.{}: ", ip.source, from.port(), ip.destination, to.port())
        }
        None => format!("{family} {} > {}: ", ip.source, ip.destination),
    };
    if let Some((offset, more)) = ip.fragment {
        let _ = write!(line, "frag ({offset}{}) ", if more { "+" } else { "" });
        if offset > 0 {
            return format!("{line}length {length}");
        }
    }
    line += &match ip.protocol {
        TCP => describe_tcp(ip.carried),
        UDP if length >= 8 => format!("UDP, length {}", length - 8),
        ICMP | ICMPV6 => describe_icmp(ip.protocol, ip.carried),
        protocol => format!("protocol {protocol}, length {length}"),
    };
    line
}

fn describe_tcp(bytes: &[u8]) -> String {
    let Some(header) = bytes.first_chunk::<20>() else {
        return format!("[TCP cut short] {} bytes", bytes.len());
    };
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let letters = [(0x01, 'F'), (0x02, 'S'), (0x04, 'R'), (0x08, 'P'), (0x10, '.')];
    let flags: String =
        letters.iter().filter(|(bit, _)| header[13] & bit != 0).map(|(_, letter)| letter).collect();
    let mut line = format!("Flags [{}]", if flags.is_empty() { "none" } else { &flags });
    let payload = bytes.len().saturating_sub(usize::from(header[12] >> 4) * 4);
    let _ = write!(line, ", seq {}", number(4));
    if header[13] & 0x10 != 0 {
        let _ = write!(line, ", ack {}", number(8));
    }
    let _ = write!(line, ", win {}, length {payload}", u16::from_be_bytes([header[14], header[15]]));
    line
}

fn describe_icmp(protocol: u8, bytes: &[u8]) -> String {
    let name = if protocol == ICMP { "ICMP" } else { "ICMP6" };
    let length = bytes.len();
    let Some(&[kind, code, _, _, a, b, c, d]) = bytes.first_chunk::<8>() else {
        return format!("[{name} cut short] {length} bytes");
    };
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let what = match (protocol, kind, code) {
        (ICMP, 8, _) | (ICMPV6, 128, _) => format!("echo request, id {high}, seq {low}"),
        (ICMP, 0, _) | (ICMPV6, 129, _) => format!("echo reply, id {high}, seq {low}"),
        (ICMP, 3, 4) => format!("unreachable - need to frag (mtu {low})"),
        (ICMP, 3, 3) | (ICMPV6, 1, 4) => "port unreachable".to_owned(),
        (ICMP, 3, 1) | (ICMPV6, 1, 3) => "host unreachable".to_owned(),
        (ICMPV6, 2, _) => format!("packet too big, mtu {low}"),
        (ICMP, 11, 0) | (ICMPV6, 3, 0) => "time exceeded in-transit".to_owned(),
        (ICMPV6, 134, _) => "router advertisement".to_owned(),
        (ICMPV6, 135, _) => format!("neighbor solicitation, who has {}", target(bytes)),
        (ICMPV6, 136, _) => format!("neighbor advertisement, tgt is {}", target(bytes)),
        _ => format!("type {kind}, code {code}"),
    };
    format!("{name} {what}, length {length}")
}

fn target(message: &[u8]) -> String {
    message
        .get(8..24)
        .and_then(|bytes| <[u8; 16]>::try_from(bytes).ok())
        .map_or_else(|| "?".to_owned(), |bytes| Ipv6Addr::from(bytes).to_string())
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn mac(bytes: &[u8]) -> Mac {
    Mac::new(bytes.try_into().expect("six bytes"))
}

#[cfg(test)]
mod tests {
    use super::super::{DESTINATION_MAC, DESTINATION_OPTIONS, Frame, HOP_BY_HOP, IcmpError, SOURCE_MAC};
    use super::*;

    fn sock(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Captured with tcpdump on a veth without checksum offload: made by the kernel, printed by tcpdump.
    const CAPTURED: &[(&str, &str)] = &[
        (
            "02000000000b02000000000a08004500001d9b7d400040111df7c0a80002c0a80009e30a003500093a4061",
            "IP 192.168.0.2.58122 > 192.168.0.9.53: UDP, length 1",
        ),
        (
            "02000000000b02000000000a86dd60061d9b00280640fd000000000000000000000000000002fd000000000000000000\
             000000000009a0d800504489717700000000a002fd2039e30000020405a00402080a45407a97000000000103030a",
            "IP6 fd00::2.41176 > fd00::9.80: Flags [S], seq 1149858167, win 64800, length 0",
        ),
        (RESET, "IP 192.168.0.9.80 > 192.168.0.2.51220: Flags [R.], seq 0, ack 1933494234, win 0, length 0"),
        (ADVERTISEMENT, "IP6 fd00::9 > fd00::2: ICMP6 neighbor advertisement, tgt is fd00::9, length 32"),
        (
            "02000000000a02000000000b86dd6006dd6b00393a40fd000000000000000000000000000009fd000000000000000000\
             000000000002010488a50000000060060aa100091140fd000000000000000000000000000002fd00000000000000\
             0000000000000009821600350009228461",
            "IP6 fd00::9 > fd00::2: ICMP6 port unreachable, length 57",
        ),
    ];
    const RESET: &str = "02000000000a02000000000b080045000028000040004006b974c0a80009c0a800020050c81400000000733ec7da501400002af70000";
    const ADVERTISEMENT: &str = "02000000000a02000000000b86dd6000000000203afffd000000000000000000000000000009fd0000000000000000000000\
         0000000288001c8260000000fd000000000000000000000000000009020102000000000b";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    fn samples() -> Vec<(Frame, &'static str)> {
        let (a4, b4) = (sock("192.168.0.2:1234"), sock("203.0.113.2:80"));
        let (a6, b6) = (sock("[fd00::2]:1234"), sock("[2001:db8:113::2]:80"));
        let mac = SOURCE_MAC;
        vec![
            (
                Frame::tcp(a4, b4).syn(),
                "IP 192.168.0.2.1234 > 203.0.113.2.80: Flags [S], seq 1000, win 64240, length 0",
            ),
            (
                Frame::tcp(a6, b6).fin().ack().payload(b"odd"),
                "IP6 fd00::2.1234 > 2001:db8:113::2.80: Flags [F.], seq 1000, ack 2000, win 64240, length 3",
            ),
            (
                Frame::tcp(a4, b4).rst().tcp_options(&[2, 4, 5, 0xb4, 1]).ip_options(&[7, 3, 4]),
                "IP 192.168.0.2.1234 > 203.0.113.2.80: Flags [R], seq 1000, win 64240, length 0",
            ),
            (Frame::udp(a4, b4).payload(b"hello"), "IP 192.168.0.2.1234 > 203.0.113.2.80: UDP, length 5"),
            (
                Frame::udp(a6, b6)
                    .ext_header(HOP_BY_HOP, &[])
                    .ext_header(DESTINATION_OPTIONS, &[1; 20])
                    .payload(b"x"),
                "IP6 fd00::2.1234 > 2001:db8:113::2.80: UDP, length 1",
            ),
            (Frame::udp(a4, b4).zero_udp_checksum(), "IP 192.168.0.2.1234 > 203.0.113.2.80: UDP, length 0"),
            (
                Frame::echo_request(a4.ip(), b4.ip(), 7, 1).payload(&[0xaa; 56]),
                "IP 192.168.0.2 > 203.0.113.2: ICMP echo request, id 7, seq 1, length 64",
            ),
            (
                Frame::echo_reply(a6.ip(), b6.ip(), 7, 1),
                "IP6 fd00::2 > 2001:db8:113::2: ICMP6 echo reply, id 7, seq 1, length 8",
            ),
            (
                Frame::icmp_error(b4.ip(), a4.ip(), IcmpError::TooBig { mtu: 1400 }, &Frame::tcp(a4, b4)),
                "IP 203.0.113.2 > 192.168.0.2: ICMP unreachable - need to frag (mtu 1400), length 48",
            ),
            (
                Frame::icmp_error(b6.ip(), a6.ip(), IcmpError::TimeExceeded, &Frame::udp(a6, b6)),
                "IP6 2001:db8:113::2 > fd00::2: ICMP6 time exceeded in-transit, length 56",
            ),
            (
                Frame::arp_request(mac, a4.ip(), b4.ip()),
                "ARP, Request who-has 203.0.113.2 tell 192.168.0.2, length 28",
            ),
            (
                Frame::arp_reply(mac, a4.ip(), mac, b4.ip()),
                "ARP, Reply 192.168.0.2 is-at 02:00:00:00:00:0a, length 28",
            ),
            (
                Frame::neighbour_solicitation(mac, a6.ip(), ip("fd00::1")),
                "IP6 fd00::2 > ff02::1:ff00:1: ICMP6 neighbor solicitation, who has fd00::1, length 32",
            ),
            (
                Frame::neighbour_advertisement(mac, a6.ip(), ip("fd00::1"), a6.ip()),
                "IP6 fd00::2 > fd00::1: ICMP6 neighbor advertisement, tgt is fd00::2, length 32",
            ),
            (
                Frame::router_advertisement(mac, ip("fe80::1")).vlan(42),
                "vlan 42, IP6 fe80::1 > ff02::1: ICMP6 router advertisement, length 24",
            ),
            (Frame::protocol(a4.ip(), b4.ip(), 47), "IP 192.168.0.2 > 203.0.113.2: protocol 47, length 0"),
            (Frame::raw(0x88cc, &[1, 2, 3]), "ethertype 0x88cc, length 3"),
            (
                Frame::udp(a4, b4).fragment(1480, true).payload(&[1; 16]),
                "IP 192.168.0.2 > 203.0.113.2: frag (1480+) length 16",
            ),
        ]
    }

    #[test]
    fn what_is_built_is_described_and_sums_up() {
        for (frame, expected) in samples() {
            assert_eq!(frame.to_string(), expected);
            assert_eq!(Frame::verify(&frame.build()), Ok(()), "{expected}");
        }
    }

    #[test]
    fn what_the_kernel_sent_is_described_and_sums_up() {
        for (hex, expected) in CAPTURED {
            assert_eq!(describe(&bytes(hex)), *expected);
            assert_eq!(verify(&bytes(hex)), Ok(()), "{expected}");
        }
    }

    #[test]
    fn what_is_built_is_what_the_kernel_sent() {
        let (from, to) = (sock("192.168.0.9:80"), sock("192.168.0.2:51220"));
        let reset = Frame::tcp(from, to).rst().ack().seq_ack(0, 1_933_494_234).window(0).id(0);
        let reset = reset.macs(DESTINATION_MAC, SOURCE_MAC);
        assert_eq!(reset.build(), bytes(RESET));
        let (sender, asker) = (ip("fd00::9"), ip("fd00::2"));
        let answer = Frame::neighbour_advertisement(DESTINATION_MAC, sender, asker, sender);
        assert_eq!(answer.macs(DESTINATION_MAC, SOURCE_MAC).build(), bytes(ADVERTISEMENT));
    }

    #[test]
    fn every_flipped_byte_of_a_checksummed_packet_is_noticed() {
        let frames = [
            Frame::tcp(sock("192.168.0.2:1234"), sock("203.0.113.2:80")).syn().payload(b"data"),
            Frame::udp(sock("192.168.0.2:1234"), sock("203.0.113.2:80")).payload(b"data"),
            Frame::echo_request(ip("192.168.0.2"), ip("203.0.113.2"), 1, 1).payload(b"data"),
        ];
        for frame in frames {
            for offset in 14..frame.build().len() {
                let broken = frame.clone().flip(offset).build();
                assert!(verify(&broken).is_err(), "byte {offset} of {frame}");
            }
        }
    }

    #[test]
    fn cut_frames_are_described_and_refused() {
        for (frame, line) in samples() {
            let whole = frame.build().len();
            for length in 0..whole {
                let cut = frame.clone().truncate(length).build();
                assert_eq!(cut.len(), length);
                let _ = describe(&cut);
                let sums_up = matches!(frame.network, super::super::Network::Raw { .. }) && length >= 14;
                assert_eq!(verify(&cut).is_ok(), sums_up, "{line} cut to {length}");
            }
        }
    }

    #[test]
    fn the_pieces_of_a_datagram_carry_all_of_it() {
        for (from, to) in [("192.168.0.2:1", "203.0.113.2:2"), ("[fd00::2]:1", "[2001:db8:113::2]:2")] {
            let frame = Frame::udp(sock(from), sock(to)).payload(&[7; 3000]);
            let pieces = frame.fragments(1480);
            assert_eq!(pieces.len(), 3);
            let mut carried = 0;
            for (n, piece) in pieces.iter().enumerate() {
                let Network::Ip(ip) = dissect(piece).unwrap().network else { panic!("not IP") };
                assert_eq!(ip.fragment, Some((n as u16 * 1480, n < 2)));
                assert_eq!(ip.sockets().is_some(), n == 0);
                carried += ip.carried.len();
                verify(piece).unwrap();
            }
            assert_eq!(carried, 3008);
        }
    }

    #[test]
    fn a_udp_sum_of_zero_is_sent_as_all_ones() {
        // The payload is chosen so that the sum of everything else is its complement.
        let udp =
            |payload: [u8; 2]| Frame::udp(sock("10.0.0.1:1"), sock("10.0.0.2:2")).payload(&payload).build();
        let sum = udp([0, 0]);
        let sum = [sum[40], sum[41]];
        let frame = udp(sum);
        assert_eq!(frame[40..42], [0xff, 0xff]);
        assert_eq!(verify(&frame), Ok(()));
    }
}
