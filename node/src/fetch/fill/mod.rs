//! A fill: a download of content from the bucket into a file of the store, readable while it grows.
//!
//! ```text
//!  range ─ collect ─ write ┐                   readers: everything written, except the last
//!  range ─ collect ─ write ┼─ progress ─────►  bytes, which wait for the digest
//!  range ─ collect ─ write ┘
//!                       └── hash: in order, by the thread that writes the next contiguous batch
//! ```
//!
//! The first bytes are readable before the file exists, so a reader that waits for them does not
//! wait for the disk.
//!
//! Receiving, writing and hashing overlap, and each holds only a few batches: the memory of a
//! download does not depend on the size of its content. This module never knows requests or
//! readers; they observe the fill.

pub(super) mod driver;
mod file;
mod hash;
mod ranges;
mod receive;
mod window;

use super::failure::Failure;
use super::origin::Origin;
use bytes::Bytes;
use entrepot_bucket::Object;
use entrepot_oci::Digest;
use entrepot_runtime::{BackgroundBlocking, tasks};
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

/// The state of a download, apart from its bytes.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    Filling,
    /// All bytes are in the file and match the digest.
    Verified,
    Failed(Failure),
}

/// Content that is being downloaded, or just was. It stays readable as long as it is referenced.
pub(super) struct Fill {
    pub(super) digest: Digest,
    /// Size of the whole content in bytes.
    pub(super) size: u64,
    pub(super) file: FillFile,
    /// The ranges of the object. One request reads each.
    ranges: Ranges,
    /// The first bytes, as they arrived.
    head: OnceLock<Bytes>,
    /// Bytes written of each range, from its start.
    written: Box<[AtomicU64]>,
    /// Index of the next range to read. The ones before it are read or being read.
    claimed: AtomicUsize,
    hash: Hash,
    phase: watch::Sender<Phase>,
    window: Window,
}

impl Fill {
    /// A download of `size` bytes into `file`, of which nothing is written yet.
    pub(super) fn new(digest: Digest, size: u64, ranges: Ranges, file: FillFile) -> Fill {
        Fill {
            digest,
            size,
            file,
            ranges,
            head: OnceLock::new(),
            written: std::iter::repeat_with(AtomicU64::default).take(ranges.count(size)).collect(),
            // The first range is already requested, because its response contained the size.
            claimed: AtomicUsize::new(1),
            hash: Hash::new(digest.algorithm()),
            phase: watch::Sender::new(Phase::Filling),
            window: Window::default(),
        }
    }

    /// The phase. The receiver is also notified of each progress. Holding it shows that there is a
    /// reader.
    pub(super) fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Resolves when no reader is left.
    pub(super) async fn unread(&self) {
        self.phase.closed().await;
    }

    /// The beginning of a readable range, if it is still in memory.
    pub(super) fn in_memory(&self, range: &Range<u64>) -> Option<Bytes> {
        let head = self.head.get().and_then(|head| part(head, 0, range));
        head.or_else(|| self.window.get(range))
    }

    /// Ends the download. Only the first call has an effect.
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

    /// The end of the contiguous bytes that can be read from `at` on; not above `at` if there are
    /// none.
    pub(super) fn readable(&self, at: u64) -> u64 {
        let head = self.head.get().map_or(0, |head| head.len() as u64);
        self.in_file(at).max(head)
    }

    /// The end of the contiguous bytes that can be read from the file.
    fn in_file(&self, at: u64) -> u64 {
        match self.range_of(at) {
            Some(range) => self.reached(range),
            None => at,
        }
    }

    /// Whether the byte at `at` is readable or will be soon: a range in progress is less than one
    /// range short of it.
    pub(super) fn is_near(&self, at: u64) -> bool {
        let Some(range) = self.range_of(at) else { return true };
        let claimed = self.claimed.load(Ordering::SeqCst);
        let near = |range: usize| range < claimed && at < self.reached(range) + self.near_distance();
        near(range) || range.checked_sub(1).is_some_and(near)
    }

    /// Content that one request reads has one large range. There, the size of a parallel range
    /// counts as near.
    fn near_distance(&self) -> u64 {
        self.ranges.largest().min(NEAR)
    }

    fn range_of(&self, at: u64) -> Option<usize> {
        (at < self.size).then(|| self.ranges.of_byte(at))
    }

    fn range(&self, index: usize) -> Range<u64> {
        self.ranges.get(index, self.size)
    }

    /// The end of the written part of a range.
    fn reached(&self, index: usize) -> u64 {
        let written = self.written.get(index).map_or(0, |written| written.load(Ordering::SeqCst));
        self.ranges.start(index) + written
    }

    /// Takes the next range to read, if any.
    fn claim(&self) -> Option<usize> {
        let next = self.claimed.fetch_add(1, Ordering::SeqCst);
        (next < self.written.len()).then_some(next)
    }

    /// Makes the first bytes readable, from memory.
    fn show(&self, head: Bytes) {
        // This is called once, so the cell is empty.
        let _ = self.head.set(head);
        self.phase.send_modify(|_| {});
    }

    /// Creates the file and writes the first bytes to it. Blocks.
    fn create(&self) -> io::Result<()> {
        self.file.create()?;
        match self.head.get() {
            Some(head) => self.keep(0, &Batch { at: 0, pieces: [head.clone()].into() }),
            None => Ok(()),
        }
    }

    /// Writes a batch of a range, makes it readable and hashes all contiguous bytes. Blocks.
    fn keep(&self, index: usize, batch: &Batch) -> io::Result<()> {
        self.file.write(batch)?;
        self.publish(index, batch);
        self.hash.after(batch, self)
    }

    /// Makes written bytes of a range readable, and wakes their readers.
    fn publish(&self, index: usize, batch: &Batch) {
        let bytes = batch.len();
        // The window comes first: a reader that sees the new progress must find the batch in
        // memory.
        self.window.push(batch.clone());
        if let Some(written) = self.written.get(index) {
            written.fetch_add(bytes, Ordering::SeqCst);
        }
        self.phase.send_modify(|_| {});
    }
}

/// The largest distance for which a reader waits instead of sending a request to the bucket. A
/// download at 100 MB/s covers it in a sixth of a second, which is about the cost of a separate
/// request.
const NEAR: u64 = 16 << 20;

/// Makes the first bytes readable as they arrive, and then creates the file. `first` is the
/// response to the first request, which starts at byte 0. Returns the rest of its range.
///
/// # Errors
/// If the bucket fails, or the disk is full or fails.
pub(super) async fn begin(fill: &Arc<Fill>, origin: &Origin, first: Object) -> Result<Pieces, Failure> {
    let mut pieces = origin.bytes(fill.size, fill.range(0), Some(first));
    if let Some(head) = pieces.try_next().await? {
        fill.show(head);
    }
    let fill = fill.clone();
    tasks::blocking(move || fill.create()).await??;
    Ok(pieces)
}

/// Verifies the file after [`receive`] has written all bytes.
///
/// # Errors
/// If the content does not match, or cannot be read back.
pub(super) async fn verify(fill: &Arc<Fill>, origin: &Origin, background: &BackgroundBlocking) -> Result<(), Failure> {
    if fill.hash.is_behind(fill) {
        let fill = fill.clone();
        background.run(move || fill.hash.catch_up(&fill)).await??;
    }
    if fill.hash.finish(fill) == Some(fill.digest) { Ok(()) } else { Err(origin.mismatch()) }
}
