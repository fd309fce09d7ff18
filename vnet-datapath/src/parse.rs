//! From bytes to [`Headers`]: total, bounded, and without any judgement on whose packet it is.

use bytemuck::{Pod, Zeroable};
use vnet_common::{Addr, DropReason, Mac, Port, Proto, Tuple, Zone};

use crate::fragments::Piece;
use crate::packet::{L4Checksum, Packet};
use crate::wire::{self, Front, ethertype, extension, icmp, option};

/// IPv6 extension headers walked over before giving up: more than any honest packet has.
pub(crate) const MAX_EXTENSIONS: u32 = 4;

/// Smallest IPv4 header, in bytes.
pub(crate) const IPV4_HEADER: u32 = 20;

/// Length in bytes of an IPv6 hop-by-hop header with nothing but the length of a jumbo packet (RFC 2675 section 2).
const JUMBO_HEADER: u32 = 8;

/// IPv4 options that a header has room for.
const MAX_OPTIONS: u32 = 40;

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
    /// Nothing that vnet translates: another protocol, or a later fragment, which has no ports of its own.
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
    group: u8,
    /// Of IPv4: the checksum of the network header.
    pub checksum: [u8; 2],
    /// What part of a datagram it is.
    pub piece: Piece,
}

/// Values of [`Headers::options`]: none, some, a source route among them.
const NO_OPTIONS: u8 = 0;
const OPTIONS: u8 = 1;
const SOURCE_ROUTE: u8 = 2;

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

    /// Whether the frame is for more than one receiver.
    #[must_use]
    #[inline(always)]
    pub const fn is_for_a_group(&self) -> bool {
        self.group != 0
    }

    /// Whether the network header has options, which the host's stack ought to see.
    #[must_use]
    #[inline(always)]
    pub const fn has_options(&self) -> bool {
        self.options != NO_OPTIONS
    }

    /// Whether the sender says by which hosts the packet is to go, which nobody lets it any more (RFC 7126 section
    /// 4.3, RFC 5095).
    #[must_use]
    #[inline(always)]
    pub const fn is_source_routed(&self) -> bool {
        self.options == SOURCE_ROUTE
    }

    /// Whether vnet can translate it: it has ports, or something like them.
    #[must_use]
    #[inline(always)]
    pub const fn is_translatable(&self) -> bool {
        matches!(self.kind, TCP | UDP | SCTP | ECHO)
    }

    /// Whether it has ports, which come first in its transport header.
    #[must_use]
    #[inline(always)]
    pub const fn has_ports(&self) -> bool {
        matches!(self.kind, TCP | UDP | SCTP)
    }

    /// Whether it is a message of ICMP or ICMPv6, an echo among them.
    #[must_use]
    #[inline(always)]
    pub const fn is_icmp(&self) -> bool {
        matches!(self.kind, ECHO | ICMP)
    }

    /// Whether it is an ICMP error that quotes the packet which caused it (RFC 792, RFC 4443 section 2.1), and that is
    /// told to the sender of that. Source quench and redirects are not (RFC 5508 section 7.2).
    #[must_use]
    #[inline(always)]
    pub const fn is_icmp_error(&self) -> bool {
        self.kind == ICMP
            && match self.detail {
                icmp::UNREACHABLE | icmp::TIME_EXCEEDED | icmp::PARAMETER_PROBLEM if self.is_v4() => true,
                icmp::V6_UNREACHABLE..=icmp::V6_PARAMETER_PROBLEM => !self.is_v4(),
                _ => false,
            }
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
    options: u8,
    checksum: [u8; 2],
    piece: Piece,
    /// Where the part of the packet begins that fragments are made of.
    fragmented: u32,
    /// From the network header on.
    length: u32,
    /// Bytes of an aggregate's headers that its segments will not have.
    aggregate_only: u32,
}

impl Network {
    /// Notes what part of a datagram the packet is: `offset` in bytes, whether `more` fragments follow. What it has of
    /// the datagram begins at `l4_offset`.
    #[inline(always)]
    fn fragment(&mut self, id: [u8; 4], offset: u16, more: bool) -> Result<(), DropReason> {
        // No piece is cut into pieces.
        if self.piece.is_first() {
            return Err(DropReason::Malformed);
        }
        self.piece = Piece::new(id, offset, more);
        self.fragmented = self.l4_offset;
        let end = wire::NETWORK.wrapping_add(self.length);
        let whole = !self.piece.is_first() && !self.piece.is_later();
        if whole || self.piece.fits(end.saturating_sub(self.l4_offset), more) {
            Ok(())
        } else {
            Err(DropReason::Malformed)
        }
    }
}

