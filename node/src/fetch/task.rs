//! The task of a download, from its first request until the content is in the store. It belongs to
//! no request: it continues when the requests that wait for it are cancelled.

use super::Shared;
use super::failure::Failure;
use super::fill::{self, Fill, FillFile, Phase, Ranges};
use super::flight::Departure;
use super::locate::Opened;
use super::reader::HELD_BACK;
use super::result::{ended, failed, without_room};
use super::whole;
use crate::repository::layout::LinkKind;
use crate::store::Reservation;
use bytes::Bytes;
use entrepot_bucket::Object;
use entrepot_oci::Digest;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long a response may stay open, unread, until it is wanted. It occupies one of this node's
/// requests to the bucket (`bucket.maxRequests`), and the link checks that decide whether it is
/// wanted may be waiting for one.
const LINK_PATIENCE: Duration = Duration::from_millis(500);

/// The result of the first request.
enum First {
    /// All of the content, verified before its first byte is served, or the failure.
    Whole(Result<Bytes, Failure>),
    /// The response with the beginning of larger content, not read yet.
    Beginning(Object),
}

/// Downloads the content of a digest into the store, and announces it to waiting requests as soon
/// as they can read.
pub(super) async fn fill(shared: Arc<Shared>, digest: Digest, mut departure: Departure<Opened>) {
    match first(&shared, &digest, &mut departure).await {
        None => {}
        Some(First::Whole(read)) => whole::land(&shared, &digest, LinkKind::Layer, read, departure).await,
        Some(First::Beginning(object)) => fill_file(&shared, digest, object, departure).await,
    }
}

/// Sends the first request, before it is known whether the repository links the content. `None` if
/// it does not.
async fn first(shared: &Shared, digest: &Digest, departure: &mut Departure<Opened>) -> Option<First> {
    let first = departure.unless_deserted(ask(shared, digest)).await?;
    if let First::Whole(_) = first {
        return departure.wanted().await.then_some(first);
    }
    match tokio::time::timeout(LINK_PATIENCE, departure.wanted()).await {
        Ok(wanted) => wanted.then_some(first),
        Err(_) => {
            // Dropping the response frees its request slot. The content is requested again once it
            // is wanted.
            drop(first);
            if departure.wanted().await { Some(ask(shared, digest).await) } else { None }
        }
    }
}

async fn ask(shared: &Shared, digest: &Digest) -> First {
    let origin = shared.origin(digest);
    match origin.open(ranges(shared).first()).await {
        Ok(object) if object.meta.size > HELD_BACK => First::Beginning(object),
        Ok(object) => First::Whole(whole::read(&origin, digest, object).await),
        Err(failure) => First::Whole(Err(failure)),
    }
}

fn ranges(shared: &Shared) -> Ranges {
    if shared.parts.bucket.capabilities().parallel_ranges {
        Ranges::of(shared.parts.config.range_size.get())
    } else {
        Ranges::all()
    }
}

/// Downloads into a file of the store, which is read at the same time. Without space, the content
/// passes through.
async fn fill_file(shared: &Shared, digest: Digest, first: Object, departure: Departure<Opened>) {
    let store = &shared.parts.store;
    let size = first.meta.size;
    let mut room = match store.reserve(size).await {
        Ok(room) => room,
        Err(error) => {
            tracing::debug!(%digest, size, %error, "content passes through without being stored");
            shared.count_fill(without_room(&error));
            return departure.end(Ok(Opened::Through(size, Arc::new(Mutex::new(Some(first))))));
        }
    };
    let file = FillFile::new(store.new_fill(), size);
    let fill = Arc::new(Fill::new(digest, size, ranges(shared), file));
    let (_running, _ends) = (shared.count_running(), Ends(fill.clone()));
    departure.announce(Ok(Opened::Fill(fill.clone())));
    let filled = tokio::select! {
        filled = receive(shared, &fill, first, &mut room) => filled,
        () = given_up(shared, &fill) => Err(Failure::abandoned(&digest)),
    };
    match filled {
        Ok(()) => {
            shared.parts.damaged.repaired(&digest);
            shared.count_fill(adopt(shared, &fill, room).await);
            // Readers get verified bytes whether or not the store could take the file. The flight
            // ends last, so that a new request either joins it or finds the content stored.
            fill.end(Phase::Verified);
            drop(departure);
        }
        Err(failure) => {
            shared.count_fill(failed(shared, &digest, &failure));
            // The flight ends first, so that no request joins a failed download.
            drop(departure);
            fill.end(Phase::Failed(failure));
            fill.file.remove().await;
        }
    }
}

async fn receive(shared: &Shared, fill: &Arc<Fill>, first: Object, room: &mut Reservation) -> Result<(), Failure> {
    let origin = shared.origin(&fill.digest);
    origin.read_of(&first.meta);
    let rest = fill::begin(fill, &origin, first).await?;
    // The file's space is allocated on disk now, so the reservation no longer counts it as still to
    // be written.
    room.wrote(fill.size);
    let parallel = usize::try_from(shared.parts.config.parallel_ranges).unwrap_or(1);
    let (receiving, background) = (fill.clone(), shared.parts.background.clone());
    let in_background = origin.clone().bulk();
    let receive = async move { fill::receive(&receiving, &in_background, rest, parallel, &background).await };
    shared.parts.background_runtime.run(receive).await??;
    fill::verify(fill, &origin, &shared.parts.background).await
}

/// Moves the complete file into the store. Returns the result of the download for the metric.
async fn adopt(shared: &Shared, fill: &Fill, room: Reservation) -> &'static str {
    let stored = shared.parts.store.adopt(&fill.digest, fill.file.path(), room, false).await;
    if stored.is_err() {
        fill.file.remove().await;
    }
    ended(&fill.digest, stored)
}

/// Resolves when the node is stopping and the download has no reader.
async fn given_up(shared: &Shared, fill: &Fill) {
    shared.parts.tasks.stopping().await;
    fill.unread().await;
}

/// Fails the download for its readers if its task ends without a result.
struct Ends(Arc<Fill>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.end(Phase::Failed(Failure::abandoned(&self.0.digest)));
    }
}
