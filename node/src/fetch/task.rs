//! The task behind a fill, from its first request to its place in the store. It belongs to no request: it goes on when
//! those who asked for it leave.

use super::Shared;
use super::failure::Failure;
use super::fill::{self, Fill, FillFile, Phase};
use super::flight::Departure;
use super::locate::{Linking, Opened};
use crate::oci::Digest;
use crate::store::bucket::Object;
use crate::store::disk::{Reservation, StoreError};
use prometheus::IntGauge;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long an answer waits, unread, to be wanted: it holds one of the requests that this node may have at the bucket,
/// which those that ask whether it is may be waiting for.
const LINK_PATIENCE: Duration = Duration::from_millis(500);

/// A fill that can begin, or content that passes through.
enum Opening {
    Fill { fill: Arc<Fill>, first: Object, room: Reservation },
    Through { first: Object, result: &'static str },
}

/// Fills the store with the content of a digest, and tells those that wait for it as soon as they can read.
pub(super) async fn fill(shared: Arc<Shared>, digest: Digest, mut departure: Departure<Opened>) {
    let count = |result: &str| shared.parts.metrics.fills.with_label_values(&[result]).inc();
    let Some(first) = first(&shared, &digest, &mut departure).await else { return };
    match open(&shared, &digest, first).await {
        Err(failure) => {
            count(if matches!(failure, Failure::Mismatch) { "mismatch" } else { "failed" });
            departure.end(Err(failure));
        }
        Ok(Opening::Through { first, result }) => {
            count(result);
            departure.end(Ok(Opened::Through(first.meta.size, Arc::new(Mutex::new(Some(first))))));
        }
        Ok(Opening::Fill { fill, first, room }) => {
            let _running = Running::new(&shared, &fill);
            let linking = Arc::<Linking>::default();
            departure.announce(Ok(Opened::Fill(fill.clone(), linking.clone())));
            let parallel = usize::try_from(shared.parts.config.parallel_ranges).unwrap_or(1);
            let origin = shared.origin(&digest);
            let filled = tokio::select! {
                filled = fill::run(&fill, &origin, first, parallel) => filled,
                () = given_up(&shared, &fill) => Err(Failure::abandoned(&digest)),
            };
            match filled {
                Ok(()) => {
                    count(adopt(&shared, &fill, room, &linking).await);
                    // Verified bytes are given to readers whether or not the store could take the file. Only then the
                    // flight ends: who asks now either joins it or finds the content stored.
                    fill.end(Phase::Verified);
                    drop(departure);
                }
                Err(failure) => {
                    count(failed(&shared, &digest, &failure));
                    // The flight ends first, so that nobody joins what has failed already.
                    drop(departure);
                    fill.end(Phase::Failed(failure));
                    fill.file.remove().await;
                }
            }
        }
    }
}

/// The answer to the first request, which is made before it is known whether the content is linked; `None` when it
/// turned out not to be.
async fn first(shared: &Shared, digest: &Digest, departure: &mut Departure<Opened>) -> Option<Result<Object, Failure>> {
    let origin = shared.origin(digest);
    let open = || origin.open(range_size(shared).map(|size| 0..size));
    let first = departure.unless_deserted(open()).await?;
    match tokio::time::timeout(LINK_PATIENCE, departure.wanted()).await {
        Ok(wanted) => wanted.then_some(first),
        Err(_) => {
            drop(first);
            if departure.wanted().await { Some(open().await) } else { None }
        }
    }
}

/// What is read by one request; `None`: all, for this bucket gains nothing by ranges.
fn range_size(shared: &Shared) -> Option<u64> {
    shared.parts.bucket.capabilities().parallel_ranges.then(|| shared.parts.config.range_size.get().max(1))
}

async fn open(shared: &Shared, digest: &Digest, first: Result<Object, Failure>) -> Result<Opening, Failure> {
    let parts = &shared.parts;
    let first = first?;
    let size = first.meta.size;
    if size == 0 && *digest != Digest::of(digest.algorithm(), b"") {
        // Of no bytes none can be held back: the reader is refused now or never.
        shared.mismatch(digest);
        return Err(Failure::Mismatch);
    }
    let mut room = match parts.store.reserve(size).await {
        Ok(room) => room,
        Err(error) => {
            tracing::debug!(%digest, size, %error, "content passes through without being stored");
            return Ok(Opening::Through { first, result: result_of(&error) });
        }
    };
    match FillFile::create(parts.store.new_fill(), size).await {
        Ok(file) => {
            // Its room on disk is taken already, so it is not still to be written.
            room.wrote(size);
            let fill = Arc::new(Fill::new(*digest, size, range_size(shared).unwrap_or(size), file));
            Ok(Opening::Fill { fill, first, room })
        }
        Err(error) => {
            tracing::warn!(%digest, size, %error, "content passes through without being stored");
            Ok(Opening::Through { first, result: result_of_io(error.kind()) })
        }
    }
}

/// Moves the filled file into the store. Returns what the fill came to.
async fn adopt(shared: &Shared, fill: &Fill, room: Reservation, linking: &Linking) -> &'static str {
    match shared.parts.store.adopt(&fill.digest, fill.file.path(), room, false).await {
        Ok(()) => {
            linking.stored(shared, &fill.digest);
            "stored"
        }
        Err(error) => {
            tracing::warn!(digest = %fill.digest, %error, "content was read and could not be stored");
            fill.file.remove().await;
            result_of(&error)
        }
    }
}

/// Says why a fill failed. Returns what it came to.
fn failed(shared: &Shared, digest: &Digest, failure: &Failure) -> &'static str {
    match failure {
        Failure::Mismatch => {
            shared.mismatch(digest);
            "mismatch"
        }
        Failure::Local(error) => {
            tracing::warn!(%digest, %error, "the disk failed during a fill");
            result_of_io(error.kind())
        }
        Failure::Missing => "failed",
        Failure::Bucket(error) => {
            tracing::warn!(%digest, %error, "a fill failed");
            "failed"
        }
    }
}

fn result_of(error: &StoreError) -> &'static str {
    if error.is_no_room() { "no_room" } else { "failed" }
}

fn result_of_io(kind: ErrorKind) -> &'static str {
    if matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded) { "no_room" } else { "failed" }
}

/// Resolves when the node stops and nobody reads the fill.
async fn given_up(shared: &Shared, fill: &Fill) {
    shared.parts.tasks.stopping().await;
    fill.unread().await;
}

/// Counts a running fill, and ends it for its readers should its task end without a word.
struct Running {
    fill: Arc<Fill>,
    gauge: IntGauge,
}

impl Running {
    fn new(shared: &Shared, fill: &Arc<Fill>) -> Running {
        let gauge = shared.parts.metrics.fills_running.clone();
        gauge.inc();
        Running { fill: fill.clone(), gauge }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.gauge.dec();
        self.fill.end(Phase::Failed(Failure::abandoned(&self.fill.digest)));
    }
}
