//! A fill: content on its way from the bucket into a file of the store, readable as it grows.
//!
//! ```text
//!  range ─ gather ─ write ┐                    readers: what is written, but for the last
//!  range ─ gather ─ write ┼─ progress ──────►  bytes, which wait for the digest
//!  range ─ gather ─ write ┘
//!                      └── hash: in order, by whoever has written what is next
//! ```
//!
//! The very first bytes are given before the file is made: who waits for them waits for no disk.
//!
//! Receiving, writing and hashing overlap, and none holds more than a few batches: the memory of a fill does not grow
//! with its content. A fill knows nothing of requests and readers; they look at it.

mod file;
mod hash;
mod ranges;
mod receive;
mod window;

use super::failure::Failure;
use super::origin::Origin;
use crate::oci::Digest;
use crate::run::{Hands, tasks};
use crate::store::bucket::Object;
use bytes::Bytes;
pub(super) use file::FillFile;
use file::{Batch, part};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use hash::Hash;
pub(super) use ranges::Ranges;
pub(super) use receive::receive;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::watch;
use window::Window;

type Pieces = BoxStream<'static, Result<Bytes, Failure>>;

/// How far a fill is, beside its bytes.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    Filling,
    /// All bytes are in the file and are those of the digest.
    Verified,
    Failed(Failure),
}

/// Content being filled, or just filled. It stays readable for as long as someone holds it.
pub(super) struct Fill {
    pub(super) digest: Digest,
    /// Size of the whole content in bytes.
    pub(super) size: u64,
    pub(super) file: FillFile,
    /// What is read from the bucket by one request each.
    ranges: Ranges,
    /// The first bytes, as they arrived.
    head: OnceLock<Bytes>,
    /// Bytes written of each range, from its start.
    written: Box<[AtomicU64]>,
    /// Ranges before this one are being read or were.
    claimed: AtomicUsize,
    hash: Hash,
    phase: watch::Sender<Phase>,
    window: Window,
}

impl Fill {
    /// A fill of content of `size` bytes into `file`, of which nothing is written.
    pub(super) fn new(digest: Digest, size: u64, ranges: Ranges, file: FillFile) -> Fill {
        Fill {
            digest,
            size,
            file,
            ranges,
            head: OnceLock::new(),
            written: std::iter::repeat_with(AtomicU64::default).take(ranges.count(size)).collect(),
            // The first range is under way: its answer told the size.
            claimed: AtomicUsize::new(1),
            hash: Hash::new(digest.algorithm()),
            phase: watch::Sender::new(Phase::Filling),
            window: Window::default(),
        }
    }

    /// The phase; also notified of each progress. Holding it shows that someone reads.
    pub(super) fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Resolves when no reader is left.
    pub(super) async fn unread(&self) {
        self.phase.closed().await;
    }

    /// The beginning of a range that can be read, if it is still in memory.
    pub(super) fn in_memory(&self, range: &Range<u64>) -> Option<Bytes> {
        let head = self.head.get().and_then(|head| part(head, 0, range));
        head.or_else(|| self.window.get(range))
    }

    /// Ends the fill, once: a later end changes nothing.
    pub(super) fn end(&self, phase: Phase) {
        self.window.clear();
        self.phase.send_if_modified(|current| {
            let running = matches!(current, Phase::Filling);
            if running {
                *current = phase;
            }
            running
        });
    }

    /// The end of the bytes that can be read from `at` on; not above `at` when there are none.
    pub(super) fn readable(&self, at: u64) -> u64 {
        let head = self.head.get().map_or(0, |head| head.len() as u64);
        self.in_file(at).max(head)
    }

    /// The end of the bytes that can be read from the file.
    fn in_file(&self, at: u64) -> u64 {
        match self.range_of(at) {
            Some(range) => self.reached(range),
            None => at,
        }
    }

    /// Whether the byte at `at` is there or soon will be: a range under way is less than one range short of it.
    pub(super) fn is_near(&self, at: u64) -> bool {
        let Some(range) = self.range_of(at) else { return true };
        let claimed = self.claimed.load(Ordering::SeqCst);
        let near = |range: usize| range < claimed && at < self.reached(range) + self.near_distance();
        near(range) || range.checked_sub(1).is_some_and(near)
    }

    /// Content that is read through one request is one large range: there, what a parallel range would be is near.
    fn near_distance(&self) -> u64 {
        self.ranges.largest().min(NEAR)
    }

    fn range_of(&self, at: u64) -> Option<usize> {
        (at < self.size).then(|| self.ranges.of_byte(at))
    }

    fn range(&self, index: usize) -> Range<u64> {
        self.ranges.get(index, self.size)
    }

    /// The end of what is written of a range.
    fn reached(&self, index: usize) -> u64 {
        let written = self.written.get(index).map_or(0, |written| written.load(Ordering::SeqCst));
        self.ranges.start(index) + written
    }

    /// Takes the next range to read, if there is one.
    fn claim(&self) -> Option<usize> {
        let next = self.claimed.fetch_add(1, Ordering::SeqCst);
        (next < self.written.len()).then_some(next)
    }

    /// Gives readers the first bytes, from memory.
    fn show(&self, head: Bytes) {
        // There is only one first piece.
        let _ = self.head.set(head);
        self.phase.send_modify(|_| {});
    }

    /// Makes the file, with the first bytes in it. Blocks.
    fn create(&self) -> io::Result<()> {
        self.file.create()?;
        match self.head.get() {
            Some(head) => self.keep(0, &Batch { at: 0, pieces: [head.clone()].into() }),
            None => Ok(()),
        }
    }

    /// Writes a batch of a range, makes it readable and hashes what can be. Blocks.
    fn keep(&self, index: usize, batch: &Batch) -> io::Result<()> {
        self.file.write(batch)?;
        self.publish(index, batch);
        self.hash.after(batch, self)
    }

    /// Makes bytes of a range readable, which were written, and wakes those that wait for them.
    fn publish(&self, index: usize, batch: &Batch) {
        let bytes = batch.len();
        self.window.push(batch.clone());
        if let Some(written) = self.written.get(index) {
            written.fetch_add(bytes, Ordering::SeqCst);
        }
        self.phase.send_modify(|_| {});
    }
}

/// The largest distance that a reader waits for instead of asking the bucket itself: what a fill of 100 MB/s reaches
/// in a sixth of a second, about what a request of its own would cost.
const NEAR: u64 = 16 << 20;

/// Gives readers the first bytes as they arrive, and then makes the file. `first` is the answer to the first request,
/// which begins at byte 0; what is left of its range is returned.
///
/// # Errors
/// When the bucket fails, or the disk is full or fails.
pub(super) async fn begin(fill: &Arc<Fill>, origin: &Origin, first: Object) -> Result<Pieces, Failure> {
    let mut pieces = origin.bytes(fill.size, fill.range(0), Some(first));
    if let Some(head) = pieces.try_next().await? {
        fill.show(head);
    }
    let fill = fill.clone();
    tasks::blocking(move || fill.create()).await??;
    Ok(pieces)
}

/// Verifies what [`receive`] has brought, all of which is in the file.
///
/// # Errors
/// When it is other content, or cannot be read back.
pub(super) async fn verify(fill: &Arc<Fill>, origin: &Origin, hands: &Hands) -> Result<(), Failure> {
    if fill.hash.is_behind(fill) {
        let fill = fill.clone();
        hands.work(move || fill.hash.catch_up(&fill)).await??;
    }
    if fill.hash.finish(fill) == Some(fill.digest) { Ok(()) } else { Err(origin.mismatch()) }
}
