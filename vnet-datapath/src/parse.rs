//! From bytes to [`Headers`]: total, bounded, and without any judgement on whose packet it is.

use bytemuck::{Pod, Zeroable};
use vnet_common::{Addr, DropReason, Mac, Port, Proto, Tuple, Zone};

use crate::packet::{L4Checksum, Packet};
use crate::wire::{self, ethertype, extension, icmp};

/// IPv6 extension headers walked over before giving up: more than any honest packet has.
const MAX_EXTENSIONS: u32 = 4;

/// Smallest and largest IPv4 header, in bytes.
const IPV4_HEADER: u32 = 20;

/// What kind of frame it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// An IPv4 or IPv6 packet.
    Ip(Headers),
    /// ARP.
    Arp,
    /// Anything else.
    Other,
}

/// What follows the network header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4 {
    /// TCP, with its flags.
    Tcp(u8),
    /// UDP.
    Udp,
    /// SCTP, whose checksum covers no address and whose ports therefore stay (RFC 9260 section 6.8).
    Sctp,
    /// An ICMP echo of either family; its identifier stands for both ports.
    Echo,
    /// Any other ICMP message, by type.
    Icmp(u8),
    /// Nothing that vnet translates: another protocol, or a fragment, which has no ports of its own.
    Opaque,
}

/// A packet's headers, as far as vnet needs them. Plain data, so that it can be handed on through [`crate::Scratch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Headers {
    /// Offset of the transport header.
    pub l4_offset: u32,
    /// Length in bytes from the network header on.
    pub length: u32,
    /// Length in bytes from the network header on of the largest packet that will be on the wire: of each
    /// segment, if this is an aggregate.
    pub wire_length: u16,
    /// Source hardware address.
    pub src_mac: Mac,
    kind: u8,
    detail: u8,
    v4: u8,
    /// Time to live or hop limit.
    pub hop_limit: u8,
    options: u8,
    reserved: [u8; 3],
}

const TCP: u8 = 1;
const UDP: u8 = 2;
const SCTP: u8 = 3;
const ECHO: u8 = 4;
const ICMP: u8 = 5;

impl Headers {
    /// What follows the network header.
    #[must_use]
    #[inline(always)]
    pub const fn l4(&self) -> L4 {
        match self.kind {
            TCP => L4::Tcp(self.detail),
            UDP => L4::Udp,
            SCTP => L4::Sctp,
            ECHO => L4::Echo,
            ICMP => L4::Icmp(self.detail),
            _ => L4::Opaque,
        }
    }

    /// Whether the packet is IPv4; IPv6 otherwise.
    #[must_use]
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.v4 != 0
    }

    /// Whether the network header has options, which the host's stack ought to see.
    #[must_use]
    #[inline(always)]
    pub const fn has_options(&self) -> bool {
        self.options != 0
    }

    /// Whether vnet can translate it: it has ports, or something like them.
    #[must_use]
    #[inline(always)]
    pub const fn is_translatable(&self) -> bool {
        matches!(self.kind, TCP | UDP | SCTP | ECHO)
    }

    /// Where its transport checksum stands.
    #[must_use]
    #[inline(always)]
    pub const fn l4_checksum(&self) -> L4Checksum {
        match self.kind {
            TCP => L4Checksum::Always(self.l4_offset.wrapping_add(wire::TCP_CHECKSUM)),
            UDP => L4Checksum::ZeroMeansNone(self.l4_offset.wrapping_add(wire::UDP_CHECKSUM)),
            _ => L4Checksum::Always(self.l4_offset.wrapping_add(wire::ICMP_CHECKSUM)),
        }
    }

    /// The TCP flags, none for other protocols.
    #[must_use]
    #[inline(always)]
    pub const fn tcp_flags(&self) -> u8 {
        if self.kind == TCP { self.detail } else { 0 }
    }
}

/// The network header, before anything is known of the transport.
struct Network {
    v4: bool,
    proto: u8,
    hop_limit: u8,
    l4_offset: u32,
    options: bool,
    fragment: bool,
    /// From the network header on.
    length: u32,
}

/// Reads a frame's headers. Who talks to whom is written to `tuple`, as coming from the world: an endpoint's
/// zone is for the caller to fill in.
///
/// # Errors
/// [`DropReason::Malformed`] when a header is cut short or contradicts itself or the length of the frame.
#[inline(always)]
pub fn parse<P: Packet>(packet: &P, tuple: &mut Tuple) -> Result<Parsed, DropReason> {
    if packet.is_tagged() {
        return Ok(Parsed::Other);
    }
    let front: wire::Front = bytemuck::cast(packet.load::<34>(0).ok_or(DropReason::Malformed)?);
    let network = match front.ethertype {
        ethertype::IPV4 => ipv4(packet, &front, tuple)?,
        ethertype::IPV6 => ipv6(packet, &front, tuple)?,
        ethertype::ARP => return Ok(Parsed::Arp),
        _ => return Ok(Parsed::Other),
    };
    transport(packet, &network, Mac::new(front.src_mac), tuple).map(Parsed::Ip)
}