/// Reads a frame's headers. Who talks to whom is written to `tuple`, as coming from the world: an endpoint's
/// zone is for the caller to fill in.
///
/// # Errors
/// [`DropReason::Malformed`] when a header is cut short or contradicts itself or the length of the frame.
#[inline(always)]
pub fn parse<P: Packet>(packet: &P, front: &mut Front, tuple: &mut Tuple) -> Result<Parsed, DropReason> {
    if packet.is_tagged() {
        return Ok(Parsed::Other);
    }
    let there = packet.front(front);
    if there == 0 {
        return Err(DropReason::Malformed);
    }
    let network = match front.ethernet().ethertype {
        ethertype::IPV4 => ipv4(packet, &front.v4().network, tuple)?,
        ethertype::IPV6 if there == const { Front::V6 as u32 } => ipv6(packet, &front.v6().network, tuple)?,
        ethertype::IPV6 => {
            let header = packet.load::<40>(wire::NETWORK).ok_or(DropReason::Malformed)?;
            ipv6(packet, &bytemuck::cast(header), tuple)?
        }
        ethertype::ARP => return Ok(Parsed::Arp),
        _ => return Ok(Parsed::Other),
    };
    transport(packet, &network, (front, there), tuple).map(Parsed::Ip)
}

#[inline(always)]
fn ipv4<P: Packet>(packet: &P, header: &wire::Ipv4, tuple: &mut Tuple) -> Result<Network, DropReason> {
    let header_length = u32::from(header.version_ihl & 0x0f).wrapping_mul(4);
    if header.version_ihl >> 4 != 4 || header_length < IPV4_HEADER {
        return Err(DropReason::Malformed);
    }
    let length = claimed_length(packet, u32::from(u16::from_be_bytes(header.total_length)))?;
    if length < header_length {
        return Err(DropReason::Malformed);
    }
    tuple.src = Addr::v4(header.src);
    tuple.dst = Addr::v4(header.dst);
    let l4_offset = wire::NETWORK.wrapping_add(header_length);
    let mut network = Network {
        v4: true,
        proto: header.proto,
        hop_limit: header.ttl,
        l4_offset,
        options: if header_length == IPV4_HEADER { NO_OPTIONS } else { options(packet, header_length)? },
        checksum: header.checksum,
        piece: Piece::WHOLE,
        fragmented: l4_offset,
        length,
        aggregate_only: 0,
    };
    // "More fragments", and an offset that counts in eights (RFC 791 section 3.1).
    let field = u16::from_be_bytes(header.fragment);
    let ([a, b], more) = (header.id, field & 0x2000 != 0);
    network.fragment([a, b, 0, 0], (field & 0x1fff).wrapping_mul(8), more)?;
    let dont_fragment = field & 0x4000 != 0;
    if !dont_fragment {
        network.piece = network.piece.cuttable();
    }
    Ok(network)
}

/// Looks through the options of an IPv4 header of `length` bytes: [`OPTIONS`] or [`SOURCE_ROUTE`].
#[inline(always)]
fn options<P: Packet>(packet: &P, length: u32) -> Result<u8, DropReason> {
    let mut at = IPV4_HEADER;
    for _ in 0..MAX_OPTIONS {
        if at >= length {
            break;
        }
        at = match packet.option(at) {
            NO_MORE => return Ok(OPTIONS),
            ROUTE => return Ok(SOURCE_ROUTE),
            BROKEN => return Err(DropReason::Malformed),
            next => next,
        };
    }
    if at == length { Ok(OPTIONS) } else { Err(DropReason::Malformed) }
}

/// What [`option_at`] returns instead of an offset: it was the last.
pub(crate) const NO_MORE: u32 = 0;
/// It is a source route.
const ROUTE: u32 = 1;
/// It makes no sense.
const BROKEN: u32 = 2;

/// Looks at the option at an offset from the IPv4 header on, and returns that of the next, or why there is none.
#[must_use]
#[inline(always)]
pub fn option_at<P: Packet>(packet: &P, at: u32) -> u32 {
    // With the byte before it: the verifier does not see that one byte is there where at least one is.
    let before = wire::NETWORK.wrapping_add(at).wrapping_sub(1);
    let Some([_, kind]) = packet.load::<2>(before) else { return BROKEN };
    match kind {
        option::END => NO_MORE,
        option::NOTHING => at.wrapping_add(1),
        option::LOOSE_SOURCE_ROUTE | option::STRICT_SOURCE_ROUTE => ROUTE,
        _ => match packet.load::<2>(before.wrapping_add(1)) {
            Some([_, length]) if length >= 2 => at.wrapping_add(u32::from(length)),
            _ => BROKEN,
        },
    }
}

