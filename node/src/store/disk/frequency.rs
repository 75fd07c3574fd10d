//! How often content is asked for, older requests counting less.

use crate::run::clock::Timestamp;
use std::cmp::Ordering;
use std::time::Duration;

/// A request counts half after this long. A day, for images are pulled by the rhythm of days: what yesterday's
/// deployments pulled still counts, what last month's did counts nothing.
const HALF_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The aged number of uses, as a logarithm: `log2(sum over uses of 2^(time of use / half-life))`.
///
/// Ageing multiplies all counts by the same factor, so it changes no order; leaving it out lets counts that were last
/// touched at different times be compared as they are. The logarithm keeps numbers of the size `2^20000` small: a
/// `f64` of that size still tells apart counts that differ by one in 10^11.
#[derive(Clone, Copy, Debug)]
pub struct Frequency(f64);

impl Frequency {
    /// Of what was never asked for.
    pub const NEVER: Frequency = Frequency(f64::NEG_INFINITY);

    /// The frequency after one more use.
    #[must_use]
    pub fn used(self, at: Timestamp) -> Frequency {
        let one = Duration::from_millis(at.0).as_secs_f64() / HALF_LIFE.as_secs_f64();
        let (high, low) = if one > self.0 { (one, self.0) } else { (self.0, one) };
        Frequency(high + (low - high).exp2().ln_1p() / std::f64::consts::LN_2)
    }

    pub(crate) fn to_bits(self) -> u64 {
        self.0.to_bits()
    }

    /// What [`Frequency::to_bits`] gave; anything else that is no number is [`Frequency::NEVER`].
    pub(crate) fn from_bits(bits: u64) -> Frequency {
        let number = f64::from_bits(bits);
        if number.is_nan() || number == f64::INFINITY { Frequency::NEVER } else { Frequency(number) }
    }
}

impl PartialEq for Frequency {
    fn eq(&self, other: &Frequency) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Frequency {}

impl PartialOrd for Frequency {
    fn partial_cmp(&self, other: &Frequency) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Frequency {
    fn cmp(&self, other: &Frequency) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: u64 = 24 * 3600 * 1000;
    /// A day in 2026.
    const TODAY: u64 = 20_500 * DAY;

    fn uses(times: &[u64]) -> Frequency {
        times.iter().fold(Frequency::NEVER, |frequency, time| frequency.used(Timestamp(*time)))
    }

    #[test]
    fn more_uses_count_more_and_old_uses_count_less() {
        assert!(uses(&[TODAY, TODAY + 1]) > uses(&[TODAY + 1]));
        assert!(uses(&[TODAY - DAY, TODAY - DAY, TODAY - DAY]) > uses(&[TODAY]));
        assert!(uses(&[TODAY - 2 * DAY, TODAY - 2 * DAY, TODAY - 2 * DAY]) < uses(&[TODAY]));
        assert!(uses(&[TODAY]) > Frequency::NEVER);
    }

    #[test]
    fn no_bits_make_a_frequency_that_is_not_a_number() {
        assert_eq!(Frequency::from_bits(f64::NAN.to_bits()), Frequency::NEVER);
        assert_eq!(Frequency::from_bits(f64::INFINITY.to_bits()), Frequency::NEVER);
        assert_eq!(Frequency::from_bits(uses(&[TODAY]).to_bits()), uses(&[TODAY]));
    }

    proptest! {
        /// The reference: plain sums of powers, near enough to the present to be computed as they are.
        #[test]
        fn the_order_is_that_of_the_aged_counts(
            first in proptest::collection::vec(0u64..20 * DAY, 1..30),
            second in proptest::collection::vec(0u64..20 * DAY, 1..30),
        ) {
            let plain = |times: &[u64]| -> f64 {
                times.iter().map(|time| (Duration::from_millis(*time).as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()).sum()
            };
            let (expected_first, expected_second) = (plain(&first), plain(&second));
            // Closer than this, either order is right.
            prop_assume!((expected_first / expected_second).ln().abs() > 1e-6);
            let shifted = |times: &[u64]| uses(&times.iter().map(|time| TODAY + time).collect::<Vec<_>>());
            prop_assert_eq!(shifted(&first) > shifted(&second), expected_first > expected_second);
        }
    }
}
