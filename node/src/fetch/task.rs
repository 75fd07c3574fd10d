//! The task behind a fill, from its first request to its place in the store. It belongs to no request: it goes on when
//! those who asked for it leave.

use super::Shared;
use super::failure::Failure;
use super::fill::{self, Fill, FillFile, Phase, Ranges};
use super::flight::Departure;
use super::locate::Opened;
use super::reader::HELD_BACK;
use super::result::{ended, failed, without_room};
use super::whole;
use crate::oci::Digest;
use crate::store::bucket::Object;
use crate::store::disk::Reservation;
use crate::store::layout::LinkKind;
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How long an answer waits, unread, to be wanted: it holds one of the requests that this node may have at the bucket,
/// which those that ask whether it is may be waiting for.
const LINK_PATIENCE: Duration = Duration::from_millis(500);

/// What the first request brought.
enum First {
    /// All of content that is verified before its first byte is given, or why not.
    Whole(Result<Bytes, Failure>),
    /// The beginning of larger content, to be read.
    Beginning(Object),
}

/// Fills the store with the content of a digest, and tells those that wait for it as soon as they can read.
pub(super) async fn fill(shared: Arc<Shared>, digest: Digest, mut departure: Departure<Opened>) {
    match first(&shared, &digest, &mut departure).await {
        None => {}
        Some(First::Whole(read)) => whole::land(&shared, &digest, LinkKind::Layer, read, departure).await,
        Some(First::Beginning(object)) => fill_file(&shared, digest, object, departure).await,
    }
}

/// What the first request brings, which is made before it is known whether the content is linked; `None` when it
/// turned out not to be.
async fn first(shared: &Shared, digest: &Digest, departure: &mut Departure<Opened>) -> Option<First> {
    let first = departure.unless_deserted(ask(shared, digest)).await?;
    if let First::Whole(_) = first {
        return departure.wanted().await.then_some(first);
    }
    match tokio::time::timeout(LINK_PATIENCE, departure.wanted()).await {
        Ok(wanted) => wanted.then_some(first),
        Err(_) => {
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

/// Fills a file of the store, which is read meanwhile; without room for it, lets the content pass through.
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
            // Verified bytes are given to readers whether or not the store could take the file. Only then the
            // flight ends: who asks now either joins it or finds the content stored.
            fill.end(Phase::Verified);
            drop(departure);
        }
        Err(failure) => {
            shared.count_fill(failed(shared, &digest, &failure));
            // The flight ends first, so that nobody joins what has failed already.
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
    // The file has all its room on disk now, so it is not still to be written.
    room.wrote(fill.size);
    let parallel = usize::try_from(shared.parts.config.parallel_ranges).unwrap_or(1);
    let (receiving, hands) = (fill.clone(), shared.parts.hands.clone());
    let bulk = origin.clone().bulk();
    let receive = async move { fill::receive(&receiving, &bulk, rest, parallel, &hands).await };
    shared.parts.bulk.run(receive).await??;
    fill::verify(fill, &origin, &shared.parts.hands).await
}

/// Moves the filled file into the store. Returns what the fill came to.
async fn adopt(shared: &Shared, fill: &Fill, room: Reservation) -> &'static str {
    let stored = shared.parts.store.adopt(&fill.digest, fill.file.path(), room, false).await;
    if stored.is_err() {
        fill.file.remove().await;
    }
    ended(&fill.digest, stored)
}

/// Resolves when the node stops and nobody reads the fill.
async fn given_up(shared: &Shared, fill: &Fill) {
    shared.parts.tasks.stopping().await;
    fill.unread().await;
}

/// Ends a fill for its readers should its task end without a word.
struct Ends(Arc<Fill>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.end(Phase::Failed(Failure::abandoned(&self.0.digest)));
    }
}
