//! Chooses where a blob is read from: the store, a running download, or a new one.

use super::content::{Content, ReadFrom};
use super::doubt;
use super::fill::driver;
use super::miss::visible;
use super::opened::Opened;
use super::single_flight::{Entry, Follower};
use super::{FetchError, Shared};
use crate::repository::damaged::Course;
use crate::repository::layout::LinkKind;
use crate::repository::replicator::Elsewhere;
use entrepot_oci::{Digest, Repository};
use futures::FutureExt;
use std::sync::Arc;

/// See [`super::Fetch::blob`].
pub(super) async fn blob(
    shared: &Arc<Shared>,
    repository: &Repository,
    digest: &Digest,
) -> Result<Content, FetchError> {
    let _expected = shared.expect(digest);
    // A download of content that may be damaged must not start before `doubt::course` decided how
    // to read it.
    let early = || if shared.parts.env.damaged.is_damaged(digest) { None } else { join(shared, digest, true) };
    let mut joined = visible(shared, repository, LinkKind::Layer, digest, early).await?;
    let content = |size, source| Content { size, digest: *digest, shared: shared.clone(), source };
    let (mut use_store, mut verify) = (true, false);
    let mut looks = 0;
    loop {
        if use_store && joined.is_none() {
            match shared.parts.env.store.contents.open(digest).await {
                Ok(Some(stored)) => return Ok(content(stored.size, ReadFrom::Stored(stored))),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%digest, %error, "cannot open stored content; reading from the bucket");
                    use_store = false;
                }
            }
        }
        if joined.is_none() {
            verify = doubt::course(shared, digest).await? == Course::Verify;
        }
        let Some((follower, new)) = joined.take().or_else(|| join(shared, digest, use_store)) else {
            // It was stored after this request checked. If it is not there the second time, the
            // bucket is used.
            looks += 1;
            use_store = looks < 2;
            continue;
        };
        let opened = follower.outcome().await.map_err(|failure| failure.into_error(digest))?;
        let (size, source) = read_from(shared, digest, opened, new, verify).await?;
        return Ok(content(size, source));
    }
}

/// How a reader reads what a download opened, and the size of the content. `new`: this request
/// started the download. `verify`: nothing may be served before all of it is verified.
async fn read_from(
    shared: &Shared,
    digest: &Digest,
    opened: Opened,
    new: bool,
    verify: bool,
) -> Result<(u64, ReadFrom), FetchError> {
    Ok(match opened {
        Opened::InMemory(bytes) => (bytes.len() as u64, ReadFrom::InMemory { bytes, new }),
        Opened::Fill(fill) => {
            let mut phase = fill.watch();
            if verify {
                doubt::verified(digest, &mut phase).await?;
            }
            (fill.size, ReadFrom::Filling { fill, phase, new })
        }
        Opened::PassThrough(size, object) => {
            // Only the first reader gets the open response; the others send requests of their own.
            let object = object.lock().take();
            let object = if verify { doubt::read_through(shared, digest, size, object).await? } else { object };
            (size, ReadFrom::PassThrough(object))
        }
    })
}

/// Joins the download of a digest or starts one, and returns whether it is new. `None` if the
/// content is stored by now.
fn join(shared: &Arc<Shared>, digest: &Digest, use_store: bool) -> Option<(Follower<Opened>, bool)> {
    match shared.fills.enter(digest, || use_store && shared.parts.env.store.contents.contains(digest)) {
        Entry::Joined(follower) => Some((follower, false)),
        Entry::New(leader, follower) => {
            shared.spawn_fill("fill", digest, driver::fill(shared.clone(), *digest, leader));
            Some((follower, true))
        }
        Entry::AlreadyStored => None,
    }
}

/// See [`super::Fetch::refill`].
pub(super) fn refill(shared: &Arc<Shared>, digest: &Digest) {
    if let Some((follower, true)) = join(shared, digest, true) {
        // Waiting for the outcome marks the download as wanted, so that it is not cancelled.
        shared.parts.env.tasks.spawn("refill", follower.outcome().map(drop));
    }
}

/// See [`super::Fetch::blob_size`].
pub(super) async fn blob_size(
    shared: &Arc<Shared>,
    repository: &Repository,
    digest: &Digest,
) -> Result<u64, FetchError> {
    let parts = &shared.parts;
    if let (true, Some(size)) =
        (parts.env.links.is_pending(repository, LinkKind::Layer, digest), parts.env.store.contents.size(digest))
    {
        return Ok(size);
    }
    let (linked, size) =
        tokio::join!(parts.env.links.ask(repository, LinkKind::Layer, digest), doubt::size(shared, digest));
    match linked {
        Ok(true) => {}
        Ok(false) => match parts.replicator.elsewhere(repository, digest).await? {
            Elsewhere::NotPending => return Err(FetchError::NotFound),
            Elsewhere::Durable => return doubt::size(shared, digest).await,
            Elsewhere::Pending => return Err(FetchError::Pending(*digest)),
        },
        // The bucket does not respond: a link that was seen before counts, as for a pull.
        Err(error) if !parts.env.links.was_seen(repository, LinkKind::Layer, digest) => return Err(error.into()),
        Err(_) => {}
    }
    match size {
        Err(FetchError::Bucket(error)) if error.is_transient() => {
            parts.env.store.contents.size(digest).ok_or(error.into())
        }
        // The object is damaged. An intact copy in the store of this node replaces it.
        Err(FetchError::Mismatch(_))
            if parts.env.store.contents.size(digest).is_some()
                && parts.replicator.ensure_data(digest).await?.is_some() =>
        {
            doubt::size(shared, digest).await
        }
        size => size,
    }
}
