//! ICMP errors about packets of tracked flows, to whoever sent those (RFC 5508 sections 4.2 to 4.4).
//!
//! An error quotes the packet that it is about as its sender, the router or the receiver, met it. So the answer to the
//! quoted packet, coming from the side that the error comes from, is a packet of the flow: what that becomes says who
//! is to get the error, and what he had sent. Headers are changed outside and inside; the flow itself is not: an error
//! neither refreshes nor ends it, since anybody could have made it up (RFC 4787 REQ-12, RFC 5508 REQ-6).
//!
//! A wrong checksum of the message itself is not looked for: it only changes by a difference, and so stays wrong for
//! its receiver to find.

use bytemuck::{Pod, Zeroable};
use vnet_common::{Addr, DropReason, Hook, Port, Proto, Tuple, Zone};

use crate::checksum::{Delta, Sum};
use crate::conntrack;
use crate::nat::{Rewrite, hop};
use crate::packet::{Covers, Packet};
use crate::parse::{Headers, IPV4_HEADER, MAX_EXTENSIONS};
use crate::scratch::Scratch;
use crate::step::Step;
use crate::tables::{Flow, Route, Source, Tables};
use crate::verdict::Verdict;
use crate::ways;
use crate::wire::{self, extension, icmp};

/// Words of options that an IPv4 header can have.
const MAX_OPTIONS: u32 = 10;

/// What every quote must have of the transport header (RFC 792): ports, or the identifier of a query.
const TRANSPORT: u32 = 8;

/// Where the headers stand that an ICMP error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Quoted {
    /// Offset of the network header.
    pub network: u32,
    /// Offset of the transport header.
    pub transport: u32,
    /// Offset of the first byte behind what is quoted.
    pub end: u32,
    /// The [`Hook`] on which the error was met.
    pub hook: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Decides on an ICMP error. [`Step::BEGIN`] if it is about no tracked flow, [`Step::RELAY`] if it is: then the tuple
/// quoted is in `scratch.noted`, and `scratch.translated` is what the answer to that becomes.
#[must_use]
#[inline(always)]
pub fn relate<P: Packet, T: Tables>(packet: &P, tables: &T, scratch: &mut Scratch) -> Step {
    let hook = Hook::from_u8(scratch.quoted.hook).unwrap_or(Hook::FromUplink);
    if quoted(packet, scratch).is_none() || !find(tables, scratch) {
        return if hook == Hook::ToUplink { Step::drop(DropReason::Unrelated) } else { Step::BEGIN };
    }
    if scratch.headers.is_v4() && !adds_up(packet, scratch.quoted) {
        return Step::drop(DropReason::Malformed);
    }
    Step::of(way(tables, scratch, hook))
}

/// Finds the flow, from the packet quoted. The error must be for the sender of that and, if an endpoint sends it, about
/// a packet that the same endpoint has received.
#[inline(always)]
fn find<T: Tables>(tables: &T, scratch: &mut Scratch) -> bool {
    let Scratch { tuple, translated, answer, spare, noted, .. } = scratch;
    if noted.src != tuple.dst {
        return false;
    }
    if tuple.zone != Zone::WORLD {
        let (Some(sender), Some(receiver)) = (tables.endpoint(&tuple.src), tables.endpoint(&noted.dst))
        else {
            return false;
        };
        if sender.ifindex != receiver.ifindex {
            return false;
        }
    }
    *answer = noted.answer();
    let Some(tracked) = conntrack::lookup(tables, answer, spare) else { return false };
    tracked.flow.translate(translated);
    true
}

/// The way of an error about a packet of a flow.
#[inline(always)]
fn way<T: Tables>(tables: &T, scratch: &mut Scratch, hook: Hook) -> Result<Step, Step> {
    let Scratch { tuple, translated, headers, decided, .. } = scratch;
    let to_world = translated.zone == Zone::WORLD;
    decided.keep(match hook {
        Hook::ToUplink if to_world => Verdict::Pass,
        Hook::ToUplink => return Err(Step::drop(DropReason::Untranslatable)),
        Hook::FromEndpoint if to_world => {
            let Some(bridge) = tables.endpoint(&tuple.src).map(|sender| sender.bridge) else {
                return Err(Step::drop(DropReason::SourceAddress));
            };
            match ways::route(tables, headers, ways::query(headers, tuple, bridge, Source::Given)) {
                Some(Route::Via(next_hop, _)) => Verdict::Forward(next_hop),
                // The stack forwards it whole, and it is translated when it leaves.
                _ => return Ok(Step::PASS),
            }
        }
        Hook::FromUplink if to_world => return Ok(Step::PASS),
        Hook::ToBridge | Hook::ToNetwork | Hook::FromHold | Hook::XdpUplink | Hook::Shape => {
            return Ok(Step::PASS);
        }
        Hook::FromEndpoint | Hook::FromUplink => ways::deliver(tables, headers, &translated.dst)?,
    });
    Ok(Step::RELAY)
}

