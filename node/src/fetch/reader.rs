//! Reads from a running download: written bytes at once, the rest as they arrive, and the last
//! bytes after verification.

use super::failure::Failure;
use super::fill::{Fill, Phase};
use crate::store::pieces;
use bytes::Bytes;
use entrepot_runtime::tasks;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::watch;

/// Number of bytes at the end of unverified content that no reader gets. Content up to this size is
/// verified before its first byte is sent. Of larger content, a client always notices a damaged
/// body, because it is short.
pub(super) const HELD_BACK: u64 = 64 << 10;

/// A reader of a download.
pub(super) struct Reader {
    fill: Arc<Fill>,
    phase: watch::Receiver<Phase>,
}

impl Reader {
    pub(super) fn new(fill: Arc<Fill>, phase: watch::Receiver<Phase>) -> Reader {
        Reader { fill, phase }
    }

    /// The next bytes from `at` on, at least one and none beyond `end`, as soon as there are any.
    ///
    /// # Errors
    /// If the download failed.
    pub(super) async fn next(&mut self, at: u64, end: u64) -> Result<Bytes, Failure> {
        loop {
            // The phase is read before the progress, so that any later progress wakes this reader
            // again.
            let phase = self.phase.borrow_and_update().clone();
            let given = match phase {
                Phase::Failed(failure) => return Err(failure),
                Phase::Verified => self.fill.size,
                Phase::Filling => self.fill.size.saturating_sub(HELD_BACK),
            };
            let readable = self.fill.readable(at).min(given).min(end);
            if readable > at {
                return Ok(self.read(at..readable).await?);
            }
            self.phase.changed().await.map_err(|_| Failure::abandoned(&self.fill.digest))?;
        }
    }

    /// Reads the beginning of a range that is written. The last batches come from memory. Older
    /// ones, if they are in the page cache, are read on the async thread, because that takes no
    /// longer than the copy.
    async fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        if let Some(bytes) = self.fill.in_memory(&range) {
            return Ok(bytes);
        }
        if let Some(bytes) = pieces::read_cached(self.fill.file.opened()?, &range) {
            return Ok(bytes);
        }
        let fill = self.fill.clone();
        tasks::blocking(move || pieces::read(fill.file.opened()?, &range)).await?
    }
}
