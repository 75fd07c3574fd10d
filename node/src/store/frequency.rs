//! The access frequency of content. Older requests count less.

use std::cmp::Ordering;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Half-life of a request, in requests per stored item: an earlier request counts half after this
/// many more requests for each item in the store.
///
/// It is measured in requests and not in hours. A store with few requests forgets slowly, and a
/// busy one adapts within minutes when other images are pulled. With a smaller value, a scan of
/// content that is never pulled again displaces popular content. With a larger value, last week's
/// popular content stays too long. `docs/reference/benchmarks.md` compares with both extremes.
const HALF_LIFE: u64 = 8;

/// Fractional bits of the clock. Even with a hundred million stored items each request advances it,
/// and it lasts for 2^24 half-lives.
const FRACTION: u32 = 40;

/// A moment, in half-lives since the store was first used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment(f64);

/// The clock by which frequencies age. Only requests advance it.
#[derive(Debug, Default)]
pub struct RequestClock(AtomicU64);

impl RequestClock {
    /// Continues from the value of [`RequestClock::to_bits`].
    pub(super) fn from_bits(bits: u64) -> RequestClock {
        RequestClock(AtomicU64::new(bits))
    }

    pub(super) fn to_bits(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(super) fn now(&self) -> Moment {
        Moment(self.to_bits() as f64 / (1u64 << FRACTION) as f64)
    }

    /// Counts one more request, with this number of stored items.
    pub fn tick(&self, stored: usize) -> Moment {
        let stored = u64::try_from(stored).unwrap_or(u64::MAX).max(1);
        self.0.fetch_add((1 << FRACTION) / HALF_LIFE.saturating_mul(stored), Relaxed);
        self.now()
    }
}

/// The aged number of uses, as a logarithm: `log2(sum over uses of 2^(moment of use))`.
///
/// Aging multiplies all counts by the same factor, so it changes no order. Without it, counts that
/// were last updated at different times can be compared directly. The logarithm keeps numbers as
/// large as `2^20000` small; an `f64` of that magnitude still distinguishes counts that differ by
/// one in 10^11.
#[derive(Clone, Copy, Debug)]
pub struct Frequency(f64);

impl Frequency {
    /// The frequency of content that was never requested.
    pub const NEVER: Frequency = Frequency(f64::NEG_INFINITY);

    /// The frequency after one more use.
    #[must_use]
    pub fn used(self, at: Moment) -> Frequency {
        let (high, low) = if at.0 > self.0 { (at.0, self.0) } else { (self.0, at.0) };
        Frequency(high + (low - high).exp2().ln_1p() / std::f64::consts::LN_2)
    }

    pub(crate) fn to_bits(self) -> u64 {
        self.0.to_bits()
    }

    /// The frequency from [`Frequency::to_bits`]. Other bits that are not a valid number become
    /// [`Frequency::NEVER`].
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

    /// Age of an old store in half-lives: with a hundred items, 16 million requests.
    const OLD: f64 = 20_000.0;

    fn uses(moments: &[f64]) -> Frequency {
        moments.iter().fold(Frequency::NEVER, |frequency, moment| frequency.used(Moment(*moment)))
    }

    #[test]
    fn more_uses_count_more_and_old_uses_count_less() {
        assert!(uses(&[OLD, OLD + 0.001]) > uses(&[OLD + 0.001]));
        assert!(uses(&[OLD - 1.0, OLD - 1.0, OLD - 1.0]) > uses(&[OLD]));
        assert!(uses(&[OLD - 2.0, OLD - 2.0, OLD - 2.0]) < uses(&[OLD]));
        assert!(uses(&[OLD]) > Frequency::NEVER);
    }

    #[test]
    fn no_bits_make_a_frequency_that_is_not_a_number() {
        assert_eq!(Frequency::from_bits(f64::NAN.to_bits()), Frequency::NEVER);
        assert_eq!(Frequency::from_bits(f64::INFINITY.to_bits()), Frequency::NEVER);
        assert_eq!(Frequency::from_bits(uses(&[OLD]).to_bits()), uses(&[OLD]));
    }

    #[test]
    fn a_half_life_is_eight_requests_for_each_content() {
        let clock = RequestClock::default();
        let moments: Vec<Moment> = (0..800).map(|_| clock.tick(100)).collect();
        assert!((moments[799].0 - 1.0).abs() < 1e-6, "{:?}", moments[799]);
        assert!(moments.windows(2).all(|two| two[0].0 < two[1].0));
        // An empty store, and one larger than any real store.
        assert!((clock.tick(0).0 - 1.125).abs() < 1e-6);
        let before = clock.now().0;
        assert!(clock.tick(100_000_000).0 > before);
    }

    #[test]
    fn the_clock_continues_where_it_was() {
        let clock = RequestClock::default();
        clock.tick(3);
        assert_eq!(RequestClock::from_bits(clock.to_bits()).now(), clock.now());
    }

    proptest! {
        /// The reference: plain sums of powers, with moments small enough to compute them directly.
        #[test]
        fn the_order_equals_that_of_the_aged_counts(
            first in proptest::collection::vec(0.0..20.0f64, 1..30),
            second in proptest::collection::vec(0.0..20.0f64, 1..30),
        ) {
            let plain = |moments: &[f64]| -> f64 { moments.iter().map(|moment| moment.exp2()).sum() };
            let (expected_first, expected_second) = (plain(&first), plain(&second));
            // Counts closer than this may have either order.
            prop_assume!((expected_first / expected_second).ln().abs() > 1e-6);
            let shifted = |moments: &[f64]| uses(&moments.iter().map(|moment| OLD + moment).collect::<Vec<_>>());
            prop_assert_eq!(shifted(&first) > shifted(&second), expected_first > expected_second);
        }
    }
}
