//! The reading rate of the scrub, as pure functions.

use std::time::Duration;

/// Bytes that an item counts in addition to its size. Opening a file costs a disk about as much as
/// reading this much.
const OVERHEAD: u64 = 64 << 10;

/// Minimum rate in bytes per second at which a file is read, so that in a small store a file is
/// open for minutes and not for days. It is a twentieth of the rate of a single hard disk.
const SLOWEST: u64 = 8 << 20;

/// The part of a round for one item, if `stored` bytes are stored in `contents` files.
pub(super) fn share(period: Duration, size: u64, stored: u64, contents: u64) -> Duration {
    let whole = stored.saturating_add(contents.saturating_mul(OVERHEAD)).max(1);
    let part = size.saturating_add(OVERHEAD).min(whole);
    period.mul_f64(part as f64 / whole as f64)
}

/// The pause after `bytes` of a file were read, so that the file is read no faster than its share
/// of the round requires, and no slower than [`SLOWEST`].
pub(super) fn pause(share: Duration, size: u64, bytes: u64) -> Duration {
    let evenly = share.mul_f64(bytes as f64 / size.max(bytes).max(1) as f64);
    evenly.min(Duration::from_secs_f64(bytes as f64 / SLOWEST as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

    #[test]
    fn a_large_store_is_read_evenly_and_a_small_one_in_short_reads() {
        // 100 TiB per week are 180 MB/s.
        let evenly = share(WEEK, 1 << 30, 100 << 40, 100 << 10);
        assert_eq!(pause(evenly, 1 << 30, 1 << 20), evenly.mul_f64(1.0 / 1024.0));
        assert!(pause(evenly, 1 << 30, 1 << 20) < Duration::from_millis(7));
        let small = share(WEEK, 1 << 30, 2 << 30, 2);
        assert!(small > WEEK.mul_f64(0.49) && small < WEEK.mul_f64(0.51));
        assert_eq!(pause(small, 1 << 30, 1 << 20), Duration::from_millis(125));
    }

    proptest! {
        #[test]
        fn a_round_over_everything_takes_the_period(sizes in proptest::collection::vec(0u64..1 << 45, 1..50)) {
            let stored = sizes.iter().sum();
            let shares = sizes.iter().map(|size| share(WEEK, *size, stored, sizes.len() as u64));
            let round: Duration = shares.sum();
            prop_assert!(round.abs_diff(WEEK) < Duration::from_secs(1), "{:?}", round);
        }

        #[test]
        fn reading_takes_no_longer_than_its_share(size in 0u64..1 << 45, more in 0u64..1 << 50, read in 0u64..1 << 20) {
            let share = share(WEEK, size, size.saturating_add(more), 3);
            prop_assert!(pause(share, size, read.min(size)) <= share);
        }
    }
}