/// Gives the error its new headers, and the packet quoted those that it had been sent with.
#[must_use]
#[inline(always)]
pub fn relay<P: Packet>(packet: &mut P, scratch: &mut Scratch) -> Option<()> {
    let Scratch { tuple, translated, answer, spare, noted, headers, quoted, decided, .. } = scratch;
    *spare = *tuple;
    spare.dst = translated.dst;
    if tuple.zone != Zone::WORLD {
        // The endpoint's own address means nothing on the other side; a router's in the world does.
        spare.src = translated.src;
    }
    Rewrite { headers, from: tuple, to: spare, hop: hop(decided) }.apply(packet)?;
    *answer = translated.answer();
    let quote = Quote { quoted, from: noted, to: answer };
    let network = if headers.is_v4() { quote.ipv4(packet)? } else { quote.ipv6(packet)? };
    let changed = quote.transport(packet, headers, network)?;
    packet.fix_l4(headers.l4_checksum(), changed, Covers::Body)
}

/// The packet quoted, its tuple, and the one that it gets.
struct Quote<'a> {
    quoted: &'a Quoted,
    from: &'a Tuple,
    to: &'a Tuple,
}

impl Quote<'_> {
    /// Changes the addresses of an IPv4 header; returns what that means for the message.
    #[inline(always)]
    fn ipv4<P: Packet>(&self, packet: &mut P) -> Option<Delta> {
        let Self { quoted, from, to } = self;
        let at = quoted.network.wrapping_add(wire::IPV4_CHECKSUM - wire::NETWORK);
        let sum = packet.load::<2>(at)?;
        let ([a, b, c, d], [e, f, g, h]) = (to.src.v4_bytes(), to.dst.v4_bytes());
        let addresses = Delta::NONE
            .replace4(from.src.v4_bytes(), [a, b, c, d])
            .replace4(from.dst.v4_bytes(), [e, f, g, h]);
        let [i, j] = addresses.apply(sum);
        packet.store(at, &[i, j, a, b, c, d, e, f, g, h])?;
        Some(addresses.replace2(sum, [i, j]))
    }

    /// Changes the addresses of an IPv6 header; returns what that means for the message.
    #[inline(always)]
    fn ipv6<P: Packet>(&self, packet: &mut P) -> Option<Delta> {
        let Self { quoted, from, to } = self;
        let at = quoted.network.wrapping_add(wire::IPV6_ADDRESSES - wire::NETWORK);
        packet.store(at, &to.src.bytes)?;
        packet.store(at.wrapping_add(16), &to.dst.bytes)?;
        Some(Delta::NONE.replace_addr(&from.src, &to.src).replace_addr(&from.dst, &to.dst))
    }

    /// Changes ports or identifier and, as far as it is quoted, the checksum: just as Linux does (`nf_nat_proto.c`),
    /// although nobody looks at it (RFC 5508 REQ-3c). Returns what all changes mean for the message.
    #[inline(always)]
    fn transport<P: Packet>(&self, packet: &mut P, headers: &Headers, network: Delta) -> Option<Delta> {
        let Self { quoted, from, to } = self;
        let echo = matches!(from.proto, Proto::ICMP | Proto::ICMPV6);
        let ports = Delta::NONE.replace2(from.sport.bytes, to.sport.bytes);
        let ports = if echo { ports } else { ports.replace2(from.dport.bytes, to.dport.bytes) };
        if echo {
            packet.store(quoted.transport.wrapping_add(wire::ICMP_IDENTIFIER), &to.sport.bytes)?;
        } else {
            let ([a, b], [c, d]) = (to.sport.bytes, to.dport.bytes);
            packet.store(quoted.transport, &[a, b, c, d])?;
        }
        let field = match from.proto {
            Proto::TCP => wire::TCP_CHECKSUM,
            Proto::UDP => wire::UDP_CHECKSUM,
            // Covers no address, and ports stay.
            Proto::SCTP => return Some(network.and(ports)),
            _ => wire::ICMP_CHECKSUM,
        };
        let changed = network.and(ports);
        let at = quoted.transport.wrapping_add(field);
        if at.wrapping_add(2) > quoted.end {
            return Some(changed);
        }
        let covered = if echo && headers.is_v4() {
            ports
        } else {
            ports.replace_addr(&from.src, &to.src).replace_addr(&from.dst, &to.dst)
        };
        let sum = packet.load::<2>(at)?;
        let new = if from.proto == Proto::UDP { covered.apply_unless_zero(sum) } else { covered.apply(sum) };
        packet.store(at, &new)?;
        Some(changed.replace2(sum, new))
    }
}

