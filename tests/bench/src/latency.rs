//! Percentiles of what single operations took: the median says what is usual, the last ones what a user notices.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half of the operations took no longer.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// 99 of 100.
    pub p99: f64,
    /// 999 of 1,000.
    pub p999: f64,
}

impl Percentiles {
    /// Those of some operations, in any order; `None` of none.
    #[must_use]
    pub fn of(mut took: Vec<Duration>) -> Option<Self> {
        took.sort_unstable();
        let at = |per_mille| rank(&took, per_mille).map(|it| it.as_nanos() as f64 / 1e3);
        Some(Self { p50: at(500)?, p90: at(900)?, p99: at(990)?, p999: at(999)? })
    }
}

/// The value by nearest rank: one that was measured, never one in between.
#[must_use]
pub fn rank<T: Copy>(sorted: &[T], per_mille: usize) -> Option<T> {
    let rank = (sorted.len() * per_mille).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(values: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        values.into_iter().map(Duration::from_micros).collect()
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let found = Percentiles::of(micros((1..=1000).rev())).unwrap();
        assert_eq!(found, Percentiles { p50: 500.0, p90: 900.0, p99: 990.0, p999: 999.0 });
        let few = Percentiles::of(micros([30, 10, 20])).unwrap();
        assert_eq!(few, Percentiles { p50: 20.0, p90: 30.0, p99: 30.0, p999: 30.0 });
        let one = Percentiles::of(micros([7])).unwrap();
        assert_eq!(one, Percentiles { p50: 7.0, p90: 7.0, p99: 7.0, p999: 7.0 });
    }

    #[test]
    fn nothing_has_no_percentiles() {
        assert_eq!(Percentiles::of(Vec::new()), None);
        assert_eq!(rank::<u8>(&[], 500), None);
        assert_eq!(rank(&[5], 0), Some(5));
    }
}
