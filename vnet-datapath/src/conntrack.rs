//! The life of a flow: which state follows which, how long each is kept, and when it is confirmed.
//!
//! A flow begins in the table of the unconfirmed, where the least recently used make room: a flood of forged
//! packets fills that and nothing else. It is *confirmed* once both sides have shown that they hear each other, and
//! moves to a table where nobody makes room for anybody: it ends by its timeout. Expired flows are recognised when
//! they are met; so that their room is found too, every confirmed flow is noted in a slot, and whoever needs a slot
//! looks at the next few in turn.

use vnet_common::{Addr, CtEntry, CtState, DatapathConfig, EndpointUse, Origin, Port, Proto, Tuple, Zone};

use crate::mappings;
use crate::scratch::Scratch;
use crate::step::Step;
use crate::tables::{Flow, Tables};
use crate::wire::tcp;

/// Slots looked at for one new confirmed flow. With room for a hundred thousand flows and one in a hundred expired,
/// one look in seven finds none; the flow then stays unconfirmed and looks again with its next packet.
const MAX_SLOTS: u32 = 16;

/// Seconds of silence after which a connection that was reset is done.
const AFTER_RESET: u32 = 10;

/// Seconds of silence after which a closed connection is done: nobody keeps the state TIME-WAIT for longer.
const AFTER_CLOSING: u32 = 120;

/// Where name servers listen (RFC 1035 section 4.2.1).
const DNS: Port = Port::new(53);

/// What a packet means for the state of its flow.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    /// Its direction.
    pub origin: Origin,
    /// Its TCP flags, 0 for other protocols.
    pub flags: u8,
    /// Whether the opener is an endpoint, whose address is its own: an answer to it has been asked for. Anybody else
    /// must first show that it hears the answers.
    pub trusted: bool,
}

/// The state after a packet.
///
/// RFC 7857 section 2, in the form that needs no sequence numbers: after one FIN the other side may go on for as long
/// as it likes, after both the flow is closing; a RST moves a connection to its transitory time but never ends it at
/// once (a forged one must not), and any later packet brings it back; a new SYN begins a closing one anew.
#[must_use]
#[inline(always)]
pub const fn next(state: CtState, sighting: Sighting) -> CtState {
    use CtState::{AnswerClosed, Answered, Closing, Established, New, OpenerClosed, Reset};
    let Sighting { origin, flags, trusted } = sighting;
    if flags & tcp::RST != 0 {
        return Reset;
    }
    if flags & tcp::FIN != 0 {
        return match (state, origin) {
            (New, Origin::Opener) => New,
            (New | Answered | Established, Origin::Answer) => AnswerClosed,
            (Answered | Established, Origin::Opener) => OpenerClosed,
            (OpenerClosed, Origin::Answer) | (AnswerClosed, Origin::Opener) => Closing,
            (state, _) => state,
        };
    }
    let opens = flags & (tcp::SYN | tcp::ACK) == tcp::SYN;
    match (state, origin) {
        (New, Origin::Answer) if trusted => Established,
        (New, Origin::Answer) => Answered,
        (Closing | Reset, Origin::Opener) if opens => New,
        // A repeated SYN shows nothing.
        (Answered, Origin::Opener) if !opens => Established,
        (Reset, _) => Answered,
        (state, _) => state,
    }
}

/// Whether a packet that leads from one state to another confirms the flow.
#[inline(always)]
const fn confirms(old: CtState, new: CtState) -> bool {
    matches!(old, CtState::New | CtState::Answered)
        && matches!(new, CtState::Established | CtState::OpenerClosed | CtState::AnswerClosed)
}

/// Whether a flow is [brief](CtEntry::FLAG_BRIEF), by the tuple of its opener's packets.
///
/// Many a resolver asks each question from a socket of its own, and a socket that has its answer is not heard of again.
/// What somebody outside asks an endpoint is none of these: it holds no external port.
#[must_use]
#[inline(always)]
pub fn is_brief(opener: &Tuple) -> bool {
    opener.proto == Proto::UDP && opener.dport == DNS && opener.zone != Zone::WORLD
}

