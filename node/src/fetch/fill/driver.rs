//! The task of a download, from its first request until the content is in the store. It belongs to
//! no request: it continues when the requests that wait for it are cancelled.

use super::{self as fill, Fill, FillFile, Phase, Ranges};
use crate::fetch::Shared;
use crate::fetch::failure::Failure;
use crate::fetch::fill_metrics::{ended, failed, without_room};
use crate::fetch::in_memory;
use crate::fetch::miss::{First, first};
use crate::fetch::opened::Opened;
use crate::fetch::single_flight::Leader;
use crate::repository::layout::LinkKind;
use crate::store::Reservation;
use entrepot_bucket::Object;
use entrepot_oci::Digest;
use parking_lot::Mutex;
use std::sync::Arc;

/// Downloads the content of a digest into the store, and announces it to waiting requests as soon
/// as they can read.
pub(in crate::fetch) async fn fill(shared: Arc<Shared>, digest: Digest, mut leader: Leader<Opened>) {
    match first(&shared, &digest, ranges(&shared).first(), &mut leader).await {
        None => {}
        Some(First::Whole(read)) => in_memory::land(&shared, &digest, LinkKind::Layer, read, leader).await,
        Some(First::Beginning(object)) => fill_file(&shared, digest, object, leader).await,
    }
}

fn ranges(shared: &Shared) -> Ranges {
    if shared.parts.env.bucket.capabilities().parallel_ranges {
        Ranges::of(shared.parts.env.config.fetch.range_size.get())
    } else {
        Ranges::all()
    }
}

/// Downloads into a file of the store, which is read at the same time. Without space, the content
/// passes through.
async fn fill_file(shared: &Shared, digest: Digest, first: Object, leader: Leader<Opened>) {
    let store = &shared.parts.env.store;
    let size = first.meta.size;
    let mut room = match store.room.reserve(size).await {
        Ok(room) => room,
        Err(error) => {
            tracing::debug!(%digest, size, %error, "content passes through without being stored");
            shared.count_fill(without_room(&error));
            return leader.end(Ok(Opened::PassThrough(size, Arc::new(Mutex::new(Some(first))))));
        }
    };
    let file = FillFile::new(store.dirs.new_fill(), size);
    let fill = Arc::new(Fill::new(digest, size, ranges(shared), file));
    let (_running, _ends) = (shared.count_running(), Ends(fill.clone()));
    leader.announce(Ok(Opened::Fill(fill.clone())));
    let filled = tokio::select! {
        filled = receive(shared, &fill, first, &mut room) => filled,
        () = given_up(shared, &fill) => Err(Failure::abandoned(&digest)),
    };
    match filled {
        Ok(()) => {
            shared.parts.env.damaged.repaired(&digest);
            shared.count_fill(adopt(shared, &fill, room).await);
            // Readers get verified bytes whether or not the store could take the file. The flight
            // ends last, so that a new request either joins it or finds the content stored.
            fill.end(Phase::Verified);
            drop(leader);
        }
        Err(failure) => {
            shared.count_fill(failed(shared, &digest, &failure));
            // The flight ends first, so that no request joins a failed download.
            drop(leader);
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
    let parallel = usize::try_from(shared.parts.env.config.fetch.parallel_ranges).unwrap_or(1);
    let (receiving, background) = (fill.clone(), shared.parts.background.clone());
    let in_background = origin.in_background();
    let receive = async move { fill::receive(&receiving, &in_background, rest, parallel, &background).await };
    shared.parts.background_runtime.run(receive).await??;
    fill::verify(fill, &origin, &shared.parts.background).await
}

/// Moves the complete file into the store. Returns the result of the download for the metric.
async fn adopt(shared: &Shared, fill: &Fill, room: Reservation) -> &'static str {
    let stored = shared.parts.env.store.contents.adopt(&fill.digest, fill.file.path(), room, false).await;
    if stored.is_err() {
        fill.file.remove().await;
    }
    ended(&fill.digest, stored)
}

/// Resolves when the node is stopping and the download has no reader.
async fn given_up(shared: &Shared, fill: &Fill) {
    shared.parts.env.tasks.stopping().await;
    fill.unread().await;
}

/// Fails the download for its readers if its task ends without a result.
struct Ends(Arc<Fill>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.end(Phase::Failed(Failure::abandoned(&self.0.digest)));
    }
}
