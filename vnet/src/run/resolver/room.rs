//! Room that is shared fairly: so much in all, so much for each, and whoever has most makes room when there is none.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Who takes room: an endpoint by its name, or somebody who is none, but may be being made.
pub(super) type Who = Option<Rc<str>>;

/// Room for so many things.
#[derive(Debug)]
pub(super) struct Room {
    in_all: usize,
    of_one: usize,
    taken: RefCell<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    next: u64,
    /// What is there of each, the oldest first.
    of_each: HashMap<Who, BTreeMap<u64, Rc<Notify>>>,
}

impl Room {
    pub(super) fn new(in_all: usize, of_one: usize) -> Rc<Self> {
        Rc::new(Self { in_all, of_one, taken: RefCell::default() })
    }

    /// Room for one more thing of somebody's, if there is any for him. If there is none for anybody, the oldest thing of
    /// whoever has most has to go, unless that is he himself.
    pub(super) fn admit(self: &Rc<Self>, who: Who) -> Option<Admitted> {
        let mut taken = self.taken.borrow_mut();
        let own = taken.of_each.get(&who).map_or(0, BTreeMap::len);
        if own >= self.of_one {
            return None;
        }
        if taken.count >= self.in_all {
            let most = taken.of_each.iter().max_by_key(|(_, things)| things.len())?;
            let (heaviest, things) = (most.0.clone(), most.1.len());
            if things <= own + 1 {
                return None;
            }
            taken.evict_from(&heaviest);
        }
        let number = taken.next;
        taken.next += 1;
        taken.count += 1;
        let evicted = Rc::new(Notify::new());
        taken.of_each.entry(who.clone()).or_default().insert(number, Rc::clone(&evicted));
        Some(Admitted { room: Rc::clone(self), who, number, evicted })
    }
}

impl Taken {
    fn evict_from(&mut self, who: &Who) {
        let oldest = self.of_each.get(who).and_then(|things| things.first_key_value());
        let Some((number, evicted)) = oldest.map(|(number, evicted)| (*number, Rc::clone(evicted))) else {
            return;
        };
        self.remove(who, number);
        evicted.notify_one();
    }

    fn remove(&mut self, who: &Who, number: u64) {
        let Some(things) = self.of_each.get_mut(who) else { return };
        if things.remove(&number).is_some() {
            self.count -= 1;
        }
        if things.is_empty() {
            self.of_each.remove(who);
        }
    }
}

/// Something that has room: there is room for another when it is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    room: Rc<Room>,
    who: Who,
    number: u64,
    evicted: Rc<Notify>,
}

impl Admitted {
    /// Does something, unless it has to make room meanwhile.
    pub(super) async fn unless_evicted<T>(&self, doing: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.evicted.notified() => None,
            done = doing => Some(done),
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.room.taken.borrow_mut().remove(&self.who, self.number);
    }
}

/// How many questions each source may ask in a second, and at once.
const RATE: u32 = 2000;
/// Sources that are told apart: there are as many addresses as endpoints, which none of them can add to.
const SOURCES: usize = 1 << 14;

/// What sources have asked lately: what is beyond is not even looked at.
#[derive(Debug, Default)]
pub(super) struct Rates(HashMap<IpAddr, (Instant, f64)>);

impl Rates {
    /// Whether a source may ask now.
    pub(super) fn allow(&mut self, source: IpAddr, now: Instant) -> bool {
        if self.0.len() >= SOURCES && !self.0.contains_key(&source) {
            // Who has not asked for a second has what he would begin with.
            self.0.retain(|_, (last, _)| now.duration_since(*last) < Duration::from_secs(1));
            if self.0.len() >= SOURCES {
                return false;
            }
        }
        let (last, left) = self.0.entry(source).or_insert((now, f64::from(RATE)));
        let gained = now.duration_since(*last).as_secs_f64() * f64::from(RATE);
        *left = (*left + gained).min(f64::from(RATE));
        *last = now;
        let allowed = *left >= 1.0;
        if allowed {
            *left -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(name: &str) -> Who {
        Some(name.into())
    }

    #[test]
    fn whoever_has_most_makes_room_and_nobody_else() {
        let room = Room::new(8, 4);
        let mut of_a: Vec<Admitted> = (0..4).map(|_| room.admit(who("a")).unwrap()).collect();
        assert!(room.admit(who("a")).is_none(), "that is all there is for one");
        let of_b: Vec<Admitted> = (0..4).map(|_| room.admit(who("b")).unwrap()).collect();
        // Three others get as much as is left by then to those with most.
        let of_c: Vec<Admitted> = (0..8).map_while(|_| room.admit(who("c"))).collect();
        assert_eq!(of_c.len(), 2, "and no more than they");
        let held = |name: &str| room.taken.borrow().of_each[&who(name)].len();
        assert_eq!((held("a") + held("b"), held("c")), (6, 2));
        assert_eq!(room.taken.borrow().count, 8);
        // Those that had to go are no more than forgotten twice.
        of_a.clear();
        drop((of_b, of_c));
        assert!(room.taken.borrow().count == 0 && room.taken.borrow().of_each.is_empty());
    }

    #[tokio::test]
    async fn what_makes_room_ends_and_the_oldest_does_first() {
        let room = Room::new(2, 2);
        let (old, new) = (room.admit(who("a")).unwrap(), room.admit(who("a")).unwrap());
        let other = room.admit(who("b")).unwrap();
        assert_eq!(old.unless_evicted(std::future::pending::<()>()).await, None);
        assert_eq!(new.unless_evicted(std::future::ready(1)).await, Some(1));
        drop(other);
    }

    #[test]
    fn a_source_that_asks_too_often_leaves_others_theirs() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let [a, b]: [IpAddr; 2] = ["10.0.0.2", "fd00::2"].map(|addr| addr.parse().unwrap());
        let allowed = (0..RATE * 2).filter(|_| rates.allow(a, now)).count();
        assert_eq!(allowed, RATE as usize);
        assert!(rates.allow(b, now));
        let later = now + Duration::from_millis(100);
        let allowed = (0..RATE).filter(|_| rates.allow(a, later)).count();
        assert!(allowed.abs_diff(RATE as usize / 10) <= 1, "{allowed}");
    }

    #[test]
    fn sources_are_forgotten_when_there_are_too_many() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let source = |n: usize| IpAddr::from((n as u128).to_be_bytes());
        assert!((0..SOURCES).all(|n| rates.allow(source(n), now)));
        assert!(!rates.allow(source(SOURCES), now), "all of them ask at this moment");
        assert!(rates.allow(source(0), now));
        let later = now + Duration::from_secs(2);
        assert!(rates.allow(source(SOURCES), later));
        assert_eq!(rates.0.len(), 1);
    }
}
