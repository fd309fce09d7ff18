//! When a packet may leave, of senders that are limited (earliest departure time).
//!
//! A limit is a clock that each packet sets forward by the time that it takes at the rate. A packet leaves when the clock
//! says, and is dropped if that is too far ahead. A clock that is behind catches up, but for the burst.

use vnet_common::LimitValue;

const SECOND: u64 = 1_000_000_000;
/// No packet is longer, in bytes: the kernel puts no more into one that it cuts up later (`GSO_MAX_SIZE`).
const LONGEST: u64 = 8 * 65_536;

/// When a packet leaves, and the next one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// Nanoseconds since boot at which the packet leaves.
    pub at: u64,
    /// What the clock says after that.
    pub next: u64,
}

/// When a packet of so many bytes may leave, by a clock that says `next`; `None` if it would have to wait for too long.
#[must_use]
#[inline(always)]
pub fn depart(limit: &LimitValue, next: u64, now: u64, length: u32) -> Option<Departure> {
    let saved_up = now.saturating_sub(limit.burst);
    let mut begins = if next < saved_up { saved_up } else { next };
    if limit.rate == 0 {
        return None;
    }
    let last = now.saturating_add(limit.queue);
    if begins > last {
        // At this rate no clock can be further ahead: the limit was lower before.
        if begins <= last.saturating_add(LONGEST * SECOND / limit.rate) {
            return None;
        }
        begins = now;
    }
    let takes = u64::from(length) * SECOND / limit.rate;
    Some(Departure { at: if begins < now { now } else { begins }, next: begins.saturating_add(takes) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A byte a microsecond, 10 ms of burst, 50 ms of queue.
    const LIMIT: LimitValue =
        LimitValue { rate: 1_000_000, burst: 10_000_000, queue: 50_000_000, number: 1, class: 0 };
    const NOW: u64 = 3_600 * SECOND;

    #[test]
    fn what_was_saved_up_leaves_at_once_and_the_rest_at_the_rate() {
        let (mut next, mut at_once, mut last) = (0, 0, NOW);
        // A packet takes a millisecond.
        for nth in 1..=60 {
            let departure = depart(&LIMIT, next, NOW, 1_000).expect("it waits no longer than it may");
            assert!(departure.at >= last, "none overtakes another");
            assert_eq!(departure.next, NOW - LIMIT.burst + nth * 1_000_000);
            at_once += u64::from(departure.at == NOW);
            (next, last) = (departure.next, departure.at);
        }
        assert_eq!(at_once, 11);
        assert_eq!(last, NOW + 49_000_000);
        let last = depart(&LIMIT, next, NOW, 1_000).expect("just as long as it may wait");
        assert_eq!(depart(&LIMIT, last.next, NOW, 1_000), None, "a packet more is dropped");
        assert!(depart(&LIMIT, last.next, NOW + 1_000_000, 1_000).is_some(), "and none a millisecond later");
    }

    #[test]
    fn the_rate_holds_over_a_long_time_however_often_packets_come() {
        for (length, pause) in [(64_u32, 3_000_u64), (1_514, 100_000), (65_000, 900_000)] {
            let (mut next, mut passed, mut now) = (0, 0_u64, NOW);
            while now < NOW + 10 * SECOND {
                if let Some(departure) = depart(&LIMIT, next, now, length) {
                    assert!(departure.at >= now && departure.at <= now + LIMIT.queue);
                    (next, passed) = (departure.next, passed + u64::from(length));
                }
                now += pause;
            }
            // Ten seconds, the burst, the queue, and the packet that begins at its end.
            let most = 10_000_000 + 10_000 + 50_000 + u64::from(length);
            assert!(passed <= most && passed >= 9_990_000, "{passed} bytes of packets of {length}");
        }
    }

    #[test]
    fn a_limit_that_is_raised_does_not_wait_for_the_lower_one() {
        let slow = LimitValue { rate: 1_000, queue: 5 * SECOND, ..LIMIT };
        let waits = depart(&slow, 0, NOW, 65_000).expect("a first packet");
        assert!(waits.next > NOW + 60 * SECOND);
        assert_eq!(depart(&slow, waits.next, NOW, 1_000), None);
        let raised = depart(&LimitValue { rate: 1_000_000_000, ..LIMIT }, waits.next, NOW, 1_000);
        assert_eq!(raised, Some(Departure { at: NOW, next: NOW + 1_000 }));
    }

    #[test]
    fn the_largest_numbers_do_no_harm() {
        let limit = LimitValue { rate: 1, burst: u64::MAX, queue: u64::MAX, ..LIMIT };
        let departure = depart(&limit, u64::MAX, NOW, u32::MAX).expect("it may wait for ever");
        assert_eq!(departure, Departure { at: u64::MAX, next: u64::MAX });
        assert_eq!(depart(&LimitValue { rate: 0, ..limit }, 0, NOW, 1), None);
    }
}
