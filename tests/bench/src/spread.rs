//! Median and spread of repetitions, and whether a difference is more than the spread.

use serde::{Deserialize, Serialize};

/// One number measured several times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The one in the middle; of an even number the mean of the two.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of some values, in any order; `None` of none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { median, min, max })
    }

    /// From the smallest to the largest.
    #[must_use]
    pub fn width(&self) -> f64 {
        self.max - self.min
    }

    /// The same, every value so many times as large.
    #[must_use]
    pub fn times(&self, factor: f64) -> Self {
        Self { median: self.median * factor, min: self.min * factor, max: self.max * factor }
    }

    /// Whether the medians are further apart than either scatters: only then does their difference say anything.
    #[must_use]
    pub fn differs_from(&self, other: &Self) -> bool {
        (self.median - other.median).abs() > self.width().max(other.width())
    }

    /// Its median as a multiple of another's, if that is one.
    #[must_use]
    pub fn ratio_to(&self, other: &Self) -> Option<f64> {
        (other.median > 0.0).then(|| self.median / other.median)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<const N: usize>(values: [f64; N]) -> Spread {
        Spread::of(values).unwrap()
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(of([3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(of([7.0]), Spread { median: 7.0, min: 7.0, max: 7.0 });
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_difference_counts_when_it_is_more_than_either_spread() {
        let (quiet, noisy) = (of([10.0, 10.5, 10.2]), of([11.0, 14.0, 12.0]));
        assert!(!quiet.differs_from(&noisy), "1.8 apart, but one scatters by 3");
        assert!(!noisy.differs_from(&quiet));
        let far = of([13.0, 13.2, 13.1]);
        assert!(quiet.differs_from(&far) && far.differs_from(&quiet));
        assert!(!quiet.differs_from(&quiet));
    }

    #[test]
    fn a_multiple_scatters_as_much_more() {
        assert_eq!(of([1.0, 2.0, 3.0]).times(2.0), Spread { median: 4.0, min: 2.0, max: 6.0 });
    }

    #[test]
    fn nothing_is_a_multiple_of_zero() {
        assert_eq!(of([3.0]).ratio_to(&of([2.0])), Some(1.5));
        assert_eq!(of([3.0]).ratio_to(&of([0.0])), None);
    }
}