/// Seconds without a packet after which a flow with these [`CtEntry::flags`] is over. SCTP is kept as TCP is, by what
/// little is known of it.
#[must_use]
#[inline(always)]
pub const fn timeout(config: &DatapathConfig, proto: Proto, state: CtState, flags: u8) -> u32 {
    if flags & CtEntry::FLAG_BRIEF != 0 {
        return config.dns;
    }
    match (proto, state) {
        (Proto::TCP | Proto::SCTP, CtState::New | CtState::Answered) => config.tcp_opening,
        (Proto::TCP | Proto::SCTP, CtState::Closing | CtState::Reset) => config.tcp_closing,
        (Proto::TCP | Proto::SCTP, _) => config.tcp_established,
        (Proto::UDP, CtState::New) => config.udp_unreplied,
        (Proto::UDP, _) => config.udp_replied,
        (_, _) => config.icmp_query,
    }
}

/// Whether a connection's tuple may be given to another where there are none left, though its time is not up: both sides
/// have closed it, or one has reset it, and neither was heard of for long enough.
///
/// RFC 5382 REQ-5 wants 4 minutes in case the reset was forged or the last segments are lost, and this is what all
/// have who have ports enough. Where there are none the choice is between that and refusing a new connection: nf_conntrack
/// gives both up after these times always (`nf_conntrack_tcp_timeout_close`, `nf_conntrack_tcp_timeout_time_wait`).
#[inline(always)]
pub(crate) fn is_done<F: Flow>(proto: Proto, held: &Tracked<F>) -> bool {
    let quiet = match held.flow.state() {
        CtState::Reset => AFTER_RESET,
        CtState::Closing => AFTER_CLOSING,
        _ => return false,
    };
    proto == Proto::TCP && held.now.saturating_sub(held.flow.last_seen()) > quiet
}

/// A live entry, and the time at which it was looked up, in seconds since boot.
#[derive(Debug)]
pub struct Tracked<F> {
    /// The entry in place.
    pub flow: F,
    /// The time of the look.
    pub now: u32,
}

/// The live entry of a tuple. An expired one is removed with its twin, so that its slot and its port are free;
/// `spare` is only written then.
#[inline(always)]
pub fn lookup<'t, T: Tables>(
    tables: &'t T,
    tuple: &Tuple,
    spare: &mut Tuple,
) -> Option<Tracked<T::Flow<'t>>> {
    let flow = tables.conntrack(tuple)?;
    let now = tables.now();
    if !is_over(tables, tuple.proto, &flow, now)? {
        return Some(Tracked { flow, now });
    }
    tables.end(tuple, spare);
    None
}

#[inline(always)]
fn is_over<T: Tables>(tables: &T, proto: Proto, flow: &T::Flow<'_>, now: u32) -> Option<bool> {
    let idle = now.saturating_sub(flow.last_seen());
    Some(idle > timeout(tables.config()?, proto, flow.state(), flow.flags()))
}

/// Removes the flow of which there is an entry at `tuple`, and says whether it did; leaves the twin's tuple in `spare`. Evicted halves leave
/// tuples behind that another flow may have taken since: its half is not ours to remove.
///
/// The opener's half goes first, as it comes first (see `confirm`): the other alone is that of a flow that ends.
#[inline(always)]
pub fn end<T: Tables>(tables: &T, tuple: &Tuple, spare: &mut Tuple) -> bool {
    let Some(flow) = tables.conntrack(tuple) else { return false };
    let origin = flow.origin();
    flow.answer(spare);
    let own = tables.conntrack(spare).is_some_and(|twin| twin.leads_to_answer_of(tuple));
    // Of several CPUs that end a flow at once, the one that removes the opener's half accounts for it.
    let (ended, opener) = match origin {
        Origin::Opener => {
            let ended = tables.remove_flow(tuple);
            if own {
                tables.remove_flow(spare);
            }
            (ended, tuple)
        }
        Origin::Answer => {
            let ended = own && tables.remove_flow(spare);
            tables.remove_flow(tuple);
            (ended, &*spare)
        }
    };
    if ended {
        account(tables, &opener.src, opener.zone, |used, _| used.flows = used.flows.saturating_sub(1));
    }
    ended
}

