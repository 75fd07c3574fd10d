//! Receiving a body: pieces are gathered to large writes, and the next are received while those before are written and
//! hashed. Never more than three gatherings of one upload are in memory.

use super::session::{Session, Writing};
use super::writer::{Batch, Failure, Writer};
use super::{UploadError, Uploads};
use crate::oci::UploadRange;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use std::io;
use std::sync::Arc;

/// Bytes gathered for one write. A hop to a blocking thread costs some 10 µs; hashing this much takes 50 times that.
const GATHERED_BYTES: usize = 1 << 20;

impl Uploads {
    /// Checks where the chunk begins, and appends the body. What came before an error stays in the session.
    pub(super) async fn receive(
        &self,
        session: &Arc<Session>,
        writing: Writing,
        range: Option<UploadRange>,
        body: impl Stream<Item = io::Result<Bytes>> + Send + Unpin,
    ) -> Result<Writing, UploadError> {
        let offset = writing.offset();
        if range.is_some_and(|range| range.start() != offset) {
            return Err(UploadError::OutOfOrder { offset });
        }
        let expected = range.map(|range| range.length());
        let writing = self.append_all(session, writing, expected, body).await?;
        let received = writing.offset() - offset;
        if expected.is_some_and(|expected| expected != received) {
            return Err(UploadError::Length { offset: writing.offset() });
        }
        Ok(writing)
    }

    async fn append_all(
        &self,
        session: &Arc<Session>,
        writing: Writing,
        mut expected: Option<u64>,
        mut body: impl Stream<Item = io::Result<Bytes>> + Send + Unpin,
    ) -> Result<Writing, UploadError> {
        let mut offset = writing.offset();
        let writer = Writer::new(session.clone(), writing, self.inner.synced);
        let ended = loop {
            let Gathered { pieces, end } = gather(&mut body, &mut expected).await;
            if !pieces.is_empty() {
                offset += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
                match self.hand_over(&writer, pieces, offset).await {
                    Ok(true) => session.touch(self.inner.clock.now()),
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(error),
                }
            }
            if let Some(end) = end {
                break end.map_err(UploadError::Body);
            }
        };
        match writer.finish().await? {
            (_, Some(Failure::Write(error))) => Err(error.into()),
            (_, Some(Failure::Sync(error))) => Err(self.lost(session, error).await),
            (writing, None) => ended.map(|()| writing),
        }
    }

    /// Hands pieces over that end at this offset of the blob. `false`: writing failed.
    async fn hand_over(&self, writer: &Writer, pieces: Vec<Bytes>, end: u64) -> Result<bool, UploadError> {
        let most = self.inner.config.max_blob_size.get();
        if end > most {
            return Err(UploadError::TooLarge(most));
        }
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        let room = self.inner.store.reserve(bytes).await?;
        self.inner.metrics.received_bytes.inc_by(bytes);
        Ok(writer.write(Batch { pieces, room }).await)
    }
}

/// Pieces of a body, and how the body ended if it did.
struct Gathered {
    pieces: Vec<Bytes>,
    end: Option<io::Result<()>>,
}

/// Gathers pieces until there are enough for a write or the body ends. A body longer than its range says ends in an
/// error, and what lies beyond is not taken.
async fn gather(
    body: &mut (impl Stream<Item = io::Result<Bytes>> + Send + Unpin),
    expected: &mut Option<u64>,
) -> Gathered {
    let mut gathered = Gathered { pieces: Vec::new(), end: None };
    let mut bytes = 0;
    while bytes < GATHERED_BYTES {
        match body.next().await {
            Some(Ok(piece)) => {
                if let Some(left) = expected {
                    let Some(rest) = left.checked_sub(piece.len() as u64) else {
                        gathered.end = Some(Err(io::Error::other("the body is longer than its Content-Range says")));
                        break;
                    };
                    *left = rest;
                }
                bytes += piece.len();
                if !piece.is_empty() {
                    gathered.pieces.push(piece);
                }
            }
            Some(Err(error)) => {
                gathered.end = Some(Err(error));
                break;
            }
            None => {
                gathered.end = Some(Ok(()));
                break;
            }
        }
    }
    gathered
}
