//! Reading stored content: the hottest path of a node.

use super::index::Entry;
use super::inner::Inner;
use super::pieces;
use crate::oci::Digest;
use crate::run::tasks::blocking;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Stored content, open for reading. It stays readable when the content is removed meanwhile.
#[derive(Clone)]
pub struct StoredContent {
    /// Size in bytes.
    pub size: u64,
    pub(super) source: Arc<Source>,
}

/// The open file, and whose it is.
pub(super) struct Source {
    pub(super) file: File,
    pub(super) digest: Digest,
    pub(super) entry: Arc<Entry>,
    pub(super) store: Arc<Inner>,
}

impl StoredContent {
    /// The bytes of a range that lies within the content, in pieces of 512 KiB.
    ///
    /// An error ends it short; when it was the disk's, the content is not stored any more.
    pub fn stream(&self, range: Range<u64>) -> BoxStream<'static, io::Result<Bytes>> {
        let reading = Reading { source: Arc::clone(&self.source), next: range.start, end: range.end, ahead: None };
        stream::try_unfold(reading, Reading::step).boxed()
    }
}

/// How far a stream is.
struct Reading {
    source: Arc<Source>,
    /// Where the next piece begins, and where the last one ends.
    next: u64,
    end: u64,
    /// The next piece, being read while the one before it is sent.
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
            // Polled once, it is begun; whatever it says is asked for when the piece is wanted.
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

    /// The next piece, if the system has it in memory.
    fn cached(&self) -> Option<Bytes> {
        pieces::read_cached(&self.source.file, &(self.next..self.end))
    }

    /// The next piece, off the async threads.
    fn start(&self) -> BoxFuture<'static, io::Result<Bytes>> {
        let source = Arc::clone(&self.source);
        let range = self.next..self.end;
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