#[inline(always)]
fn ipv4<P: Packet>(packet: &P, front: &wire::Front, tuple: &mut Tuple) -> Result<Network, DropReason> {
    let header: wire::Ipv4 = bytemuck::cast(front.network);
    let header_length = u32::from(header.version_ihl & 0x0f).wrapping_mul(4);
    if header.version_ihl >> 4 != 4 || header_length < IPV4_HEADER {
        return Err(DropReason::Malformed);
    }
    let length = claimed_length(packet, u32::from(u16::from_be_bytes(header.total_length)))?;
    if length < header_length {
        return Err(DropReason::Malformed);
    }
    let fragment = u16::from_be_bytes(header.fragment);
    tuple.src = Addr::v4(header.src);
    tuple.dst = Addr::v4(header.dst);
    Ok(Network {
        v4: true,
        proto: header.proto,
        hop_limit: header.ttl,
        l4_offset: wire::NETWORK.wrapping_add(header_length),
        options: header_length != IPV4_HEADER,
        // "More fragments" or an offset (RFC 791 section 3.1).
        fragment: fragment & 0x3fff != 0,
        length,
    })
}

#[inline(always)]
fn ipv6<P: Packet>(packet: &P, front: &wire::Front, tuple: &mut Tuple) -> Result<Network, DropReason> {
    let first: wire::Ipv6Front = bytemuck::cast(front.network);
    let second: wire::Ipv6Back = bytemuck::cast(packet.load::<20>(34).ok_or(DropReason::Malformed)?);
    if first.version_class_flow[0] >> 4 != 6 {
        return Err(DropReason::Malformed);
    }
    let [a, b, c, d, e, f, g, h, i, j, k, l] = first.src_front;
    let [m, n, o, p] = second.src_back;
    let payload = u32::from(u16::from_be_bytes(first.payload_length));
    // A jumbo aggregate (RFC 2675, as Linux sends it to itself) claims no length; any other packet that says so is
    // all header (RFC 8200 section 4.7).
    let jumbo = payload == 0 && packet.segment_payload() != 0;
    let claimed = if jumbo { 0 } else { payload.wrapping_add(40) };
    tuple.src = Addr::v6([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]);
    tuple.dst = Addr::v6(second.dst);
    // An IPv4 address in IPv6's clothes is for sockets, never for the wire (RFC 4942 section 2.2): here it would pass for
    // the real one.
    if tuple.src.is_v4() || tuple.dst.is_v4() {
        return Err(DropReason::Malformed);
    }
    let mut network = Network {
        v4: false,
        proto: first.next_header,
        hop_limit: first.hop_limit,
        l4_offset: wire::IPV6_PAYLOAD,
        options: false,
        fragment: false,
        length: claimed_length(packet, claimed)?,
    };
    for _ in 0..MAX_EXTENSIONS {
        match network.proto {
            extension::HOP_BY_HOP | extension::ROUTING | extension::DESTINATION => {
                let [next, length] = packet.load::<2>(network.l4_offset).ok_or(DropReason::Malformed)?;
                network.proto = next;
                network.l4_offset =
                    network.l4_offset.wrapping_add(u32::from(length).wrapping_add(1).wrapping_mul(8));
                network.options = true;
            }
            extension::FRAGMENT => {
                network.fragment = true;
                return Ok(network);
            }
            _ => return Ok(network),
        }
    }
    // Too many to be honest: nothing to translate, and no protocol has the number 255 (IANA: reserved).
    network.proto = u8::MAX;
    Ok(network)
}

/// The length that the network header claims, checked against the frame; 0 stands for "all of it", as an
/// aggregate too long for the field has it.
#[inline(always)]
fn claimed_length<P: Packet>(packet: &P, claimed: u32) -> Result<u32, DropReason> {
    let there = packet.length().saturating_sub(wire::NETWORK);
    match claimed {
        0 if packet.segment_payload() != 0 => Ok(there),
        0 => Err(DropReason::Malformed),
        claimed if claimed > there => Err(DropReason::Malformed),
        claimed => Ok(claimed),
    }
}

