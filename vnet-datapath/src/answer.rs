//! What a router says about a packet that it drops (RFC 1812 section 4.3, RFC 4443 section 3, RFC 5508 REQ-8): the
//! host's stack would, had it seen the packet.
//!
//! Whoever is in the world is told only what a router on the way could have told him: the hop limit ran out, or the
//! packet is too big for the endpoint, which is how he learns the MTU of the path. An endpoint is also told that it
//! has been refused, so that its programs fail at once instead of waiting. Nothing is said to whoever may have forged
//! his address, or about a packet that is an error itself.

use bytemuck::{Pod, Zeroable};
use vnet_common::{Addr, DatapathConfig, DropReason, EndpointValue, Mac, Proto, Zone};

use crate::checksum::Sum;
use crate::packet::Packet;
use crate::scratch::Scratch;
use crate::tables::Tables;
use crate::wire::{self, ethertype, icmp};

/// Most bytes of a packet that an IPv4 error quotes: a message has 576 at most (RFC 1812 section 4.3.2.3).
const MAX_QUOTE_V4: u32 = 576 - 20 - 8;
/// Most bytes of a packet that an IPv6 error quotes: a message fits the least MTU (RFC 4443 section 2.4 (c)).
const MAX_QUOTE_V6: u32 = 1280 - 40 - 8;
/// The larger of both.
pub const MAX_QUOTE: u32 = MAX_QUOTE_V6;

/// Bytes of an ICMP header, of either family.
const ICMP_HEADER: u32 = 8;

/// IPv4's type of service of an error: precedence "internetwork control" (RFC 1812 section 4.3.2.5).
const INTERNETWORK_CONTROL: u8 = 0xc0;
/// Hops that an error may make.
const HOP_LIMIT: u8 = 64;

/// An error about the packet at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Answer {
    /// Who says so: the address that was dialled or, to an endpoint, its gateway.
    pub src: Addr,
    /// Who sent the packet.
    pub dst: Addr,
    /// The interface by which the error leaves.
    pub ifindex: u32,
    /// Bytes of the packet, from its network header on, that are quoted.
    pub quote: u16,
    /// What fits, for a packet that is too big.
    pub mtu: u16,
    /// The [`DropReason`].
    pub reason: u8,
    /// ICMP type; 0 if there is no answer.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// 1 if the link addresses are given; otherwise they are the packet's, exchanged.
    pub routed: u8,
    /// Hardware address of an endpoint that gets it.
    pub to: Mac,
    /// Hardware address from which that gets it.
    pub from: Mac,
}

impl Answer {
    /// Whether there is one.
    #[must_use]
    #[inline(always)]
    pub const fn is_wanted(&self) -> bool {
        self.kind != 0
    }
}

/// Errors that a CPU has answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Budget {
    /// Seconds since boot.
    pub second: u32,
    /// How many in that second.
    pub spent: u32,
}

/// Whether one more may be sent.
#[inline(always)]
fn spend(budget: &mut Budget, config: &DatapathConfig, now: u32) -> bool {
    if budget.second != now {
        *budget = Budget { second: now, spent: 0 };
    }
    if budget.spent >= config.icmp_errors {
        return false;
    }
    budget.spent = budget.spent.wrapping_add(1);
    true
}

/// Whether the reason for which a packet is dropped may be worth an answer.
#[must_use]
#[inline(always)]
pub const fn is_answered(reason: DropReason) -> bool {
    message(reason, true, false).is_some()
}

/// Type and code of the error, to the world or to an endpoint.
#[inline(always)]
const fn message(reason: DropReason, v4: bool, world: bool) -> Option<(u8, u8)> {
    use DropReason::{
        FlowTableFull, HopLimit, Internal, NoFreePort, NoMasquerade, NoSourceAddress, NotAnUplink,
        OtherNetwork, Quota, TooBig,
    };
    Some(match (reason, v4) {
        (TooBig, true) => (icmp::UNREACHABLE, icmp::FRAGMENTATION_NEEDED),
        (TooBig, false) => (icmp::V6_TOO_BIG, 0),
        (HopLimit, true) => (icmp::TIME_EXCEEDED, 0),
        (HopLimit, false) => (icmp::V6_TIME_EXCEEDED, 0),
        _ if world => return None,
        (Quota | NoFreePort | FlowTableFull | Internal | OtherNetwork | NoMasquerade | NotAnUplink, true) => {
            (icmp::UNREACHABLE, icmp::PROHIBITED)
        }
        (
            Quota | NoFreePort | FlowTableFull | Internal | OtherNetwork | NoMasquerade | NotAnUplink,
            false,
        ) => (icmp::V6_UNREACHABLE, icmp::V6_PROHIBITED),
        (NoSourceAddress, true) => (icmp::UNREACHABLE, icmp::NO_ROUTE),
        (NoSourceAddress, false) => (icmp::V6_UNREACHABLE, icmp::NO_ROUTE),
        _ => return None,
    })
}

