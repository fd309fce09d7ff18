//! When to look, and where: pure, told the time by its caller.
//!
//! What happens is waited for to settle, and a look is followed by a pause that is a multiple of what it took, so that
//! neither a flood of news nor a host of thousands of endpoints keeps the instance's lock for more than a fraction of the
//! time. What cannot be repaired is tried again later and later, and is left out of looks that something else causes: its
//! own attempts make news as well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::kernel::Change;
use crate::manage::{Object, Repair, Scope};

/// How long it is to be quiet before a look: one command of somebody's makes several news, and one often follows another.
const SETTLE: Duration = Duration::from_millis(50);
/// How long a look waits for that.
const LONGEST: Duration = Duration::from_millis(250);
/// A look is followed by a pause of so many times as long as it took,
const REST: u32 = 4;
/// and of no less than this.
const LEAST_REST: Duration = Duration::from_millis(50);
/// When something is tried again for the first time; then after twice as long each time.
const FIRST_RETRY: Duration = Duration::from_millis(500);

/// When to look, and where.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    /// Between two looks at everything.
    check: Duration,
    next_check: Instant,
    /// Where something has happened.
    pending: Option<Pending>,
    /// No look begins before.
    rest_until: Instant,
    failing: BTreeMap<Object, Failing>,
}

/// Where something has happened since the last look.
#[derive(Clone, Debug)]
struct Pending {
    scope: Scope,
    first: Instant,
    last: Instant,
}

/// Something that could not be repaired.
#[derive(Clone, Debug)]
struct Failing {
    why: String,
    pause: Duration,
    again: Instant,
}

/// A look that is to be taken now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) scope: Scope,
    /// What is left out of it.
    pub(super) later: BTreeSet<Object>,
    /// What could not be repaired before, and is tried again.
    again: Vec<Object>,
}

/// What is to be said of a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdicts {
    /// What cannot be repaired, why, and when it is tried again: said once.
    pub(super) failed: Vec<(Object, String, Duration)>,
    /// What could not be repaired before, and is as recorded now.
    pub(super) recovered: Vec<Object>,
}

impl Schedule {
    /// The first look is at everything, and at once.
    pub(super) fn new(check: Duration, now: Instant) -> Self {
        Self { check, next_check: now, pending: None, rest_until: now, failing: BTreeMap::new() }
    }

    /// Something has happened.
    pub(super) fn heard(&mut self, change: &Change, now: Instant) {
        let scope = self.pending(now);
        match change {
            Change::Interface { name } | Change::Attachment { interface: name } => {
                scope.interfaces.insert(name.clone());
            }
            Change::Namespace { name } => drop(scope.names.insert(name.clone())),
            Change::Elsewhere => scope.endpoints = true,
            // Part of what is looked at every time.
            Change::Address | Change::Route { .. } | Change::Parameter | Change::Record | Change::Cgroup => {}
            Change::Pins | Change::Lost => scope.everything = true,
        }
    }

    /// Where something has happened, now again.
    fn pending(&mut self, now: Instant) -> &mut Scope {
        let scope = Scope::default();
        let pending = self.pending.get_or_insert(Pending { scope, first: now, last: now });
        pending.last = now;
        &mut pending.scope
    }

    /// Everything is to be looked at as soon as may be, and what could not be repaired is to be tried again.
    pub(super) fn at_once(&mut self, now: Instant) {
        self.next_check = now;
        self.rest_until = now;
        self.failing.values_mut().for_each(|failing| failing.again = now);
    }

    /// When the next look is due.
    pub(super) fn due(&self) -> Instant {
        let pending = self.pending.as_ref();
        let pending = pending.map(|pending| (pending.last + SETTLE).min(pending.first + LONGEST));
        let again = self.failing.values().map(|failing| failing.again).min();
        let due = [pending, again].into_iter().flatten().fold(self.next_check, Instant::min);
        due.max(self.rest_until)
    }

