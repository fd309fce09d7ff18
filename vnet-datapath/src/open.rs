//! Beginning a flow: claiming a tuple for its answers, then remembering both directions.

use vnet_common::{CtEntry, CtState, DatapathConfig, DropReason, Origin, Port, Proto, Zone};

use crate::conntrack;
use crate::mappings;
use crate::scratch::{Scratch, SourcePorts};
use crate::step::{Step, Steps};
use crate::tables::{Flow, Tables};

/// Source ports tried before giving up. Each is a draw from the whole range: with nine in ten of them in use towards
/// one destination the chance of failing is 1 in 29, and with half of them none to speak of.
const MAX_TRIES: u32 = 32;

/// How many of these keep to even or odd ports: rather another port than none (RFC 7857 section 8).
const PARITY_TRIES: u8 = 16;

/// Tries from which on ports are scarce: with half of them in use towards one destination this is met once in 65,536
/// flows, with nine in ten once in five.
const SCARCE: u8 = 16;

/// Times that an endpoint at its limit looks for flows that are over.
const MAX_RECLAIMS: u32 = 4;

/// Begins a flow: from `scratch.tuple` to `scratch.translated`, whose source port becomes the first that was free and
/// whose answers nobody else waits for.
///
/// The entry for the answers is made first and only if there is none: of two CPUs, or two flows, that want the
/// same tuple one gets it. The entry for the opener follows; if that is refused the first is taken back.
///
/// Drops the packet when the endpoint has too many flows, or no port is free.
#[inline(always)]
pub(crate) fn open<S: Steps>(steps: &mut S, scratch: &mut Scratch) -> Step {
    if !steps.prepare(scratch) {
        let frozen = scratch.opening.frozen != 0;
        return Step::drop(if frozen { DropReason::Takeover } else { DropReason::Quota });
    }
    for attempt in 0..MAX_TRIES {
        scratch.opening.attempt = attempt as u8;
        if steps.try_port(scratch) {
            let complete = steps.complete(scratch);
            return if complete { Step::TRANSLATE } else { Step::drop(DropReason::FlowTableFull) };
        }
    }
    Step::drop(DropReason::NoFreePort)
}

/// Charges the endpoint that opens the flow, if one does, and describes the half for the answers; `false` if it has
/// too many flows, or none begins.
#[inline(always)]
pub fn prepare<T: Tables>(tables: &T, scratch: &mut Scratch) -> bool {
    let now = tables.now();
    if !afford(tables, scratch, now) {
        return false;
    }
    let Scratch { tuple, entry, opening, .. } = &mut *scratch;
    entry.packets = 0;
    entry.bytes = 0;
    entry.last_seen = now;
    entry.created = now;
    entry.mapping = opening.mapping;
    entry.state = CtState::New as u8;
    entry.flags = if opening.mapped != 0 { CtEntry::FLAG_MAPPED } else { 0 };
    if opening.routed != 0 {
        entry.flags |= CtEntry::FLAG_ROUTED;
    }
    if conntrack::is_brief(tuple) {
        entry.flags |= CtEntry::FLAG_BRIEF;
    }
    entry.reserved = 0;
    entry.translated = tuple.answer();
    entry.origin = Origin::Answer as u8;
    true
}

/// Adds the opener's half; `false` if that is impossible, and the other is taken back.
#[inline(always)]
pub fn complete<T: Tables>(tables: &T, scratch: &mut Scratch) -> bool {
    let Scratch { translated, entry, opening, .. } = &mut *scratch;
    entry.translated = *translated;
    entry.origin = Origin::Opener as u8;
    entry.packets = 1;
    entry.bytes = u64::from(opening.length);
    if tables.add_flow(&scratch.tuple, &scratch.entry).is_some() {
        // It may have been confirmed just now, in the other table.
        if !tables.is_confirmed(&scratch.tuple) {
            tables.flow_began(&scratch.tuple, &scratch.entry);
            scratch.happened |= Scratch::HAPPENED_BEGIN;
            return true;
        }
        tables.remove_unconfirmed(&scratch.tuple);
    }
    // Another packet of this flow was faster on another CPU (two datagrams of one socket): follow it.
    let Some(flow) = tables.conntrack(&scratch.tuple) else {
        tables.remove_flow(&scratch.answer);
        return false;
    };
    if !flow.leads_to_answer_of(&scratch.answer) {
        tables.remove_flow(&scratch.answer);
    } else if flow.origin() == Origin::Answer && scratch.tuple.zone != Zone::WORLD {
        // Its peer has opened it at the same time, through the mapping: each was faster with one half. The endpoint
        // has begun it, then.
        let own = tables.conntrack(&scratch.answer).is_some_and(|twin| twin.origin() == Origin::Answer);
        if own {
            tables.remove_unconfirmed(&scratch.tuple);
            let _ = tables.add_flow(&scratch.tuple, &scratch.entry);
        }
    }
    flow.translate(&mut scratch.translated);
    true
}

