//! The life of a flow: which state follows which, and how long each is kept.

use vnet_common::{CtEntry, CtState, DatapathConfig, Origin, Proto, Tuple};

use crate::parse::Headers;
use crate::scratch::Scratch;
use crate::tables::{Flow, Tables};
use crate::wire::tcp;

/// The state after a packet with these TCP flags (0 for other protocols) in the direction `origin`.
///
/// RFC 7857 section 2, in the form that needs no sequence numbers: a FIN or RST moves a connection to its
/// transitory time, never ends it at once (a forged RST must not), and a new SYN begins it anew.
#[must_use]
#[inline(always)]
pub const fn next(state: CtState, origin: Origin, flags: u8) -> CtState {
    if flags & (tcp::FIN | tcp::RST) != 0 {
        return CtState::Closing;
    }
    match (state, origin) {
        (CtState::Closing, Origin::Opener) if flags & (tcp::SYN | tcp::ACK) == tcp::SYN => CtState::New,
        (CtState::New, Origin::Answer) => CtState::Established,
        (state, _) => state,
    }
}

/// Seconds without a packet after which a flow is over.
#[must_use]
#[inline(always)]
pub const fn timeout(config: &DatapathConfig, proto: Proto, state: CtState) -> u32 {
    match (proto, state) {
        (Proto::TCP, CtState::Established) => config.tcp_established,
        (Proto::TCP, CtState::New) => config.tcp_opening,
        (Proto::TCP, _) => config.tcp_closing,
        (Proto::UDP, CtState::New) => config.udp_unreplied,
        (Proto::UDP, _) => config.udp_replied,
        (_, _) => config.icmp_query,
    }
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
    let config = tables.config()?;
    let now = tables.now();
    let idle = now.saturating_sub(flow.last_seen());
    if idle <= timeout(config, tuple.proto, flow.state()) {
        return Some(Tracked { flow, now });
    }
    *spare = flow.translated().answer();
    // Evicted halves leave tuples behind that another flow may have taken since: its half is not ours to remove.
    let own = tables.conntrack(spare).is_some_and(|twin| twin.translated() == tuple.answer());
    tables.remove_flow(tuple);
    if own {
        tables.remove_flow(spare);
    }
    None
}

/// Notes that a packet of a flow passed: `scratch` holds its tuple and what that becomes. The twin is told at
/// most once a second, or when the state changes.
#[inline(always)]
pub fn seen<T: Tables>(tables: &T, headers: &Headers, tracked: &Tracked<T::Flow<'_>>, scratch: &mut Scratch) {
    let Tracked { flow, now } = tracked;
    let now = *now;
    flow.count(headers.length);
    let (old, origin) = (flow.state(), flow.origin());
    let state = next(old, origin, headers.tcp_flags());
    if flow.last_seen() == now && state == old {
        return;
    }
    flow.refresh(now, state);
    scratch.answer = scratch.translated.answer();
    if let Some(twin) = tables.conntrack(&scratch.answer) {
        // Another flow's, if this one's was evicted and the port has been taken since.
        if twin.translated() == scratch.tuple.answer() {
            twin.refresh(now, state);
        }
        return;
    }
    // Evicted under pressure while this half lived on: without it the answers would be lost.
    scratch.entry = CtEntry {
        translated: scratch.tuple.answer(),
        packets: 0,
        bytes: 0,
        last_seen: now,
        created: flow.created(),
        mapping: flow.mapping(),
        state: state as u8,
        origin: origin.other() as u8,
        reserved: [0; 2],
    };
    let _ = tables.add_flow(&scratch.answer, &scratch.entry);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_machine_is_this_table() {
        use CtState::{Closing, Established, New};
        use Origin::{Answer, Opener};
        const SYN_ACK: u8 = tcp::SYN | tcp::ACK;
        for (state, origin, flags, expected) in [
            (New, Opener, tcp::SYN, New),
            (New, Opener, tcp::ACK, New),
            (New, Opener, 0, New),
            (New, Answer, SYN_ACK, Established),
            (New, Answer, tcp::SYN, Established), // simultaneous open (RFC 5382 REQ-2)
            (New, Answer, 0, Established),
            (New, Answer, tcp::RST | tcp::ACK, Closing),
            (New, Opener, tcp::RST, Closing),
            (Established, Opener, tcp::ACK, Established),
            (Established, Answer, tcp::ACK, Established),
            (Established, Opener, tcp::SYN, Established),
            (Established, Opener, tcp::FIN | tcp::ACK, Closing),
            (Established, Answer, tcp::FIN | tcp::ACK, Closing),
            (Established, Opener, tcp::RST, Closing),
            (Closing, Opener, tcp::ACK, Closing),
            (Closing, Answer, SYN_ACK, Closing),
            (Closing, Opener, tcp::SYN, New), // reuse of a closing tuple
            (Closing, Opener, SYN_ACK, Closing),
            (Closing, Answer, tcp::SYN, Closing),
        ] {
            assert_eq!(next(state, origin, flags), expected, "{state:?} {origin:?} {flags:#04x}");
        }
    }

    #[test]
    fn timeouts_are_at_least_what_the_rfcs_ask_for() {
        let c = DatapathConfig::DEFAULT;
        assert!(timeout(&c, Proto::TCP, CtState::Established) >= 2 * 3600 + 4 * 60, "RFC 5382 REQ-5");
        assert!(timeout(&c, Proto::TCP, CtState::New) >= 4 * 60, "RFC 5382 REQ-5");
        assert!(timeout(&c, Proto::TCP, CtState::Closing) >= 4 * 60, "RFC 5382 REQ-5, RFC 7857 section 2");
        assert!(timeout(&c, Proto::UDP, CtState::New) >= 2 * 60, "RFC 4787 REQ-5");
        assert!(timeout(&c, Proto::UDP, CtState::Established) >= 5 * 60, "RFC 4787 REQ-5");
        assert!(timeout(&c, Proto::ICMP, CtState::New) >= 60, "RFC 5508 REQ-2");
        assert!(timeout(&c, Proto::ICMPV6, CtState::Established) >= 60, "RFC 5508 REQ-2");
    }
}