    /// Takes what is due.
    pub(super) fn begin(&mut self, now: Instant) -> Look {
        let mut scope = self.pending.take().map(|pending| pending.scope).unwrap_or_default();
        if self.next_check <= now {
            scope.everything = true;
            self.next_check = now + self.check;
        }
        let mut look = Look { scope, ..Look::default() };
        for (object, failing) in &self.failing {
            if failing.again > now {
                look.later.insert(object.clone());
                continue;
            }
            look.again.push(object.clone());
            match object {
                Object::Endpoint(name) => drop(look.scope.names.insert(name.to_string())),
                Object::Direct(_) | Object::PortMap(_) | Object::Floating(_) => look.scope.everything = true,
                _ => {}
            }
        }
        look
    }

    /// Puts a look back that could not be taken: somebody else is changing the instance.
    pub(super) fn put_back(&mut self, look: Look, now: Instant) {
        let pause = LEAST_REST;
        if look.scope.everything {
            self.next_check = now;
        }
        let scope = self.pending(now);
        scope.everything |= look.scope.everything;
        scope.endpoints |= look.scope.endpoints;
        scope.interfaces.extend(look.scope.interfaces);
        scope.names.extend(look.scope.names);
        self.rest_until = now + pause;
    }

    /// Notes what came of a look.
    pub(super) fn end(
        &mut self,
        look: Look,
        repairs: &[Repair],
        (began, now): (Instant, Instant),
    ) -> Verdicts {
        self.rest_until = now + LEAST_REST.max((now - began) * REST);
        let mut verdicts = Verdicts::default();
        let mut failed = BTreeSet::new();
        for repair in repairs {
            let Some(why) = &repair.failure else { continue };
            failed.insert(&repair.object);
            let known = self.failing.get(&repair.object);
            let pause = known.map_or(FIRST_RETRY, |known| (known.pause * 2).min(self.check));
            if known.is_none_or(|known| known.why != *why) {
                verdicts.failed.push((repair.object.clone(), why.clone(), pause));
            }
            let failing = Failing { why: why.clone(), pause, again: now + pause };
            self.failing.insert(repair.object.clone(), failing);
        }
        for object in look.again {
            // What depends on the instance has not been looked at if that could not be repaired.
            if failed.contains(&object) || failed.contains(&Object::Instance) {
                if !failed.contains(&object)
                    && let Some(failing) = self.failing.get_mut(&object)
                {
                    failing.again = now + failing.pause;
                }
                continue;
            }
            self.failing.remove(&object);
            verdicts.recovered.push(object);
        }
        verdicts
    }

    /// How many things of each kind cannot be repaired at the moment.
    pub(super) fn failing(&self) -> BTreeMap<&'static str, u64> {
        let mut failing = BTreeMap::new();
        for object in self.failing.keys() {
            *failing.entry(object.kind()).or_default() += 1;
        }
        failing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECK: Duration = Duration::from_secs(60);

    fn failure(object: &Object, why: &str) -> Repair {
        Repair { object: object.clone(), found: Vec::new(), ops: Vec::new(), failure: Some(why.to_owned()) }
    }

    fn interface(name: &str) -> Change {
        Change::Interface { name: name.to_owned() }
    }

    /// A schedule whose first look has been taken without finding anything, a while ago.
    fn settled(now: Instant) -> Schedule {
        let mut schedule = Schedule::new(CHECK, now - CHECK / 2);
        let began = now - CHECK / 2;
        let look = schedule.begin(began);
        assert!(look.scope.everything);
        assert_eq!(schedule.end(look, &[], (began, began)), Verdicts::default());
        schedule
    }

    #[test]
    fn without_news_nothing_is_looked_at_before_the_next_check() {
        let now = Instant::now();
        let mut schedule = settled(now);
        assert_eq!(schedule.due(), now + CHECK / 2);
        let look = schedule.begin(schedule.due());
        assert!(look.scope.everything);
    }