/// Charges the endpoint that opens the flow, if one does.
#[inline(always)]
fn afford<T: Tables>(tables: &T, scratch: &mut Scratch, now: u32) -> bool {
    let owner = scratch.opening.owner;
    let Some(config) = tables.config() else { return false };
    scratch.opening.frozen = u8::from(config.flags & DatapathConfig::FLAG_FROZEN != 0);
    if scratch.opening.frozen != 0 {
        return false;
    }
    if owner == 0 || (config.unanswered == 0 && config.endpoint_flows == 0) {
        return true;
    }
    for _ in 0..MAX_RECLAIMS {
        if tables.endpoint_use(owner, |used| conntrack::charge(used, config, now)).unwrap_or(false) {
            return true;
        }
        // Some of its flows may be over, and nobody has met them yet.
        let _ = conntrack::sweep(tables, scratch);
    }
    let _ = tables.endpoint_use(owner, |used| used.refused = used.refused.wrapping_add(1));
    false
}

/// Tries one source port: first that of the mapping, or else the opener's own, then one of the range at random.
#[inline(always)]
pub fn try_port<T: Tables>(tables: &T, scratch: &mut Scratch) -> bool {
    let opening = &scratch.opening;
    let mapped = opening.mapped != 0 && opening.ports == SourcePorts::Host as u8;
    let owned = mapped && mappings::port(tables, scratch);
    if owned && take(tables, scratch) {
        mappings::permit(tables, scratch);
        return true;
    }
    if !choose(tables, scratch) || (mapped && !mappings::claim(tables, scratch, owned)) {
        return false;
    }
    if take(tables, scratch) {
        if mapped {
            mappings::permit(tables, scratch);
        }
        return true;
    }
    if mapped {
        mappings::release(tables, scratch);
    }
    false
}

/// Chooses a source port: the opener's own at the first attempt, one of the range at random from then on, even for
/// even and odd for odd as long as there are such (RFC 4787 REQ-4). `false` if it will not do.
#[inline(always)]
fn choose<T: Tables>(tables: &T, scratch: &mut Scratch) -> bool {
    let Some(range) = tables.config().map(|config| config.nat_ports) else { return false };
    let Scratch { tuple, translated, answer, opening, .. } = scratch;
    let (wished, first) = (tuple.sport.number(), opening.attempt == 0);
    let echo = matches!(translated.proto, Proto::ICMP | Proto::ICMPV6);
    // The checksum of SCTP covers the ports: they stay, whoever chose them.
    let fixed = translated.proto == Proto::SCTP;
    let host = opening.ports == SourcePorts::Host as u8 && !fixed;
    if fixed && !first {
        return false;
    }
    if first {
        translated.sport = tuple.sport;
        // An identifier of a query is in nobody's range.
        if host && !echo && (wished < range.first || wished > range.last) {
            return false;
        }
    } else {
        let span = u32::from(range.last).saturating_sub(u32::from(range.first)).saturating_add(1);
        let draw = (u64::from(tables.random()).wrapping_mul(u64::from(span)) >> 32) as u16;
        let mut port = range.first.wrapping_add(draw);
        let keeps_parity = opening.attempt < PARITY_TRIES;
        if keeps_parity && (port ^ wished) & 1 != 0 && range.first != range.last {
            port = if port == range.last { port.wrapping_sub(1) } else { port.wrapping_add(1) };
        }
        translated.sport = Port::new(port);
        if echo {
            translated.dport = translated.sport;
        }
    }
    *answer = translated.answer();
    !(host && !echo && tables.host_socket(answer))
}

/// Takes the answers to `scratch.translated`, if nobody waits for them.
#[inline(always)]
fn take<T: Tables>(tables: &T, scratch: &mut Scratch) -> bool {
    scratch.answer = scratch.translated.answer();
    // A socket that sends to its own external port, and would be answered by itself: there is but one such tuple.
    if scratch.answer == scratch.tuple {
        return false;
    }
    if enter(tables, scratch) || (make_room(tables, scratch) && enter(tables, scratch)) {
        return true;
    }
    let Scratch { tuple, answer, entry, .. } = scratch;
    // It may be this very flow's: its other half was evicted, another CPU is about to add that, or has had an answer
    // already.
    let Some(flow) = tables.conntrack(answer).filter(|flow| flow.leads_to_answer_of(tuple)) else {
        return false;
    };
    if !tables.is_confirmed(answer) || tables.conntrack(tuple).is_some() {
        return true;
    }
    // The opener's half is confirmed first and goes first: this is what is left of a flow that has ended.
    if flow.origin() == Origin::Opener {
        return false;
    }
    tables.remove_flow(answer);
    tables.add_flow(answer, entry).is_some()
}

/// Adds the half for the answers, if there is none.
#[inline(always)]
fn enter<T: Tables>(tables: &T, scratch: &Scratch) -> bool {
    let Scratch { answer, entry, .. } = scratch;
    let moved = tables.moved();
    // Whether it is among the unconfirmed is found out by adding it there.
    if tables.is_confirmed(answer) || tables.add_flow(answer, entry).is_none() {
        return false;
    }
    if tables.moved() == moved || !tables.is_confirmed(answer) {
        return true;
    }
    // It was moved from one table to the other just now.
    tables.remove_unconfirmed(answer);
    false
}

/// Removes the flow that holds the answers' tuple if it has expired, or if ports are scarce and it is done.
#[inline(always)]
fn make_room<T: Tables>(tables: &T, scratch: &mut Scratch) -> bool {
    let Scratch { answer, spare, opening, .. } = scratch;
    let Some(held) = conntrack::lookup(tables, answer, spare) else { return true };
    let scarce = opening.attempt >= SCARCE;
    if scarce && conntrack::is_done(answer.proto, &held) {
        tables.end(answer, spare);
        return true;
    }
    false
}