#[inline(always)]
fn transport<P: Packet>(
    packet: &P,
    network: &Network,
    src_mac: Mac,
    tuple: &mut Tuple,
) -> Result<Headers, DropReason> {
    tuple.sport = Port::new(0);
    tuple.dport = Port::new(0);
    tuple.zone = Zone::WORLD;
    tuple.proto = Proto { number: network.proto };
    tuple.reserved = 0;
    // Of the transport header, what the packet itself claims to have must be there.
    let end = wire::NETWORK.wrapping_add(network.length);
    let room = end.saturating_sub(network.l4_offset);
    let l4 = Transport { offset: network.l4_offset, room };
    let (l4, l4_header) = match tuple.proto {
        _ if network.fragment => (L4::Opaque, 0),
        Proto::TCP => tcp(packet, &l4, tuple)?,
        Proto::UDP => udp(packet, &l4, tuple)?,
        Proto::SCTP => sctp(packet, &l4, tuple)?,
        Proto::ICMP if network.v4 => (message(packet, &l4, tuple)?, 0),
        Proto::ICMPV6 if !network.v4 => (message(packet, &l4, tuple)?, 0),
        _ => (L4::Opaque, 0),
    };
    let wire_length = match packet.segment_payload() {
        0 => network.length,
        payload => {
            network.l4_offset.wrapping_sub(wire::NETWORK).wrapping_add(l4_header).wrapping_add(payload)
        }
    };
    let (kind, detail) = match l4 {
        L4::Tcp(flags) => (TCP, flags),
        L4::Udp => (UDP, 0),
        L4::Sctp => (SCTP, 0),
        L4::Echo => (ECHO, 0),
        L4::Icmp(kind) => (ICMP, kind),
        L4::Opaque => (0, 0),
    };
    Ok(Headers {
        l4_offset: network.l4_offset,
        length: network.length,
        wire_length: if wire_length > 0xffff { u16::MAX } else { wire_length as u16 },
        src_mac,
        kind,
        detail,
        v4: network.v4 as u8,
        hop_limit: network.hop_limit,
        options: network.options as u8,
        reserved: [0; 3],
    })
}

/// Where the transport header is, and how many bytes the packet has from there on.
struct Transport {
    offset: u32,
    room: u32,
}

/// Reads a TCP header; returns its length too.
#[inline(always)]
fn tcp<P: Packet>(packet: &P, at: &Transport, tuple: &mut Tuple) -> Result<(L4, u32), DropReason> {
    let tcp: wire::Tcp = bytemuck::cast(packet.load::<14>(at.offset).ok_or(DropReason::Malformed)?);
    let length = u32::from(tcp.data_offset >> 4).wrapping_mul(4);
    if length < 20 || length > at.room {
        return Err(DropReason::Malformed);
    }
    tuple.sport = Port { bytes: tcp.sport };
    tuple.dport = Port { bytes: tcp.dport };
    Ok((L4::Tcp(tcp.flags), length))
}

/// Reads a UDP header; returns its length too.
#[inline(always)]
fn udp<P: Packet>(packet: &P, at: &Transport, tuple: &mut Tuple) -> Result<(L4, u32), DropReason> {
    let udp: wire::Udp = bytemuck::cast(packet.load::<8>(at.offset).ok_or(DropReason::Malformed)?);
    let claimed = u32::from(u16::from_be_bytes(udp.length));
    // The field of an aggregate speaks of the whole or, when that is too long for it, of nothing.
    if at.room < 8 || (packet.segment_payload() == 0 && (claimed < 8 || claimed > at.room)) {
        return Err(DropReason::Malformed);
    }
    tuple.sport = Port { bytes: udp.sport };
    tuple.dport = Port { bytes: udp.dport };
    Ok((L4::Udp, 8))
}

/// Reads an SCTP common header (RFC 9260 section 3.1); returns its length too.
#[inline(always)]
fn sctp<P: Packet>(packet: &P, at: &Transport, tuple: &mut Tuple) -> Result<(L4, u32), DropReason> {
    if at.room < 12 {
        return Err(DropReason::Malformed);
    }
    let [a, b, c, d] = packet.load::<4>(at.offset).ok_or(DropReason::Malformed)?;
    tuple.sport = Port { bytes: [a, b] };
    tuple.dport = Port { bytes: [c, d] };
    Ok((L4::Sctp, 12))
}

/// Reads an ICMP message of either family. Every message has eight bytes (RFC 792, RFC 4443 section 2.1 with
/// the bodies it defines), but for ICMPv6 messages nobody has defined.
#[inline(always)]
fn message<P: Packet>(packet: &P, at: &Transport, tuple: &mut Tuple) -> Result<L4, DropReason> {
    if at.room < 8 {
        return Err(DropReason::Malformed);
    }
    let echo: wire::Echo = bytemuck::cast(packet.load::<8>(at.offset).ok_or(DropReason::Malformed)?);
    let is_echo = if tuple.proto == Proto::ICMP {
        matches!(echo.kind, icmp::ECHO_REQUEST | icmp::ECHO_REPLY)
    } else {
        matches!(echo.kind, icmp::V6_ECHO_REQUEST | icmp::V6_ECHO_REPLY)
    };
    if !is_echo || echo.code != 0 {
        return Ok(L4::Icmp(echo.kind));
    }
    tuple.sport = Port { bytes: echo.identifier };
    tuple.dport = tuple.sport;
    Ok(L4::Echo)
}