    #[test]
    fn news_are_taken_together_within_a_fraction_of_a_second() {
        let now = Instant::now();
        let mut schedule = settled(now);
        for n in 0..1000 {
            schedule.heard(&interface(if n % 2 == 0 { "eth0" } else { "vn-a" }), now + SETTLE * n / 1000);
        }
        assert_eq!(schedule.due(), now + SETTLE * 999 / 1000 + SETTLE);
        // If it is never quiet, they are not waited for without end.
        for n in 0..1000 {
            schedule.heard(&interface("eth0"), now + LONGEST * n / 1000);
        }
        assert_eq!(schedule.due(), now + LONGEST);
        let look = schedule.begin(schedule.due());
        assert_eq!(look.scope.interfaces, ["eth0", "vn-a"].map(str::to_owned).into());
        assert!(!look.scope.everything && !look.scope.endpoints);
        assert_eq!(schedule.due(), now + CHECK / 2);
    }

    #[test]
    fn looks_take_a_fifth_of_the_time_at_most_whatever_happens() {
        let now = Instant::now();
        let mut schedule = settled(now);
        let (mut at, mut looking) = (now, Duration::ZERO);
        while at < now + Duration::from_secs(10) {
            schedule.heard(&Change::Lost, at);
            at = schedule.due().max(at);
            let (look, took) = (schedule.begin(at), Duration::from_millis(300));
            schedule.end(look, &[], (at, at + took));
            (at, looking) = (at + took, looking + took);
        }
        // The last one has not been rested from.
        let (looking, all) = (looking - Duration::from_millis(300), at - now);
        assert!(looking * 5 <= all, "{looking:?} of {all:?}");
    }

    #[test]
    fn what_cannot_be_repaired_is_said_once_and_tried_later_and_later() {
        let now = Instant::now();
        let mut schedule = settled(now);
        let net1 = Object::Endpoint("net1".parse().unwrap());
        schedule.heard(&interface("vn-net1"), now);
        let (mut at, mut tries, mut said) = (now, 0, 0);
        while at < now + Duration::from_secs(3600) {
            at = schedule.due();
            let look = schedule.begin(at);
            let tried = !look.later.contains(&net1);
            // Each attempt makes news.
            let repairs = if tried { vec![failure(&net1, "no")] } else { Vec::new() };
            tries += usize::from(tried);
            said += schedule.end(look, &repairs, (at, at)).failed.len();
            if tried {
                schedule.heard(&interface("vn-net1"), at);
            }
        }
        assert_eq!(said, 1);
        assert!((60..80).contains(&tries), "{tries} tries in an hour");
        assert_eq!(schedule.failing(), [("endpoint", 1)].into());
    }

    #[test]
    fn what_is_as_recorded_again_is_said_and_forgotten() {
        let now = Instant::now();
        let mut schedule = settled(now);
        let (net1, rules) = (Object::Endpoint("net1".parse().unwrap()), Object::Rules);
        schedule.at_once(now);
        let look = schedule.begin(now);
        let verdicts = schedule.end(look, &[failure(&net1, "no"), failure(&rules, "no")], (now, now));
        assert_eq!(verdicts.failed.len(), 2);
        // Something else in between.
        schedule.heard(&interface("eth0"), now);
        let look = schedule.begin(schedule.due());
        assert_eq!(look.later, [net1.clone(), rules.clone()].into());
        assert_eq!(schedule.end(look, &[], (now, now)), Verdicts::default());
        // The other reason is worth saying.
        let at = schedule.due();
        assert!(at >= now + FIRST_RETRY && at < now + 2 * FIRST_RETRY);
        let look = schedule.begin(at);
        assert!(look.scope.names.contains("net1") && look.later.is_empty());
        let verdicts = schedule.end(look, &[failure(&rules, "never")], (at, at));
        assert_eq!(verdicts.recovered, [net1]);
        assert_eq!(verdicts.failed, [(rules, "never".to_owned(), 2 * FIRST_RETRY)]);
    }

    #[test]
    fn a_look_that_could_not_be_taken_is_taken_soon() {
        let now = Instant::now();
        let mut schedule = settled(now);
        schedule.heard(&Change::Namespace { name: "net1".to_owned() }, now);
        schedule.heard(&Change::Pins, now);
        let at = schedule.due();
        let look = schedule.begin(at);
        schedule.put_back(look.clone(), at);
        assert!(schedule.due() > at && schedule.due() <= at + Duration::from_millis(100));
        assert_eq!(schedule.begin(schedule.due()).scope, look.scope);
    }
}