/// Changes what the endpoint that opened a flow has in use; nothing if it was none.
#[inline(always)]
fn account<T: Tables>(
    tables: &T,
    opener: &Addr,
    zone: Zone,
    change: impl FnOnce(&mut EndpointUse, &DatapathConfig),
) {
    if zone == Zone::WORLD {
        return;
    }
    let (Some(endpoint), Some(config)) = (tables.endpoint(opener), tables.config()) else { return };
    tables.endpoint_use(endpoint.ifindex, |used| change(used, config));
}

/// Flows without an answer that an endpoint has been given anew since it was last given any.
#[must_use]
#[inline(always)]
pub const fn earned(used: &EndpointUse, config: &DatapathConfig, now: u32) -> u32 {
    let limit = config.unanswered;
    let elapsed = now.saturating_sub(used.credited) as u64;
    let period = if config.udp_unreplied == 0 { 1 } else { config.udp_unreplied as u64 };
    if elapsed >= period { limit } else { (elapsed.wrapping_mul(limit as u64) / period) as u32 }
}

/// Charges an endpoint for a flow that it is about to begin: whether it may.
///
/// Flows without an answer are credited: each costs one of `unanswered`, comes back with the first answer, and all of
/// them come back over the time that an unanswered flow is kept.
#[inline(always)]
pub(crate) fn charge(used: &mut EndpointUse, config: &DatapathConfig, now: u32) -> bool {
    let limit = config.unanswered;
    let earned = earned(used, config, now);
    // Fractions are kept by waiting until there is a whole one.
    if earned > 0 {
        used.credit = used.credit.saturating_add(earned);
        used.credited = now;
    }
    if used.credit > limit {
        used.credit = limit;
    }
    let too_many = config.endpoint_flows != 0 && used.flows >= config.endpoint_flows;
    if too_many || (limit != 0 && used.credit == 0) {
        return false;
    }
    used.credit = used.credit.saturating_sub(1);
    true
}

/// Counts a packet of a flow: `scratch` holds its tuple and what that becomes. Whether there is more to note, which is
/// then in `scratch.progress`, for [`advance`]: at most once a second, or when the state changes.
#[inline(always)]
pub(crate) fn seen<F: Flow>(tracked: &Tracked<F>, scratch: &mut Scratch) -> bool {
    let Tracked { flow, now } = tracked;
    flow.count(scratch.headers.length);
    let (old, origin) = (flow.state(), flow.origin());
    // An answer goes to the opener.
    let trusted = scratch.translated.zone != Zone::WORLD;
    // Without its flags a later fragment says nothing that the first has not said.
    let state = if scratch.headers.piece.is_later() {
        old
    } else {
        next(old, Sighting { origin, flags: scratch.headers.tcp_flags(), trusted })
    };
    if flow.last_seen() == *now && state == old {
        return false;
    }
    scratch.progress.now = *now;
    scratch.progress.old = old as u8;
    scratch.progress.state = state as u8;
    scratch.progress.confirmed = u8::from(flow.is_confirmed());
    scratch.progress.origin = origin as u8;
    true
}