/// Decides whether the packet that is dropped for `scratch.answering.reason` is answered, and with what.
#[inline(always)]
pub fn decide<T: Tables>(tables: &T, scratch: &mut Scratch) {
    if describe(tables, scratch).is_none() || !may_answer(tables) {
        scratch.answering.kind = 0;
    }
}

/// Whether this CPU may answer once more (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 (f)).
#[inline(always)]
fn may_answer<T: Tables>(tables: &T) -> bool {
    let now = tables.now();
    let Some(config) = tables.config() else { return false };
    tables.icmp_budget(|budget| spend(budget, config, now)).unwrap_or(false)
}

/// Describes the answer, if the packet may have one (RFC 1812 section 4.3.2.7, RFC 4443 section 2.4 (e)).
#[inline(always)]
fn describe<T: Tables>(tables: &T, scratch: &mut Scratch) -> Option<()> {
    let Scratch { tuple, translated, headers, place, answering, .. } = scratch;
    let reason = DropReason::from_u8(answering.reason)?;
    let world = tuple.zone == Zone::WORLD;
    // No error answers an error; a later fragment has no ports, and so cannot be translated.
    if !headers.is_translatable() || !is_somebody(&tuple.src) || tuple.dst.is_multicast_or_broadcast() {
        return None;
    }
    let (kind, code) = message(reason, headers.is_v4(), world)?;
    answering.mtu =
        if reason as u8 == DropReason::TooBig as u8 { tables.endpoint(&translated.dst)?.mtu } else { 0 };
    if world {
        // Forged: an answer would go to the host itself, or to an endpoint.
        if tables.host_address(&tuple.src).is_some() || tables.network(&tuple.src).is_some() {
            return None;
        }
        let dialled = tables.host_address(&tuple.dst).is_some() || tables.floating(&tuple.dst).is_some();
        answering.src = if dialled {
            tuple.dst
        } else {
            let uplink = tables.uplink(place.ifindex)?;
            if headers.is_v4() { uplink.v4 } else { uplink.v6 }
        };
        answering.ifindex = place.ifindex;
        answering.routed = 0;
    } else {
        let EndpointValue { ifindex, mac, gateway_mac, .. } = *tables.endpoint(&tuple.src)?;
        answering.src = tables.network(&tuple.src)?.gateway;
        answering.ifindex = ifindex;
        answering.routed = 1;
        answering.to = mac;
        answering.from = gateway_mac;
    }
    if answering.src.is_unspecified() {
        return None;
    }
    answering.dst = tuple.src;
    let most = if headers.is_v4() { MAX_QUOTE_V4 } else { MAX_QUOTE_V6 };
    answering.quote = if headers.length > most { most } else { headers.length } as u16;
    answering.kind = kind;
    answering.code = code;
    Some(())
}

/// Whether an address is one that somebody could have, and be sent an answer to.
#[inline(always)]
const fn is_somebody(addr: &Addr) -> bool {
    !addr.is_unspecified() && !addr.is_loopback() && !addr.is_multicast_or_broadcast()
}

