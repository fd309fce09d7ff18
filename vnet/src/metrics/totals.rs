//! Counters that grow, of counters that may begin anew.

use std::collections::HashMap;
use std::hash::Hash;

/// What counters have grown by, added up: by `Source`, one of the kernel's counters, and by what is told of them.
#[derive(Clone, Debug)]
pub struct Totals<Source, Told> {
    last: HashMap<Source, u64>,
    sums: HashMap<Told, u64>,
}

impl<Source, Told> Default for Totals<Source, Told> {
    fn default() -> Self {
        Self { last: HashMap::new(), sums: HashMap::new() }
    }
}

impl<Source: Eq + Hash, Told: Eq + Hash + Clone> Totals<Source, Told> {
    /// Takes the counters as they are now. One that is lower than before has begun anew; one that is not there any more
    /// begins anew when it is there again.
    pub fn take(&mut self, now: impl IntoIterator<Item = (Source, Told, u64)>) {
        let mut last = HashMap::new();
        for (source, told, count) in now {
            let before = self.last.get(&source).copied().unwrap_or(0);
            let grown = if count >= before { count - before } else { count };
            *self.sums.entry(told).or_default() += grown;
            last.insert(source, count);
        }
        self.last = last;
    }

    /// What has been counted in all.
    pub fn sum(&self, told: &Told) -> u64 {
        self.sums.get(told).copied().unwrap_or(0)
    }

    /// Everything that has been counted, in no order.
    pub fn sums(&self) -> impl Iterator<Item = (&Told, u64)> {
        self.sums.iter().map(|(told, sum)| (told, *sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_anew_is_added_and_nothing_goes_back() {
        let mut totals = Totals::default();
        totals.take([(1, "a", 5), (2, "a", 7), (3, "b", 1)]);
        assert_eq!((totals.sum(&"a"), totals.sum(&"b")), (12, 1));
        totals.take([(1, "a", 6), (2, "a", 7)]);
        assert_eq!((totals.sum(&"a"), totals.sum(&"b")), (13, 1));
        // The first begins anew, the third is there again.
        totals.take([(1, "a", 2), (2, "a", 7), (3, "b", 4)]);
        assert_eq!((totals.sum(&"a"), totals.sum(&"b")), (15, 5));
        totals.take([]);
        assert_eq!(totals.sums().count(), 2);
    }
}
