//! Receives the ranges of a download in parallel. Each is collected into batches; one batch is
//! written while the next arrives.

use super::file::Batch;
use super::{Fill, Pieces};
use crate::fetch::failure::Failure;
use crate::fetch::origin::Origin;
use entrepot_runtime::BackgroundBlocking;
use futures::stream::{SelectAll, Stream};
use futures::{StreamExt, TryStreamExt, stream};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of one write. It is large enough that handing it to a thread is cheap compared with the
/// copy (tens of microseconds against hundreds), and small enough that all ranges, with two batches
/// each, take a few MiB.
const BATCH_BYTES: usize = 512 << 10;
/// Maximum number of pieces in a batch: what one `pwritev` accepts (IOV_MAX).
const BATCH_PIECES: usize = 1024;
/// How long arrived bytes wait for more to be written with them, and so the longest extra delay for
/// readers of a slow bucket.
const LINGER: Duration = Duration::from_millis(2);

/// Reads everything after [`super::begin`], at most `parallel` ranges at once; `rest` is the rest
/// of the first range. Returns when every byte is in the file.
///
/// If threads wait for bytes, another range delivers them sooner. If bytes wait for a thread,
/// another range only adds to the queue. So a range is started only while a thread is idle.
///
/// # Errors
/// If the bucket or the disk fails.
pub(in crate::fetch) async fn receive(
    fill: &Arc<Fill>,
    origin: &Origin,
    rest: Pieces,
    parallel: usize,
    background: &BackgroundBlocking,
) -> Result<(), Failure> {
    let mut running = SelectAll::new();
    running.push(one(fill, 0, rest, background).boxed());
    loop {
        while running.is_empty() || (running.len() < parallel && background.has_idle_thread()) {
            let Some(index) = fill.claim() else { break };
            let body = origin.bytes(fill.size, fill.range(index), None);
            running.push(one(fill, index, body, background).boxed());
        }
        if running.is_empty() {
            return Ok(());
        }
        running.try_next().await?;
    }
}

/// Reads one range and yields an item per batch. A batch is written, made readable and hashed while
/// the next is collected.
fn one(
    fill: &Arc<Fill>,
    index: usize,
    body: Pieces,
    background: &BackgroundBlocking,
) -> impl Stream<Item = Result<(), Failure>> + use<> {
    let (fill, background) = (fill.clone(), background.clone());
    let batches = batches(fill.reached(index), body).boxed();
    stream::try_unfold((batches, None), move |(mut batches, gathered)| {
        let (fill, background) = (fill.clone(), background.clone());
        async move {
            let batch = match gathered {
                Some(batch) => Some(batch),
                None => batches.try_next().await?,
            };
            let Some(batch) = batch else { return Ok(None) };
            let kept = async { Ok(background.run(move || fill.keep(index, &batch)).await??) };
            let ((), next) = futures::try_join!(kept, batches.try_next())?;
            Ok(Some(((), (batches, next))))
        }
    })
}

/// Collects pieces into contiguous batches, starting at offset `at`.
fn batches(at: u64, body: Pieces) -> impl Stream<Item = Result<Batch, Failure>> {
    stream::try_unfold(Gathering { at, body, failure: None }, Gathering::step)
}

struct Gathering {
    at: u64,
    body: Pieces,
    /// A failure that followed pieces; it is returned after they are written.
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
        let mut linger = pin!(tokio::time::sleep(LINGER));
        while bytes < BATCH_BYTES && pieces.len() < BATCH_PIECES {
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