/// Brings both halves of the flow in `scratch` to the state in `scratch.progress`, or ends the flow if it cannot go
/// on: the packet then begins another.
#[must_use]
#[inline(always)]
pub fn advance<T: Tables>(tables: &T, scratch: &mut Scratch) -> Step {
    if has_lost_its_address(tables, scratch) {
        let Scratch { tuple, spare, .. } = scratch;
        tables.end(tuple, spare);
        return Step::BEGIN;
    }
    let old = CtState::from_u8(scratch.progress.old);
    let mut state = CtState::from_u8(scratch.progress.state);
    scratch.answer = scratch.translated.answer();
    if confirms(old, state) && scratch.progress.confirmed == 0 {
        if !free_slot(tables, scratch) {
            state = CtState::Answered;
        } else if confirm(tables, scratch) {
            return Step::TRANSLATE;
        }
    }
    let now = scratch.progress.now;
    let Some(flow) = tables.conntrack(&scratch.tuple) else { return Step::TRANSLATE };
    flow.refresh(now, state);
    let (origin, flags) = (flow.origin(), flow.flags());
    match tables.conntrack(&scratch.answer) {
        // Another flow's, if this one's was evicted and the port has been taken since.
        Some(twin) if twin.leads_to_answer_of(&scratch.tuple) => twin.refresh(now, state),
        Some(_) => {}
        // Another CPU is ending it.
        None if origin == Origin::Answer && flow.is_confirmed() => {}
        // Evicted under pressure, or removed, while this half lived on: without it the answers would be lost.
        None => {
            flow.copy(&mut scratch.entry);
            twin_of(scratch);
            if !flow.is_confirmed() {
                let _ = tables.add_flow(&scratch.answer, &scratch.entry);
            } else if tables.add_confirmed(&scratch.answer, &scratch.entry).is_some() {
                // Somebody may just be adding another to the unconfirmed, who had not found this one.
                tables.moves();
            }
        }
    }
    if flags & CtEntry::FLAG_MAPPED != 0 {
        mappings::refresh(tables, scratch, origin, flags);
    }
    Step::TRANSLATE
}

/// Whether the packet would leave under an address that routing had chosen and the host has no longer: answers to it
/// would go astray. Asked once in a second, not when the state changes.
#[inline(always)]
fn has_lost_its_address<T: Tables>(tables: &T, scratch: &Scratch) -> bool {
    let Scratch { tuple, translated, progress, place, .. } = scratch;
    progress.old == progress.state
        && translated.zone == Zone::WORLD
        && tables.conntrack(tuple).is_some_and(|flow| flow.flags() & CtEntry::FLAG_ROUTED != 0)
        && !tables.owns(&translated.src, place.arrived)
}

/// Turns `scratch.entry` from that of `scratch.tuple` into its twin's.
#[inline(always)]
fn twin_of(scratch: &mut Scratch) {
    let Scratch { tuple, entry, .. } = scratch;
    entry.translated = tuple.answer();
    entry.packets = 0;
    entry.bytes = 0;
    entry.origin = Origin::from_u8(entry.origin).other() as u8;
}

/// Moves a flow to the confirmed, and notes it in the slot in `scratch.progress`; `false` if another CPU is just doing
/// so, or it is gone.
///
/// The opener's half first, whosever packet it is: of two CPUs one succeeds. It is counted before somebody else can
/// find it there, and end it.
#[inline(always)]
fn confirm<T: Tables>(tables: &T, scratch: &mut Scratch) -> bool {
    let forward = scratch.progress.origin == Origin::Opener as u8;
    count_opened(tables, scratch, forward, |used, config| {
        used.flows = used.flows.wrapping_add(1);
        if used.credit < config.unanswered {
            used.credit = used.credit.wrapping_add(1);
        }
    });
    scratch.progress.half = u8::from(!forward);
    let first = tables.confirm_half(scratch);
    scratch.progress.half = u8::from(forward);
    if !first || !tables.confirm_half(scratch) {
        // Whoever removes the opener's half accounts for it.
        if !first || tables.remove_flow(if forward { &scratch.tuple } else { &scratch.answer }) {
            count_opened(tables, scratch, forward, |used, _| {
                used.flows = used.flows.saturating_sub(1);
                used.credit = used.credit.saturating_sub(1);
            });
        }
        return false;
    }
    tables.moves();
    tables.remove_unconfirmed(&scratch.tuple);
    tables.remove_unconfirmed(&scratch.answer);
    scratch.spare = scratch.tuple;
    scratch.spare.reserved = tag(scratch.entry.created);
    tables.set_slot(scratch.progress.slot, &scratch.spare);
    scratch.happened |= Scratch::HAPPENED_CONFIRM;
    true
}

