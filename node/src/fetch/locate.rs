//! Chooses where a blob is read from: the store, a running download, or a new one.

use super::content::{Content, Source};
use super::doubt;
use super::fill::Fill;
use super::flight::{Arrival, Entry};
use super::linked::linked;
use super::task;
use super::{FetchError, Shared};
use crate::repository::damaged::Course;
use crate::repository::layout::LinkKind;
use crate::repository::replicator::Elsewhere;
use bytes::Bytes;
use entrepot_bucket::Object;
use entrepot_oci::{Digest, Repository};
use futures::FutureExt;
use std::sync::{Arc, Mutex, PoisonError};

/// The result of starting a download.
#[derive(Clone)]
pub(super) enum Opened {
    /// Small content, complete and verified.
    Whole(Bytes),
    Fill(Arc<Fill>),
    /// There is no space for the content. The response to the first request serves the first reader
    /// that takes it.
    Through(u64, Arc<Mutex<Option<Object>>>),
}

impl From<Bytes> for Opened {
    fn from(content: Bytes) -> Opened {
        Opened::Whole(content)
    }
}

/// See [`super::Fetch::blob`].
pub(super) async fn blob(
    shared: &Arc<Shared>,
    repository: &Repository,
    digest: &Digest,
) -> Result<Content, FetchError> {
    let _expected = shared.expect(digest);
    // A download of content that may be damaged must not start before `doubt::course` decided how
    // to read it.
    let early = || if shared.parts.damaged.is_damaged(digest) { None } else { join(shared, digest, true) };
    let mut joined = linked(shared, repository, LinkKind::Layer, digest, early).await?;
    let content = |size, source| Content { size, digest: *digest, shared: shared.clone(), source };
    let (mut use_store, mut verify) = (true, false);
    let mut looks = 0;
    loop {
        if use_store && joined.is_none() {
            match shared.parts.store.open_content(digest).await {
                Ok(Some(stored)) => return Ok(content(stored.size, Source::Stored(stored))),
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
        let Some((arrival, new)) = joined.take().or_else(|| join(shared, digest, use_store)) else {
            // It was stored after this request checked. If it is not there the second time, the
            // bucket is used.
            looks += 1;
            use_store = looks < 2;
            continue;
        };
        return match arrival.outcome().await {
            Ok(Opened::Whole(bytes)) => Ok(content(bytes.len() as u64, Source::Whole { bytes, new })),
            Ok(Opened::Fill(fill)) => {
                let mut phase = fill.watch();
                if verify {
                    doubt::verified(digest, &mut phase).await?;
                }
                Ok(content(fill.size, Source::Filling { fill, phase, new }))
            }
            Ok(Opened::Through(size, object)) => {
                // Only the first reader gets the open response; the others send requests of their
                // own.
                let object = object.lock().unwrap_or_else(PoisonError::into_inner).take();
                let object = if verify { doubt::read_through(shared, digest, size, object).await? } else { object };
                Ok(content(size, Source::Through(object)))
            }
            Err(failure) => Err(failure.into_error(digest)),
        };
    }
}

/// Joins the download of a digest or starts one, and returns whether it is new. `None` if the
/// content is stored by now.
fn join(shared: &Arc<Shared>, digest: &Digest, use_store: bool) -> Option<(Arrival<Opened>, bool)> {
    match shared.fills.enter(digest, || use_store && shared.parts.store.contains(digest)) {
        Entry::Joined(arrival) => Some((arrival, false)),
        Entry::New(departure, arrival) => {
            shared.spawn_fill("fill", digest, task::fill(shared.clone(), *digest, departure));
            Some((arrival, true))
        }
        Entry::Landed => None,
    }
}

/// See [`super::Fetch::refill`].
pub(super) fn refill(shared: &Arc<Shared>, digest: &Digest) {
    if let Some((arrival, true)) = join(shared, digest, true) {
        // Waiting for the outcome marks the download as wanted, so that it is not cancelled.
        shared.parts.tasks.spawn("refill", arrival.outcome().map(drop));
    }
}

/// See [`super::Fetch::blob_size`].
pub(super) async fn blob_size(
    shared: &Arc<Shared>,
    repository: &Repository,
    digest: &Digest,
) -> Result<u64, FetchError> {
    let parts = &shared.parts;
    if let (true, Some(size)) = (parts.links.is_pending(repository, LinkKind::Layer, digest), parts.store.size(digest))
    {
        return Ok(size);
    }
    let (linked, size) =
        tokio::join!(parts.links.ask(repository, LinkKind::Layer, digest), doubt::size(shared, digest));
    match linked {
        Ok(true) => {}
        Ok(false) => match parts.replicator.elsewhere(repository, digest).await? {
            Elsewhere::NotPending => return Err(FetchError::NotFound),
            Elsewhere::Durable => return doubt::size(shared, digest).await,
            Elsewhere::Pending => return Err(FetchError::Pending(*digest)),
        },
        // The bucket does not respond: a link that was seen before counts, as for a pull.
        Err(error) if !parts.links.was_seen(repository, LinkKind::Layer, digest) => return Err(error.into()),
        Err(_) => {}
    }
    match size {
        Err(FetchError::Bucket(error)) if error.is_transient() => parts.store.size(digest).ok_or(error.into()),
        // The object is damaged. An intact copy in the store of this node replaces it.
        Err(FetchError::Mismatch(_))
            if parts.store.size(digest).is_some() && parts.replicator.ensure_data(digest).await? =>
        {
            doubt::size(shared, digest).await
        }
        size => size,
    }
}
