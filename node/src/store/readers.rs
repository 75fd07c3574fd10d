//! The streams of stored content that are open. A stream holds two pieces in memory while its client
//! does not read, so with many streams the pieces are smaller.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Number of streams up to which a piece has its full size. They hold 64 MiB.
const FEW: usize = 64;

/// Size in bytes of a piece if there are more. A thousand streams then hold 128 MiB.
const SMALL_PIECE: u64 = 64 << 10;

/// Counts the open streams of a store.
#[derive(Clone, Default)]
pub(super) struct Readers(Arc<AtomicUsize>);

/// An open stream. Dropping it ends it.
pub(super) struct Reader(Readers);

impl Readers {
    /// Begins a stream.
    pub(super) fn begin(&self) -> Reader {
        self.0.fetch_add(1, Ordering::Relaxed);
        Reader(self.clone())
    }
}

impl Reader {
    /// The end of the next piece of a range that starts at `next`: at most the whole range.
    pub(super) fn end_of_piece(&self, next: u64, end: u64) -> u64 {
        if self.0.0.load(Ordering::Relaxed) <= FEW { end } else { end.min(next.saturating_add(SMALL_PIECE)) }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_smaller_while_there_are_many_streams() {
        let readers = Readers::default();
        let mut open: Vec<Reader> = (0..FEW).map(|_| readers.begin()).collect();
        assert_eq!(open[0].end_of_piece(7, 1 << 30), 1 << 30);
        open.push(readers.begin());
        assert_eq!(open[0].end_of_piece(7, 1 << 30), 7 + SMALL_PIECE);
        assert_eq!(open[0].end_of_piece(7, 10), 10);
        open.pop();
        assert_eq!(open[0].end_of_piece(7, 1 << 30), 1 << 30);
    }
}
