//! Reading stored content: the hottest path of a node.

use super::index::Entry;
use super::inner::Inner;
use super::pieces;
use super::readers::Reader;
use bytes::Bytes;
use entrepot_oci::Digest;
use entrepot_runtime::tasks::blocking;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Stored content, open for reading. It stays readable if the content is removed meanwhile.
#[derive(Clone)]
pub struct StoredContent {
    /// Size in bytes.
    pub size: u64,
    pub(super) source: Arc<Source>,
}

/// The open file and the entry that it belongs to.
pub(super) struct Source {
    pub(super) file: File,
    pub(super) digest: Digest,
    pub(super) entry: Arc<Entry>,
    pub(super) store: Arc<Inner>,
}

impl StoredContent {
    /// The bytes of a range, which must be within the content, in pieces of at most 512 KiB.
    ///
    /// The stream ends after an error. After a disk error, the content is no longer stored.
    pub fn stream(&self, range: Range<u64>) -> BoxStream<'static, io::Result<Bytes>> {
        let (source, reader) = (Arc::clone(&self.source), self.source.store.readers.begin());
        let reading = Reading { source, reader, next: range.start, end: range.end, ahead: None };
        stream::try_unfold(reading, Reading::step).boxed()
    }
}

/// The progress of a stream.
struct Reading {
    source: Arc<Source>,
    reader: Reader,
    /// Start of the next piece; `end` is the end of the last one.
    next: u64,
    end: u64,
    /// The next piece, which is read while the previous one is sent.
    ahead: Option<BoxFuture<'static, io::Result<Bytes>>>,
}

impl Reading {
    async fn step(mut self) -> io::Result<Option<(Bytes, Reading)>> {
        if self.next >= self.end {
            return Ok(None);
        }
        let piece = match self.ahead.take() {
            Some(ahead) => ahead.await?,
            None => match self.cached() {
                Some(piece) => return Ok(Some((piece.clone(), self.after(&piece)))),
                None => self.start().await?,
            },
        };
        let mut reading = self.after(&piece);
        if reading.next < reading.end {
            let mut ahead = reading.start();
            // One poll starts the read. Its result is used when the piece is needed.
            if let std::task::Poll::Ready(done) = futures::poll!(&mut ahead) {
                ahead = Box::pin(std::future::ready(done));
            }
            reading.ahead = Some(ahead);
        }
        Ok(Some((piece, reading)))
    }

    fn after(mut self, piece: &Bytes) -> Reading {
        self.next = self.next.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        self
    }

    /// The range that begins with the next piece.
    fn range(&self) -> Range<u64> {
        self.next..self.reader.end_of_piece(self.next, self.end)
    }

    /// The next piece, if it is in the page cache.
    fn cached(&self) -> Option<Bytes> {
        pieces::read_cached(&self.source.file, &self.range())
    }

    /// The next piece, read outside the async threads.
    fn start(&self) -> BoxFuture<'static, io::Result<Bytes>> {
        let source = Arc::clone(&self.source);
        let range = self.range();
        Box::pin(async move {
            blocking(move || {
                let piece = pieces::read(&source.file, &range);
                if let Err(error) = &piece {
                    source.store.read_failed(&source.digest, &source.entry, error);
                }
                piece
            })
            .await?
        })
    }
}
