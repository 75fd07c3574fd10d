//! Receiving the ranges of a fill: several at once, each gathered into batches that are written as the next arrives.

use super::Fill;
use super::file::Batch;
use crate::fetch::failure::Failure;
use crate::fetch::origin::Origin;
use crate::run::tasks;
use crate::store::bucket::Object;
use bytes::Bytes;
use futures::stream::{BoxStream, Stream};
use futures::{StreamExt, TryStreamExt, stream};
use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// Written at once. Large enough that handing it to a thread costs little beside the copy (tens of microseconds
/// against hundreds), small enough that ranges, two batches each, take a few MiB in all.
const BATCH_BYTES: usize = 512 << 10;
/// Pieces in a batch: what one `pwritev` takes (IOV_MAX).
const BATCH_PIECES: usize = 1024;
/// Bytes that arrived wait this long for more to be written with them: readers of a slow bucket wait no longer.
const LINGER: Duration = Duration::from_millis(2);

type Pieces = BoxStream<'static, Result<Bytes, Failure>>;

/// Reads all ranges, `parallel` at once. `first` is the answer to the first request, which begins at byte 0.
pub(super) async fn all(fill: &Arc<Fill>, origin: &Origin, first: Object, parallel: usize) -> Result<(), Failure> {
    let mut first = Some(first);
    let head = (fill.size > 0).then_some(0);
    let ranges = head.into_iter().chain(std::iter::from_fn(|| fill.claim()));
    stream::iter(ranges.map(|index| {
        let body = origin.bytes(fill.size, fill.range(index), first.take());
        one(fill, index, body)
    }))
    .buffer_unordered(parallel.max(1))
    .try_for_each(|()| ready(Ok(())))
    .await
}

/// Reads one range: a batch is written, made readable and hashed while the next is gathered.
async fn one(fill: &Arc<Fill>, index: usize, body: Pieces) -> Result<(), Failure> {
    let mut batches = pin!(batches(fill.range(index).start, body));
    let mut next = batches.try_next().await?;
    while let Some(batch) = next {
        let fill = fill.clone();
        let kept = tasks::blocking(move || fill.keep(index, &batch));
        (_, next) = futures::try_join!(async { Ok(kept.await??) }, batches.try_next())?;
    }
    Ok(())
}

/// Gathers pieces into batches that follow one another from `at` on.
fn batches(at: u64, body: Pieces) -> impl Stream<Item = Result<Batch, Failure>> {
    stream::try_unfold(Gathering { at, body, failure: None }, Gathering::step)
}

struct Gathering {
    at: u64,
    body: Pieces,
    /// Came after pieces that are written first.
    failure: Option<Failure>,
}

impl Gathering {
    async fn step(mut self) -> Result<Option<(Batch, Gathering)>, Failure> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let Some(piece) = self.body.try_next().await? else { return Ok(None) };
        let mut bytes = piece.len();
        let mut pieces = vec![piece];
        // The first bytes of all wait for no others: someone waits for them.
        let enough = if self.at == 0 { 1 } else { BATCH_BYTES };
        let mut linger = pin!(tokio::time::sleep(LINGER));
        while bytes < enough && pieces.len() < BATCH_PIECES {
            let next = tokio::select! {
                biased;
                next = self.body.next() => next,
                () = &mut linger => break,
            };
            match next {
                Some(Ok(piece)) => {
                    bytes += piece.len();
                    pieces.push(piece);
                }
                Some(Err(failure)) => {
                    self.failure = Some(failure);
                    break;
                }
                None => break,
            }
        }
        let batch = Batch { at: self.at, pieces: pieces.into() };
        self.at += bytes as u64;
        Ok(Some((batch, self)))
    }
}
