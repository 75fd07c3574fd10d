//! How an object is split into ranges, each of which is read by one request.

use std::ops::Range;

/// Size of the first range in bytes. The first response arrives before the size of the object is
/// known. Most blobs are smaller and need no other request. Of a larger one, this much arrives in
/// about the time that the next requests need for their first byte.
const FIRST: u64 = 1 << 20;

/// One short range, followed by ranges of equal size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fetch) struct Ranges {
    first: u64,
    others: u64,
}

impl Ranges {
    /// Ranges of at most `size` bytes.
    pub(in crate::fetch) fn of(size: u64) -> Ranges {
        let others = size.max(1);
        Ranges { first: others.min(FIRST), others }
    }

    /// One range for the whole object, for a bucket that is not faster with parallel ranges.
    pub(in crate::fetch) fn all() -> Ranges {
        Ranges { first: u64::MAX, others: u64::MAX }
    }

    /// The range of the first request. `None`: the whole object.
    pub(in crate::fetch) fn first(self) -> Option<Range<u64>> {
        (self.first < u64::MAX).then_some(0..self.first)
    }

    /// The largest number of bytes that one request reads.
    pub(super) fn largest(self) -> u64 {
        self.others
    }

    /// Number of ranges of an object of `size` bytes; one if it is empty.
    pub(super) fn count(self, size: u64) -> usize {
        let others = size.saturating_sub(self.first).div_ceil(self.others);
        usize::try_from(others).map_or(usize::MAX, |others| others.saturating_add(1))
    }

    /// The index of the range that contains a byte.
    pub(super) fn of_byte(self, at: u64) -> usize {
        let others = at.checked_sub(self.first).map_or(0, |beyond| beyond / self.others + 1);
        usize::try_from(others).unwrap_or(usize::MAX)
    }

    pub(super) fn start(self, index: usize) -> u64 {
        match index.checked_sub(1) {
            None => 0,
            Some(before) => self.first.saturating_add(self.others.saturating_mul(before as u64)),
        }
    }

    /// A range of an object of `size` bytes.
    pub(super) fn get(self, index: usize, size: u64) -> Range<u64> {
        self.start(index)..self.start(index + 1).min(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sizes of all ranges of an object. Asserts that they are contiguous and that each byte is
    /// found in its range.
    fn cut(ranges: Ranges, size: u64) -> Vec<u64> {
        let cut: Vec<_> = (0..ranges.count(size)).map(|index| ranges.get(index, size)).collect();
        assert_eq!(cut.iter().fold(0, |end, range| if range.start == end { range.end } else { u64::MAX }), size);
        for (index, range) in cut.iter().enumerate().filter(|(_, range)| !range.is_empty()) {
            assert_eq!((ranges.of_byte(range.start), ranges.of_byte(range.end - 1)), (index, index));
        }
        cut.iter().map(|range| range.end - range.start).collect()
    }

    #[test]
    fn a_short_range_is_followed_by_ranges_of_equal_size() {
        let ranges = Ranges::of(16 * FIRST);
        assert_eq!(ranges.first(), Some(0..FIRST));
        assert_eq!(cut(ranges, 0), [0]);
        assert_eq!(cut(ranges, 1), [1]);
        assert_eq!(cut(ranges, FIRST), [FIRST]);
        assert_eq!(cut(ranges, FIRST + 1), [FIRST, 1]);
        assert_eq!(cut(ranges, 17 * FIRST), [FIRST, 16 * FIRST]);
        assert_eq!(cut(ranges, 40 * FIRST), [FIRST, 16 * FIRST, 16 * FIRST, 7 * FIRST]);
    }

    #[test]
    fn no_range_is_larger_than_requested() {
        assert_eq!(cut(Ranges::of(10), 25), [10, 10, 5]);
        assert_eq!(cut(Ranges::of(0), 2), [1, 1]);
    }

    #[test]
    fn all_is_one_range() {
        assert_eq!(Ranges::all().first(), None);
        assert_eq!(cut(Ranges::all(), 0), [0]);
        assert_eq!(cut(Ranges::all(), 1 << 40), [1 << 40]);
    }
}