/// Reads the headers quoted: where they stand, and the tuple, as of a packet that comes from where the error does.
/// `None` if they are cut short, or of a packet without ports.
#[inline(always)]
fn quoted<P: Packet>(packet: &P, scratch: &mut Scratch) -> Option<()> {
    let Scratch { tuple, noted, headers, quoted, .. } = scratch;
    let message = headers.l4_offset;
    quoted.network = message.wrapping_add(TRANSPORT);
    quoted.end = end(packet, headers, message)?;
    let proto = if headers.is_v4() { ipv4(packet, noted, quoted)? } else { ipv6(packet, noted, quoted)? };
    if quoted.transport.wrapping_add(TRANSPORT) > quoted.end {
        return None;
    }
    noted.zone = tuple.zone;
    noted.proto = Proto { number: proto };
    noted.reserved = 0;
    let start = packet.load::<8>(quoted.transport)?;
    let [a, b, c, d, e, f, ..] = start;
    match noted.proto {
        Proto::TCP | Proto::UDP | Proto::SCTP => {
            noted.sport = Port { bytes: [a, b] };
            noted.dport = Port { bytes: [c, d] };
        }
        Proto::ICMP if headers.is_v4() && icmp::is_echo(a) && b == 0 => {
            noted.sport = Port { bytes: [e, f] };
            noted.dport = noted.sport;
        }
        Proto::ICMPV6 if !headers.is_v4() && icmp::is_v6_echo(a) && b == 0 => {
            noted.sport = Port { bytes: [e, f] };
            noted.dport = noted.sport;
        }
        _ => return None,
    }
    Some(())
}

/// Where the quote ends: at the end of the message or, if that says so, where its extensions begin (RFC 4884
/// section 4).
#[inline(always)]
fn end<P: Packet>(packet: &P, headers: &Headers, message: u32) -> Option<u32> {
    let [kind, _, _, _, length6, length4, _, _] = packet.load::<8>(message)?;
    let all = wire::NETWORK.wrapping_add(headers.length);
    let length = if headers.is_v4() {
        u32::from(length4).wrapping_mul(4)
    } else if kind == icmp::V6_UNREACHABLE || kind == icmp::V6_TIME_EXCEEDED {
        u32::from(length6).wrapping_mul(8)
    } else {
        0
    };
    let said = message.wrapping_add(TRANSPORT).wrapping_add(length);
    Some(if length == 0 || said > all { all } else { said })
}

/// Reads an IPv4 header; returns the protocol.
#[inline(always)]
fn ipv4<P: Packet>(packet: &P, tuple: &mut Tuple, quoted: &mut Quoted) -> Option<u8> {
    let header: wire::Ipv4 = bytemuck::cast(packet.load::<20>(quoted.network)?);
    let length = u32::from(header.version_ihl & 0x0f).wrapping_mul(4);
    if header.version_ihl >> 4 != 4 || length < IPV4_HEADER {
        return None;
    }
    // Only the first fragment of a datagram has ports.
    if u16::from_be_bytes(header.fragment) & 0x1fff != 0 {
        return None;
    }
    tuple.src = Addr::v4(header.src);
    tuple.dst = Addr::v4(header.dst);
    quoted.transport = quoted.network.wrapping_add(length);
    Some(header.proto)
}

/// Reads an IPv6 header and the extension headers behind it; returns the protocol.
#[inline(always)]
fn ipv6<P: Packet>(packet: &P, tuple: &mut Tuple, quoted: &mut Quoted) -> Option<u8> {
    let header: wire::Ipv6 = bytemuck::cast(packet.load::<40>(quoted.network)?);
    if header.version_class_flow[0] >> 4 != 6 {
        return None;
    }
    tuple.src = Addr::v6(header.src);
    tuple.dst = Addr::v6(header.dst);
    quoted.transport = quoted.network.wrapping_add(wire::IPV6_PAYLOAD - wire::NETWORK);
    let mut proto = header.next_header;
    for _ in 0..MAX_EXTENSIONS {
        let [next, length, high, low] = match proto {
            extension::HOP_BY_HOP | extension::ROUTING | extension::DESTINATION | extension::FRAGMENT => {
                packet.load::<4>(quoted.transport)?
            }
            _ => return Some(proto),
        };
        let words = if proto == extension::FRAGMENT { 0 } else { length };
        // Only the first fragment of a datagram has ports.
        if proto == extension::FRAGMENT && u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
            return None;
        }
        proto = next;
        quoted.transport = quoted.transport.wrapping_add(u32::from(words).wrapping_add(1).wrapping_mul(8));
    }
    None
}

/// Whether the checksum of the IPv4 header quoted is right (RFC 5508 REQ-3a).
#[inline(always)]
fn adds_up<P: Packet>(packet: &P, quoted: Quoted) -> bool {
    let Some(header) = packet.load::<20>(quoted.network) else { return false };
    let [a, b, c, d, e] = bytemuck::cast::<_, [[u8; 4]; 5]>(header);
    let mut sum = Sum::NONE.add4(a).add4(b).add4(c).add4(d).add4(e);
    let mut at = quoted.network.wrapping_add(IPV4_HEADER);
    for _ in 0..MAX_OPTIONS {
        if at >= quoted.transport {
            break;
        }
        let Some(word) = packet.load::<4>(at) else { return false };
        sum = sum.add4(word);
        at = at.wrapping_add(4);
    }
    sum.is_whole()
}
