//! What do several runs say? A median with its extremes, and how two contestants compare within the same rounds.

/// How far two benches in a row may be apart in a ratio.
const AGREEMENT: f64 = 0.05;
/// With fewer rounds nothing can be said with 95 %.
const FEWEST: usize = 5;

/// Median, least and most of several runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

/// One contestant against another: the median of the ratios of each round, in which a machine that is slow for a while is
/// slow for both, and what the true median is within, with a probability of 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ratio {
    /// Above 1: better.
    pub(super) median: f64,
    /// Least that it may be.
    pub(super) low: f64,
    /// Most that it may be.
    pub(super) high: f64,
    /// Another bench may well find it more than 5 % elsewhere.
    pub(super) inconclusive: bool,
}

impl Spread {
    pub(super) fn of(values: &[f64]) -> Self {
        let sorted = sorted(values.to_vec());
        let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else { return Self::default() };
        Self { median: middle(&sorted), min: *min, max: *max }
    }
}

impl Ratio {
    /// Of values by round.
    pub(super) fn of(ours: &[f64], theirs: &[f64], less_is_better: bool) -> Option<Self> {
        let (over, under) = if less_is_better { (theirs, ours) } else { (ours, theirs) };
        let rounds = over.iter().zip(under).filter(|(_, under)| **under > 0.0);
        let ratios = sorted(rounds.map(|(over, under)| over / under).collect());
        let count = ratios.len();
        // Of the ratios, a number that is binomial with n and 1/2 lies below the true median: 1.96 deviations of sqrt(n)/2.
        let reach = 0.98 * (count as f64).sqrt();
        let first = (count as f64 / 2.0 - reach).max(0.0).floor() as usize;
        let (low, high) = (*ratios.get(first)?, *ratios.get(count - 1 - first)?);
        let median = middle(&ratios);
        let inconclusive = count < FEWEST || high - low > 2.0 * AGREEMENT * median;
        Some(Self { median, low, high, inconclusive })
    }
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

fn middle(sorted: &[f64]) -> f64 {
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    let upper = at(sorted.len() / 2);
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(at((sorted.len() / 2).saturating_sub(1)), upper)
    } else {
        upper
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_median_least_and_most() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(&[4.0, 1.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
        assert_eq!(Spread::of(&[]), Spread::default());
    }

    #[test]
    fn a_ratio_is_of_rounds_not_of_medians() {
        // A machine that is half as fast from the third round on is so for both.
        let (ours, theirs) = ([12.0, 12.0, 6.0, 6.0, 6.0], [10.0, 10.0, 5.0, 5.0, 5.0]);
        let ratio = Ratio::of(&ours, &theirs, false).unwrap();
        assert_eq!((ratio.median, ratio.low, ratio.high, ratio.inconclusive), (1.2, 1.2, 1.2, false));
        let delay = Ratio::of(&ours, &theirs, true).unwrap();
        assert!(delay.median < 0.84);
    }

    #[test]
    fn few_or_scattered_rounds_are_inconclusive() {
        assert!(Ratio::of(&[1.0, 1.0], &[1.0, 1.0], false).unwrap().inconclusive);
        let scattered = Ratio::of(&[0.8, 0.9, 1.0, 1.1, 1.2], &[1.0; 5], false).unwrap();
        assert_eq!((scattered.low, scattered.high, scattered.inconclusive), (0.8, 1.2, true));
        let many: Vec<f64> = (0..101).map(|number| 0.9 + 0.002 * f64::from(number)).collect();
        let settled = Ratio::of(&many, &[1.0; 101], false).unwrap();
        assert!(settled.low > 0.97 && settled.high < 1.03 && !settled.inconclusive, "{settled:?}");
        assert_eq!(Ratio::of(&[], &[], false), None);
    }
}