#[inline(always)]
fn ipv6<P: Packet>(packet: &P, header: &wire::Ipv6, tuple: &mut Tuple) -> Result<Network, DropReason> {
    if header.version_class_flow[0] >> 4 != 6 {
        return Err(DropReason::Malformed);
    }
    let payload = u32::from(u16::from_be_bytes(header.payload_length));
    // A jumbo aggregate (RFC 2675, as Linux sends it to itself, "BIG TCP") claims no length; any other packet that says
    // so is all header (RFC 8200 section 4.7). Its length is in an extension header that Linux takes away again with
    // the aggregation (`ipv6_hopopt_jumbo_remove`), so it is no reason to show the packet to the stack, which would
    // count it into each segment (`skb_gso_network_seglen`) and find them too big.
    let jumbo = payload == 0 && packet.segment_payload() != 0;
    let claimed = if jumbo { 0 } else { payload.wrapping_add(40) };
    tuple.src = Addr::v6(header.src);
    tuple.dst = Addr::v6(header.dst);
    // An IPv4 address in IPv6's clothes is for sockets, never for the wire (RFC 4942 section 2.2): here it would pass for
    // the real one.
    if tuple.src.is_v4() || tuple.dst.is_v4() {
        return Err(DropReason::Malformed);
    }
    let mut network = Network {
        v4: false,
        proto: header.next_header,
        hop_limit: header.hop_limit,
        l4_offset: wire::IPV6_PAYLOAD,
        options: NO_OPTIONS,
        checksum: [0; 2],
        piece: Piece::WHOLE,
        fragmented: wire::IPV6_PAYLOAD,
        length: claimed_length(packet, claimed)?,
        aggregate_only: 0,
    };
    if jumbo && network.proto == extension::HOP_BY_HOP {
        let header = packet.load::<8>(wire::IPV6_PAYLOAD).ok_or(DropReason::Malformed)?;
        if let [next, 0, option::JUMBO, 4, ..] = header {
            network.proto = next;
            network.l4_offset = const { wire::IPV6_PAYLOAD + JUMBO_HEADER };
            network.aggregate_only = JUMBO_HEADER;
        }
    }
    for _ in 0..MAX_EXTENSIONS {
        match network.proto {
            extension::HOP_BY_HOP | extension::ROUTING | extension::DESTINATION => {
                let [next, length, kind, left] =
                    packet.load::<4>(network.l4_offset).ok_or(DropReason::Malformed)?;
                // Type 0 is the source route; one that has been followed to its end is no more than a memory.
                let source_route = network.proto == extension::ROUTING && kind == 0 && left != 0;
                if source_route || network.options == NO_OPTIONS {
                    network.options = if source_route { SOURCE_ROUTE } else { OPTIONS };
                }
                network.proto = next;
                network.l4_offset =
                    network.l4_offset.wrapping_add(u32::from(length).wrapping_add(1).wrapping_mul(8));
            }
            extension::FRAGMENT => {
                let [next, _, o, p, a, b, c, d] =
                    packet.load::<8>(network.l4_offset).ok_or(DropReason::Malformed)?;
                network.proto = next;
                network.l4_offset = network.l4_offset.wrapping_add(8);
                // The offset counts in eights, and the lowest bit is "more fragments" (RFC 8200 section 4.5).
                let field = u16::from_be_bytes([o, p]);
                network.fragment([a, b, c, d], field & !7, field & 1 != 0)?;
                if network.piece.is_later() {
                    return Ok(network);
                }
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

/// The first bytes of the transport header of a protocol that vnet knows: read already, or read now.
#[inline(always)]
fn transport_header<'a, P: Packet>(
    packet: &P,
    network: &Network,
    front: &'a mut Front,
    there: u32,
) -> Option<&'a [u8; 20]> {
    match network.l4_offset {
        wire::IPV4_PAYLOAD if there >= const { Front::V4 as u32 } => return Some(&front.v4().transport),
        wire::IPV6_PAYLOAD if there == const { Front::V6 as u32 } => {}
        offset => {
            let place = &mut front.v6_mut().transport;
            match (Proto { number: network.proto }) {
                Proto::TCP => fill::<20, P>(packet, offset, place)?,
                Proto::SCTP => fill::<12, P>(packet, offset, place)?,
                _ => fill::<8, P>(packet, offset, place)?,
            }
        }
    }
    Some(&front.v6().transport)
}

/// Reads `N` bytes from `offset`.
#[inline(always)]
fn fill<const N: usize, P: Packet>(packet: &P, offset: u32, to: &mut [u8; 20]) -> Option<()> {
    *to.first_chunk_mut()? = packet.load::<N>(offset)?;
    Some(())
}

#[inline(always)]
fn transport<P: Packet>(
    packet: &P,
    network: &Network,
    (front, there): (&mut Front, u32),
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
    let known = match tuple.proto {
        _ if network.piece.is_later() => false,
        Proto::TCP | Proto::UDP | Proto::SCTP => true,
        Proto::ICMP => network.v4,
        Proto::ICMPV6 => !network.v4,
        _ => false,
    };
    let (l4, l4_header) = if known {
        let header = transport_header(packet, network, front, there).ok_or(DropReason::Malformed)?;
        let l4 = Transport { header, room, first: network.piece.is_first() };
        match tuple.proto {
            Proto::TCP => tcp(&l4, tuple)?,
            Proto::UDP => udp(packet, &l4, tuple)?,
            Proto::SCTP => sctp(&l4, tuple)?,
            _ => (message(&l4, tuple)?, 8),
        }
    } else {
        (L4::Opaque, 0)
    };
    let wire_length = match packet.segment_payload() {
        0 => network.length,
        payload => {
            let headers = network.l4_offset.wrapping_sub(const { wire::NETWORK }).wrapping_add(l4_header);
            headers.wrapping_sub(network.aggregate_only).wrapping_add(payload)
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
    let headers = network.l4_offset.wrapping_sub(network.fragmented).wrapping_add(l4_header);
    let header = if headers > 0xff { u8::MAX } else { headers as u8 };
    Ok(Headers {
        l4_offset: network.l4_offset,
        length: network.length,
        wire_length: if wire_length > 0xffff { u16::MAX } else { wire_length as u16 },
        src_mac: front.ethernet().src,
        kind,
        detail,
        v4: network.v4 as u8,
        hop_limit: network.hop_limit,
        options: network.options,
        group: front.ethernet().dst.bytes[0] & 1,
        checksum: network.checksum,
        piece: Piece { header, ..network.piece },
    })
}

/// A transport header, and how many bytes the packet has from there on.
struct Transport<'a> {
    header: &'a [u8; 20],
    room: u32,
    /// The rest of the payload follows in other fragments.
    first: bool,
}

impl Transport<'_> {
    /// The first bytes of the header.
    #[inline(always)]
    fn start<const N: usize>(&self) -> [u8; N] {
        const { assert!(N <= 20) };
        self.header.first_chunk().copied().unwrap_or([0; N])
    }
}

/// Reads a TCP header; returns its length too.
#[inline(always)]
fn tcp(at: &Transport<'_>, tuple: &mut Tuple) -> Result<(L4, u32), DropReason> {
    let tcp: wire::Tcp = bytemuck::cast(at.start::<14>());
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
fn udp<P: Packet>(packet: &P, at: &Transport<'_>, tuple: &mut Tuple) -> Result<(L4, u32), DropReason> {
    let udp: wire::Udp = bytemuck::cast(at.start::<8>());
    let claimed = u32::from(u16::from_be_bytes(udp.length));
    // The field of an aggregate speaks of the whole or, when that is too long for it, of nothing; that of a first
    // fragment of more than is there.
    let fits = claimed >= 8 && (at.first || claimed <= at.room);
    if at.room < 8 || (packet.segment_payload() == 0 && !fits) {
        return Err(DropReason::Malformed);
    }
    tuple.sport = Port { bytes: udp.sport };
    tuple.dport = Port { bytes: udp.dport };
    Ok((L4::Udp, 8))
}

/// Reads an SCTP common header (RFC 9260 section 3.1); returns its length too.
#[inline(always)]
fn sctp(at: &Transport<'_>, tuple: &mut Tuple) -> Result<(L4, u32), DropReason> {
    if at.room < 12 {
        return Err(DropReason::Malformed);
    }
    let [a, b, c, d] = at.start::<4>();
    tuple.sport = Port { bytes: [a, b] };
    tuple.dport = Port { bytes: [c, d] };
    Ok((L4::Sctp, 12))
}

/// Reads an ICMP message of either family. Every message has eight bytes (RFC 792, RFC 4443 section 2.1 with
/// the bodies it defines), but for ICMPv6 messages nobody has defined.
#[inline(always)]
fn message(at: &Transport<'_>, tuple: &mut Tuple) -> Result<L4, DropReason> {
    if at.room < 8 {
        return Err(DropReason::Malformed);
    }
    let echo: wire::Echo = bytemuck::cast(at.start::<8>());
    let is_echo =
        if tuple.proto == Proto::ICMP { icmp::is_echo(echo.kind) } else { icmp::is_v6_echo(echo.kind) };
    if !is_echo || echo.code != 0 {
        return Ok(L4::Icmp(echo.kind));
    }
    tuple.sport = Port { bytes: echo.identifier };
    tuple.dport = tuple.sport;
    Ok(L4::Echo)
}