/// Makes the packet the error about itself that is in `scratch.answering`; `None` if it is not to be answered after
/// all, or cannot be changed: then it is good for nothing but to be dropped.
#[must_use]
#[inline(always)]
pub fn build<P: Packet>(packet: &mut P, scratch: &Scratch) -> Option<()> {
    let Scratch { answering, headers, .. } = scratch;
    let [a, b, c, d, e, f, g, h, i, j, k, l] = packet.load::<12>(0)?;
    // What everybody on the link has got, everybody would answer.
    if a & 1 != 0 {
        return None;
    }
    let link = if answering.routed != 0 {
        let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (answering.to.bytes, answering.from.bytes);
        [a, b, c, d, e, f, g, h, i, j, k, l]
    } else {
        [g, h, i, j, k, l, a, b, c, d, e, f]
    };
    let v4 = headers.is_v4();
    let message = if v4 { wire::IPV4_PAYLOAD } else { wire::IPV6_PAYLOAD };
    let quote = packet.quote(message.wrapping_add(ICMP_HEADER), answering.quote)?;
    packet.store(0, &link)?;
    packet.store(12, if v4 { &ethertype::IPV4 } else { &ethertype::IPV6 })?;
    let pseudo = if v4 { ipv4(packet, answering)? } else { ipv6(packet, answering)? };
    let [high, low] = answering.mtu.to_be_bytes();
    let first = |[a, b]: [u8; 2]| [answering.kind, answering.code, a, b];
    // What fits (RFC 1191 section 4, RFC 4443 section 3.2), or nothing.
    let second = [0, 0, high, low];
    let sum = pseudo.and(quote).add4(first([0, 0])).add4(second);
    let ([a, b, c, d], [e, f, g, h]) = (first(sum.checksum()), second);
    packet.store(message, &[a, b, c, d, e, f, g, h])
}

/// Writes the IPv4 header; the message is summed without it.
#[inline(always)]
fn ipv4<P: Packet>(packet: &mut P, answer: &Answer) -> Option<Sum> {
    let header = |checksum| wire::Ipv4 {
        version_ihl: 0x45,
        tos: INTERNETWORK_CONTROL,
        total_length: answer.quote.wrapping_add(20).wrapping_add(ICMP_HEADER as u16).to_be_bytes(),
        // Not to be fragmented, and so it needs no identification (RFC 6864 section 4.1).
        id: [0, 0],
        fragment: [0x40, 0],
        ttl: HOP_LIMIT,
        proto: Proto::ICMP.number,
        checksum,
        src: answer.src.v4_bytes(),
        dst: answer.dst.v4_bytes(),
    };
    let [a, b, c, d, e] = bytemuck::cast::<_, [[u8; 4]; 5]>(header([0, 0]));
    let sum = Sum::NONE.add4(a).add4(b).add4(c).add4(d).add4(e);
    packet.store(wire::NETWORK, &bytemuck::cast::<_, [u8; 20]>(header(sum.checksum())))?;
    Some(Sum::NONE)
}

/// Writes the IPv6 header; returns the sum of the pseudo-header (RFC 8200 section 8.1).
#[inline(always)]
fn ipv6<P: Packet>(packet: &mut P, answer: &Answer) -> Option<Sum> {
    let Answer { src, dst, .. } = answer;
    let [high, low] = answer.quote.wrapping_add(ICMP_HEADER as u16).to_be_bytes();
    let proto = Proto::ICMPV6.number;
    packet.store(wire::NETWORK, &[0x60, 0, 0, 0, high, low, proto, HOP_LIMIT])?;
    packet.store(wire::IPV6_ADDRESSES, &src.bytes)?;
    packet.store(wire::IPV6_ADDRESSES + 16, &dst.bytes)?;
    Some(Sum::NONE.add_addr(src).add_addr(dst).add4([0, 0, high, low]).add4([0, 0, 0, proto]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_answers_so_often_in_a_second_and_no_more() {
        let config = DatapathConfig { icmp_errors: 3, ..DatapathConfig::DEFAULT };
        let mut budget = Budget::zeroed();
        let sent = |budget: &mut Budget, now| (0..10).filter(|_| spend(budget, &config, now)).count();
        assert_eq!(sent(&mut budget, 7), 3);
        assert_eq!(sent(&mut budget, 7), 0);
        assert_eq!(sent(&mut budget, 8), 3);
        assert!(!spend(&mut budget, &DatapathConfig { icmp_errors: 0, ..config }, 9));
    }

    /// Silence is the answer to the world: what it may know of is the path alone.
    #[test]
    fn the_world_is_told_of_the_path_alone() {
        for reason in DropReason::ALL {
            for v4 in [true, false] {
                let path = matches!(reason, DropReason::TooBig | DropReason::HopLimit);
                assert_eq!(message(*reason, v4, true).is_some(), path, "{reason:?}");
                assert_eq!(message(*reason, v4, false).is_some(), is_answered(*reason), "{reason:?}");
            }
        }
    }
}