/// Adds the half in `scratch.progress` to the confirmed; `false` if it is there, or there is no room.
#[inline(always)]
pub fn confirm_half<T: Tables>(tables: &T, scratch: &mut Scratch) -> bool {
    let inverse = scratch.progress.half != 0;
    // A twin among the confirmed would be in the way, whatever is copied here.
    let twin = if inverse { tables.unconfirmed(&scratch.answer) } else { None };
    match twin.filter(|twin| twin.leads_to_answer_of(&scratch.tuple)) {
        Some(twin) => twin.copy(&mut scratch.entry),
        None => {
            let Some(flow) = tables.unconfirmed(&scratch.tuple) else { return false };
            flow.copy(&mut scratch.entry);
            if inverse {
                twin_of(scratch);
            }
        }
    }
    scratch.entry.last_seen = scratch.progress.now;
    scratch.entry.state = scratch.progress.state;
    tables.add_confirmed(if inverse { &scratch.answer } else { &scratch.tuple }, &scratch.entry).is_some()
}

/// [`account`] for the flow of which `scratch.tuple` is the opener's, or else the answers'.
#[inline(always)]
fn count_opened<T: Tables>(
    tables: &T,
    scratch: &Scratch,
    forward: bool,
    change: impl FnOnce(&mut EndpointUse, &DatapathConfig),
) {
    let opener = if forward { &scratch.tuple } else { &scratch.answer };
    account(tables, &opener.src, opener.zone, change);
}

/// Looks for a slot without a live flow: whether one of the next few is, whose index is then in `scratch.progress`. A
/// flow that is over makes room.
#[inline(always)]
pub(crate) fn free_slot<T: Tables>(tables: &T, scratch: &mut Scratch) -> bool {
    for _ in 0..MAX_SLOTS {
        if tables.look_at_slot(scratch) {
            return true;
        }
    }
    false
}

/// Looks at the next slot, whose index is then in `scratch.progress`: whether it is free, or the flow in it is over
/// and has been removed.
#[inline(always)]
pub fn look_at_slot<T: Tables>(tables: &T, scratch: &mut Scratch) -> bool {
    let Scratch { noted, spare, progress, .. } = scratch;
    progress.slot = tables.next_slot();
    tables.slot(progress.slot, noted);
    !holds(tables, noted) || end_if_over(tables, noted, spare)
}

/// Whether a slot holds the flow that was noted there, which is then in `noted` as its key. Another flow with the same
/// tuple, which has begun since, is noted elsewhere.
#[inline(always)]
fn holds<T: Tables>(tables: &T, noted: &mut Tuple) -> bool {
    let began = noted.reserved;
    noted.reserved = 0;
    noted.proto.number != 0
        && tables.is_confirmed(noted)
        && tables.conntrack(noted).is_some_and(|flow| tag(flow.created()) == began)
}

/// By what a slot tells flows of one tuple apart: there are seconds between them, and many to a wrong guess, which
/// costs nothing but the slot until that flow is over.
#[inline(always)]
const fn tag(created: u32) -> u8 {
    created as u8
}

/// Looks at the next few slots that have ever been used: whether a flow was over, and has been removed.
///
/// Not what [`free_slot`] does: as long as there are free slots, that comes across no flows.
#[inline(always)]
pub(crate) fn sweep<T: Tables>(tables: &T, scratch: &mut Scratch) -> bool {
    for _ in 0..MAX_SLOTS {
        if tables.sweep_slot(scratch) {
            return true;
        }
    }
    false
}

