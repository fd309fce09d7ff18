//! Counters that grow, of counters that may begin anew.

use std::collections::HashMap;
use std::hash::Hash;

/// For how many times a counter that is not there is remembered: it may only not have been read.
const REMEMBERED: u32 = 8;

/// What counters have grown by, added up: by `Source`, which has `N` of the kernel's counters, and by what is told of
/// them.
#[derive(Clone, Debug)]
pub struct Totals<Source, Told, const N: usize> {
    /// How often counters were taken.
    times: u32,
    /// The counters of each as they were, and when that was.
    last: HashMap<Source, ([u64; N], u32)>,
    sums: HashMap<Told, [u64; N]>,
}

impl<Source, Told, const N: usize> Default for Totals<Source, Told, N> {
    fn default() -> Self {
        Self { times: 0, last: HashMap::new(), sums: HashMap::new() }
    }
}

impl<Source: Eq + Hash, Told: Eq + Hash, const N: usize> Totals<Source, Told, N> {
    /// Takes the counters as they are now. One that is lower than before has begun anew, and so has one that was not there
    /// for long.
    pub fn take(&mut self, now: impl IntoIterator<Item = (Source, Told, [u64; N])>) {
        self.times = self.times.wrapping_add(1);
        for (source, told, counts) in now {
            let before = self.last.insert(source, (counts, self.times)).map_or([0; N], |(before, _)| before);
            let sums = self.sums.entry(told).or_insert([0; N]);
            for (sum, (count, before)) in sums.iter_mut().zip(counts.into_iter().zip(before)) {
                *sum += if count >= before { count - before } else { count };
            }
        }
        let times = self.times;
        self.last.retain(|_, (_, at)| times.wrapping_sub(*at) < REMEMBERED);
    }

    /// What has been counted in all.
    pub fn sum(&self, told: &Told) -> [u64; N] {
        self.sums.get(told).copied().unwrap_or([0; N])
    }

    /// Everything that has been counted, in no order.
    pub fn sums(&self) -> impl Iterator<Item = (&Told, [u64; N])> {
        self.sums.iter().map(|(told, sum)| (told, *sum))
    }

    /// Forgets what is told of no more.
    pub fn retain(&mut self, is_told: impl Fn(&Told) -> bool) {
        self.sums.retain(|told, _| is_told(told));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_anew_is_added_and_nothing_goes_back() {
        let mut totals = Totals::default();
        totals.take([(1, "a", [5]), (2, "a", [7]), (3, "b", [1])]);
        assert_eq!((totals.sum(&"a"), totals.sum(&"b")), ([12], [1]));
        totals.take([(1, "a", [6]), (2, "a", [7])]);
        assert_eq!((totals.sum(&"a"), totals.sum(&"b")), ([13], [1]));
        // The first begins anew, the third was only not read.
        totals.take([(1, "a", [2]), (2, "a", [7]), (3, "b", [4])]);
        assert_eq!((totals.sum(&"a"), totals.sum(&"b")), ([15], [4]));
        for _ in 0..REMEMBERED {
            totals.take([(1, "a", [2])]);
        }
        assert_eq!(totals.last.len(), 1, "what has gone is forgotten");
        totals.take([(3, "b", [5])]);
        assert_eq!((totals.sum(&"a"), totals.sum(&"b")), ([15], [9]));
    }

    #[test]
    fn what_is_told_of_no_more_is_forgotten() {
        let mut totals = Totals::default();
        totals.take([(1, "a", [5, 50]), (2, "b", [7, 70])]);
        totals.retain(|told| *told == "b");
        assert_eq!((totals.sum(&"a"), totals.sum(&"b")), ([0, 0], [7, 70]));
        assert_eq!(totals.sums.len(), 1);
        // What is told of again goes on from where its counters are.
        totals.take([(1, "a", [6, 52])]);
        assert_eq!(totals.sum(&"a"), [1, 2]);
    }
}
