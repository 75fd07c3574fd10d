//! The last written batches of a download, still in memory. Readers that are close behind get the
//! received buffers themselves.
//!
//! Reading from the file would copy each batch once more, into another buffer.

use super::file::Batch;
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::ops::Range;

/// Bytes kept per download: eight batches, two for each of the ranges that are read in parallel by
/// default.
const KEPT_BYTES: u64 = 4 << 20;

/// The batches written last, oldest first.
#[derive(Default)]
pub(super) struct Window {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    batches: VecDeque<Batch>,
    bytes: u64,
}

impl Window {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock()
    }

    pub(super) fn push(&self, batch: Batch) {
        let mut kept = self.kept();
        kept.bytes += batch.len();
        kept.batches.push_back(batch);
        while kept.bytes > KEPT_BYTES {
            let Some(oldest) = kept.batches.pop_front() else { break };
            kept.bytes -= oldest.len();
        }
    }

    /// The beginning of the range, up to the end of one piece.
    pub(super) fn get(&self, range: &Range<u64>) -> Option<Bytes> {
        let kept = self.kept();
        kept.batches.iter().find_map(|batch| batch.get(range))
    }

    /// Drops all batches. The download has ended, and its readers use the file.
    pub(super) fn clear(&self) {
        *self.kept() = Kept::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(at: u64, pieces: &[&'static [u8]]) -> Batch {
        Batch { at, pieces: pieces.iter().map(|piece| Bytes::from_static(piece)).collect() }
    }

    #[test]
    fn a_range_is_returned_up_to_the_end_of_its_piece() {
        let window = Window::default();
        window.push(batch(10, &[b"abc", b"defg"]));
        window.push(batch(40, &[b"xyz"]));
        assert_eq!(window.get(&(10..12)).unwrap(), "ab");
        assert_eq!(window.get(&(11..17)).unwrap(), "bc");
        assert_eq!(window.get(&(13..17)).unwrap(), "defg");
        assert_eq!(window.get(&(42..50)).unwrap(), "z");
        for outside in [9..10, 17..18, 39..41, 43..44] {
            assert!(window.get(&outside).is_none(), "{outside:?}");
        }
    }

    #[test]
    fn the_oldest_batches_are_dropped_above_the_limit() {
        static PIECE: [u8; 1 << 20] = [7; 1 << 20];
        let window = Window::default();
        for number in 0..6 {
            window.push(batch(number << 20, &[&PIECE]));
        }
        assert!(window.get(&(0..1)).is_none() && window.get(&(1 << 20..(1 << 20) + 1)).is_none());
        for number in 2..6u64 {
            assert!(window.get(&(number << 20..(number << 20) + 1)).is_some(), "{number}");
        }
        window.clear();
        assert!(window.get(&(5 << 20..6 << 20)).is_none());
    }
}