/// Looks at the next slot to be swept: whether the flow in it was over, and has been removed.
#[inline(always)]
pub fn sweep_slot<T: Tables>(tables: &T, scratch: &mut Scratch) -> bool {
    let Scratch { noted, spare, .. } = scratch;
    tables.slot(tables.next_swept(), noted);
    if noted.proto.number == 0 {
        // Slots are used one after the other: those behind it have not been used either.
        tables.sweep_anew();
        return false;
    }
    holds(tables, noted) && end_if_over(tables, noted, spare)
}

/// Removes a flow if it is over; whether it is gone.
#[inline(always)]
fn end_if_over<T: Tables>(tables: &T, tuple: &Tuple, spare: &mut Tuple) -> bool {
    let Some(flow) = tables.conntrack(tuple) else { return true };
    if !is_over(tables, tuple.proto, &flow, tables.now()).unwrap_or(false) {
        return false;
    }
    tables.end(tuple, spare);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN_ACK: u8 = tcp::SYN | tcp::ACK;
    const FIN_ACK: u8 = tcp::FIN | tcp::ACK;

    #[test]
    fn the_state_machine_is_this_table() {
        use CtState::{AnswerClosed, Answered, Closing, Established, New, OpenerClosed, Reset};
        use Origin::{Answer, Opener};
        for (state, origin, flags, expected) in [
            (New, Opener, tcp::SYN, New),
            (New, Opener, tcp::ACK, New),
            (New, Opener, 0, New),
            (New, Opener, FIN_ACK, New),
            (New, Answer, SYN_ACK, Answered),
            (New, Answer, tcp::SYN, Answered), // simultaneous open (RFC 5382 REQ-2)
            (New, Answer, 0, Answered),
            (New, Answer, tcp::RST | tcp::ACK, Reset),
            (New, Answer, FIN_ACK, AnswerClosed),
            (New, Opener, tcp::RST, Reset),
            (Answered, Opener, tcp::SYN, Answered), // a repeated SYN proves nothing
            (Answered, Opener, tcp::ACK, Established),
            (Answered, Opener, SYN_ACK, Established), // simultaneous open
            (Answered, Opener, FIN_ACK, OpenerClosed),
            (Answered, Answer, SYN_ACK, Answered),
            (Answered, Answer, FIN_ACK, AnswerClosed),
            (Answered, Opener, tcp::RST, Reset),
            (Established, Opener, tcp::ACK, Established),
            (Established, Answer, tcp::ACK, Established),
            (Established, Opener, tcp::SYN, Established),
            (Established, Opener, FIN_ACK, OpenerClosed),
            (Established, Answer, FIN_ACK, AnswerClosed),
            (Established, Opener, tcp::RST, Reset),
            (Established, Answer, tcp::RST, Reset),
            (OpenerClosed, Opener, FIN_ACK, OpenerClosed),
            (OpenerClosed, Answer, tcp::ACK, OpenerClosed), // half closed, for as long as it likes
            (OpenerClosed, Answer, FIN_ACK, Closing),
            (OpenerClosed, Opener, tcp::RST, Reset),
            (AnswerClosed, Answer, FIN_ACK, AnswerClosed),
            (AnswerClosed, Opener, tcp::ACK, AnswerClosed),
            (AnswerClosed, Opener, FIN_ACK, Closing),
            (Closing, Opener, tcp::ACK, Closing),
            (Closing, Opener, FIN_ACK, Closing),
            (Closing, Answer, SYN_ACK, Closing),
            (Closing, Opener, tcp::SYN, New), // reuse of a closing tuple
            (Closing, Opener, SYN_ACK, Closing),
            (Closing, Answer, tcp::SYN, Closing),
            (Reset, Opener, tcp::SYN, New),
            (Reset, Opener, tcp::ACK, Answered), // a forged RST does not end it
            (Reset, Answer, tcp::ACK, Answered),
            (Reset, Answer, tcp::RST, Reset),
            (Reset, Opener, FIN_ACK, Reset),
        ] {
            let sighting = Sighting { origin, flags, trusted: false };
            assert_eq!(next(state, sighting), expected, "{state:?} {origin:?} {flags:#04x}");
        }
    }

    #[test]
    fn an_answer_to_an_endpoint_establishes_at_once() {
        for (flags, expected) in [
            (SYN_ACK, CtState::Established),
            (0, CtState::Established),
            (tcp::RST, CtState::Reset),
            (FIN_ACK, CtState::AnswerClosed),
        ] {
            let sighting = Sighting { origin: Origin::Answer, flags, trusted: true };
            assert_eq!(next(CtState::New, sighting), expected, "{flags:#04x}");
        }
    }

    #[test]
    fn timeouts_are_at_least_what_the_rfcs_ask_for() {
        let c = DatapathConfig::DEFAULT;
        for open in [CtState::Established, CtState::OpenerClosed, CtState::AnswerClosed] {
            assert!(timeout(&c, Proto::TCP, open, 0) >= 2 * 3600 + 4 * 60, "RFC 5382 REQ-5");
        }
        for transitory in [CtState::New, CtState::Answered, CtState::Closing] {
            assert!(timeout(&c, Proto::TCP, transitory, 0) >= 4 * 60, "RFC 5382 REQ-5");
        }
        assert!(timeout(&c, Proto::TCP, CtState::Reset, 0) >= 4 * 60, "RFC 7857 section 2.2");
        assert!(timeout(&c, Proto::UDP, CtState::New, 0) >= 2 * 60, "RFC 4787 REQ-5");
        assert!(timeout(&c, Proto::UDP, CtState::Answered, 0) >= 5 * 60, "RFC 4787 REQ-5c");
        assert!(timeout(&c, Proto::UDP, CtState::Established, 0) >= 5 * 60, "RFC 4787 REQ-5c");
        assert!(timeout(&c, Proto::ICMP, CtState::New, 0) >= 60, "RFC 5508 REQ-2");
        assert!(timeout(&c, Proto::ICMPV6, CtState::Established, 0) >= 60, "RFC 5508 REQ-2");
    }

    #[test]
    fn unanswered_flows_are_credited_over_the_time_they_are_kept() {
        let config = DatapathConfig { unanswered: 12, udp_unreplied: 120, ..DatapathConfig::DEFAULT };
        let mut used: EndpointUse = bytemuck::Zeroable::zeroed();
        let begin = |used: &mut EndpointUse, now| (0..100).take_while(|_| charge(used, &config, now)).count();
        assert_eq!(begin(&mut used, 1_000), 12, "all of them at once");
        assert_eq!(begin(&mut used, 1_009), 0, "none before a tenth of a second each");
        assert_eq!(begin(&mut used, 1_010), 1, "one after ten seconds");
        assert_eq!(begin(&mut used, 1_040), 3, "three after thirty");
        assert_eq!(begin(&mut used, 9_000), 12, "never more than all");
        let mut used = EndpointUse::NOTHING;
        assert_eq!(begin(&mut used, 5), 12, "all of them, even if the machine has just been started");
        assert_eq!(begin(&mut used, 9), 0, "and none beyond");
    }

    #[test]
    fn an_endpoint_has_no_more_confirmed_flows_than_it_may_have() {
        let config = DatapathConfig { endpoint_flows: 2, unanswered: 0, ..DatapathConfig::DEFAULT };
        let mut used: EndpointUse = bytemuck::Zeroable::zeroed();
        for expected in [true, true, false] {
            assert_eq!(charge(&mut used, &config, 1_000), expected);
            used.flows += u32::from(expected);
        }
        let unlimited = DatapathConfig { endpoint_flows: 0, ..config };
        assert!(charge(&mut used, &unlimited, 1_000), "0 is no limit");
    }
}
