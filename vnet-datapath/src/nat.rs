//! Carrying out a decision: headers and checksums changed from one tuple to another.

use bytemuck::must_cast;
use vnet_common::Tuple;

use crate::checksum::Delta;
use crate::fragments;
use crate::packet::{Covers, Packet};
use crate::parse::{Headers, L4};
use crate::scratch::{Decided, Scratch};
use crate::wire;

/// Gives the packet of which `scratch` has the headers the tuple `scratch.translated`. One that goes on through the
/// host's stack is forwarded there, which does all else about the hop limit.
#[must_use]
#[inline(always)]
pub fn rewrite<P: Packet>(packet: &mut P, scratch: &Scratch) -> Option<()> {
    let Scratch { tuple, translated, headers, decided, .. } = scratch;
    Rewrite { headers, from: tuple, to: translated, hop: hop(decided) }.apply(packet)?;
    fragments::renumber(packet, scratch)
}

/// What a decision means for the hop limit.
#[inline(always)]
pub(crate) fn hop(decided: &Decided) -> Hop {
    if decided.is_pass() { Hop::Keep } else { Hop::Decrement }
}

/// What to do about the hop limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// The packet is being forwarded: one less (RFC 1812 section 5.3.1). The caller has checked that it is not 0.
    Decrement,
    /// The host's stack has forwarded it, or will.
    Keep,
}

/// A translation of one packet.
#[derive(Clone, Copy, Debug)]
pub struct Rewrite<'a> {
    /// What the packet's headers are.
    pub headers: &'a Headers,
    /// Its tuple.
    pub from: &'a Tuple,
    /// The tuple it gets, of the same family and protocol.
    pub to: &'a Tuple,
    /// What to do about the hop limit.
    pub hop: Hop,
}

impl Rewrite<'_> {
    /// Carries it out; `None` when the kernel refuses to write.
    #[must_use]
    #[inline(always)]
    pub fn apply<P: Packet>(&self, packet: &mut P) -> Option<()> {
        self.network(packet).and_then(|()| self.transport(packet))
    }

    /// The network header and, if they stand right behind it, the ports: as few calls of the kernel as can be.
    #[inline(always)]
    fn network<P: Packet>(&self, packet: &mut P) -> Option<()> {
        let Self { headers, from, to, hop } = self;
        let hop_limit = match hop {
            Hop::Decrement => headers.hop_limit.wrapping_sub(1),
            Hop::Keep => headers.hop_limit,
        };
        if headers.is_v4() {
            let (src, dst, proto) = (to.src.v4_bytes(), to.dst.v4_bytes(), to.proto.number);
            // The protocol shares the hop limit's word of the checksum and does not change.
            let delta = Delta::NONE
                .replace2([headers.hop_limit, 0], [hop_limit, 0])
                .replace4(from.src.v4_bytes(), src)
                .replace4(from.dst.v4_bytes(), dst);
            let sum = delta.apply(headers.checksum);
            let start = u32::from_ne_bytes([hop_limit, proto, sum[0], sum[1]]);
            let [src, dst] = [src, dst].map(u32::from_ne_bytes);
            if !self.has_adjacent_ports(wire::IPV4_PAYLOAD) {
                return packet.store(wire::IPV4_TTL, &must_cast::<_, [u8; 12]>([start, src, dst]));
            }
            return packet.store(wire::IPV4_TTL, &must_cast::<_, [u8; 16]>([start, src, dst, ports(to)]));
        }
        if *hop == Hop::Decrement {
            packet.store_uncompensated(wire::IPV6_HOP_LIMIT, hop_limit)?;
        }
        let ([a, b, c, d], [e, f, g, h]) = (to.src.words(), to.dst.words());
        if !self.has_adjacent_ports(wire::IPV6_PAYLOAD) {
            return packet.store(wire::IPV6_ADDRESSES, &must_cast::<_, [u8; 32]>([a, b, c, d, e, f, g, h]));
        }
        packet.store(wire::IPV6_ADDRESSES, &must_cast::<_, [u8; 36]>([a, b, c, d, e, f, g, h, ports(to)]))
    }

    /// Whether there are ports, and they stand at this offset.
    #[inline(always)]
    const fn has_adjacent_ports(&self, payload: u32) -> bool {
        self.headers.l4_offset == payload && self.headers.has_ports()
    }

    /// The transport checksum, and what [`Self::network`] has left of the ports.
    #[inline(always)]
    fn transport<P: Packet>(&self, packet: &mut P) -> Option<()> {
        let Self { headers, from, to, hop: _ } = self;
        // The checksum is in the first, and covers the whole datagram.
        if headers.piece.is_later() {
            return Some(());
        }
        let sum = headers.l4_checksum();
        if headers.l4() == L4::Sctp || headers.is_icmp() && headers.is_v4() {
            // These alone have no pseudo-header (RFC 9260, RFC 792).
        } else {
            let addresses = Delta::NONE.replace_addr(&from.src, &to.src).replace_addr(&from.dst, &to.dst);
            let covers = if headers.is_v4() { Covers::PseudoHeaderV4 } else { Covers::PseudoHeaderV6 };
            packet.fix_l4(sum, addresses, covers)?;
        }
        if from.sport == to.sport && from.dport == to.dport {
            return Some(());
        }
        if headers.l4() == L4::Echo {
            packet.fix_l4(sum, Delta::NONE.replace2(from.sport.bytes, to.sport.bytes), Covers::Body)?;
            return packet.store(headers.l4_offset.wrapping_add(wire::ICMP_IDENTIFIER), &to.sport.bytes);
        }
        let delta =
            Delta::NONE.replace2(from.sport.bytes, to.sport.bytes).replace2(from.dport.bytes, to.dport.bytes);
        packet.fix_l4(sum, delta, Covers::Body)?;
        let payload = if headers.is_v4() { wire::IPV4_PAYLOAD } else { wire::IPV6_PAYLOAD };
        if self.has_adjacent_ports(payload) {
            return Some(());
        }
        packet.store(headers.l4_offset, &ports(to).to_ne_bytes())
    }
}

/// Both ports as they stand in a header.
#[inline(always)]
const fn ports(tuple: &Tuple) -> u32 {
    must_cast([tuple.sport, tuple.dport])
}
