//! Receiving a body. Small pieces are collected into large writes, and the next batch is received
//! while the previous ones are written and hashed. One upload never has more than three batches in
//! memory.

use super::place::{Place, Step};
use super::session::{Session, Writing};
use super::space::Space;
use super::writer::{Batch, Failure, Writer};
use super::{UploadError, Uploads};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use std::io;
use std::sync::Arc;

/// Bytes collected for one write. A switch to a blocking thread costs about 10 µs; hashing this
/// many bytes takes 50 times as long.
const GATHERED_BYTES: usize = 1 << 20;

impl Uploads {
    /// Checks the position of the bytes, and receives the body. Bytes received before an error stay
    /// in the session.
    ///
    /// A request without a body is accepted at any position: clients send the last, empty `PUT` to
    /// an earlier `Location`.
    pub(super) async fn receive(
        &self,
        session: &Arc<Session>,
        writing: Writing,
        place: Option<Place>,
        mut body: impl Stream<Item = io::Result<Bytes>> + Send + Unpin,
    ) -> Result<Writing, UploadError> {
        let offset = writing.offset();
        let step = place.map_or(Step::Append, |place| place.step(writing.answered(), offset));
        if step == Step::Refuse && matches!(place, Some(Place::Range(_))) {
            return Err(UploadError::OutOfOrder { offset });
        }
        let first = if step == Step::Append { None } else { Some(first_piece(&mut body).await) };
        let writing = match (step, &first) {
            (_, Some(None)) => return Ok(writing),
            (Step::Refuse, _) => return Err(UploadError::OutOfOrder { offset }),
            (Step::Append, _) => self.hashed(session, writing).await?,
            (Step::Again { from }, _) => self.take_again(session, writing, from).await?,
        };
        let (start, expected) = (writing.offset(), place.and_then(Place::length));
        let body = stream::iter(first.flatten()).chain(body);
        let writing = self.append_all(session, writing, expected, body).await?;
        let received = writing.offset() - start;
        if expected.is_some_and(|expected| expected != received) {
            return Err(UploadError::Length { offset: writing.offset() });
        }
        Ok(writing)
    }

    /// Makes sure that the hash of the session matches its file.
    async fn hashed(&self, session: &Session, writing: Writing) -> Result<Writing, UploadError> {
        let hashed = tokio::time::timeout(self.inner.env.config.upload.answer_within.get(), session.hashed(writing));
        let (writing, hashed) = hashed.await.map_err(|_| UploadError::Unfinished)?.map_err(session.failed("read"))?;
        match hashed {
            Ok(()) => Ok(writing),
            Err(error) => Err(self.lost(session, writing, error).await),
        }
    }

    /// Discards the bytes of an interrupted, unacknowledged request, because the same request
    /// arrives again.
    async fn take_again(&self, session: &Arc<Session>, writing: Writing, from: u64) -> Result<Writing, UploadError> {
        let writing = self.hashed(session, writing).await?;
        tracing::debug!(session = %session.id, from, end = writing.offset(), "a client repeats an interrupted request");
        let (store, part, holder) = (self.inner.env.store.clone(), self.inner.part.clone(), session.holder.clone());
        let account_existing = move |bytes| Space {
            room: store.room.account_existing(bytes),
            charge: part.charge_existing(&holder, bytes),
        };
        Ok(session.give_up_from(writing, from, account_existing).await?)
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
                match self.hand_over(session, &writer, pieces, offset).await {
                    Ok(true) => session.touch(self.inner.env.clock.uptime()),
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(error),
                }
            }
            if let Some(end) = end {
                break end;
            }
        };
        match writer.finish().await? {
            (_, Some(Failure::Write(error))) => Err(error.into()),
            (writing, Some(Failure::Sync(error))) => Err(self.lost(session, writing, error).await),
            (writing, None) => ended.map(|()| writing),
        }
    }

    /// Hands over pieces that end at the offset `end` of the blob. `false`: writing failed.
    async fn hand_over(
        &self,
        session: &Session,
        writer: &Writer,
        pieces: Vec<Bytes>,
        end: u64,
    ) -> Result<bool, UploadError> {
        let most = self.inner.env.config.upload.max_blob_size.get();
        if end > most {
            return Err(UploadError::TooLarge(most));
        }
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        let charge = self.charge(&session.holder, bytes).await?;
        let space = Space { room: self.inner.env.store.room.reserve(bytes).await?, charge };
        self.inner.env.metrics.received_bytes.inc_by(bytes);
        Ok(writer.write(Batch { pieces, space }).await)
    }
}

/// The first bytes of a body, or the error before them; `None`: the body is empty.
async fn first_piece(body: &mut (impl Stream<Item = io::Result<Bytes>> + Send + Unpin)) -> Option<io::Result<Bytes>> {
    loop {
        match body.next().await {
            Some(Ok(piece)) if piece.is_empty() => {}
            first => return first,
        }
    }
}

/// Pieces of a body, and how the body ended, if it did.
struct Gathered {
    pieces: Vec<Bytes>,
    end: Option<Result<(), UploadError>>,
}

/// Collects pieces until there are enough for a write, or the body ends. A body longer than its
/// range ends with an error, and the piece that exceeds the range is dropped.
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
                        gathered.end = Some(Err(UploadError::LongerThanRange));
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
                gathered.end = Some(Err(UploadError::Body(error)));
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
