//! Where a blob is read from: the store, the fill under way, or a new fill.

use super::content::{Content, Source};
use super::failure::Failure;
use super::fill::Fill;
use super::flight::{Arrival, Entry};
use super::linked::linked;
use super::task;
use super::{FetchError, Shared};
use crate::oci::{Digest, Repository};
use crate::store::bucket::{BucketError, Object};
use crate::store::layout::LinkKind;
use crate::store::replicator::Elsewhere;
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};

/// What the beginning of a fill came to.
#[derive(Clone)]
pub(super) enum Opened {
    /// Small content, read and verified.
    Whole(Bytes),
    Fill(Arc<Fill>),
    /// There is no room for the content. The answer to the first request serves the first that takes it.
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
    let mut joined = linked(shared, repository, LinkKind::Layer, digest, || join(shared, digest, true)).await?;
    let content = |size, source| Content { size, digest: *digest, shared: shared.clone(), source };
    let mut use_store = true;
    let mut looks = 0;
    loop {
        if use_store && joined.is_none() {
            match shared.parts.store.open_content(digest).await {
                Ok(Some(stored)) => return Ok(content(stored.size, Source::Stored(stored))),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%digest, %error, "stored content cannot be opened; reading from the bucket");
                    use_store = false;
                }
            }
        }
        let Some((arrival, new)) = joined.take().or_else(|| join(shared, digest, use_store)) else {
            // Stored since this request looked. Should it not be found there again, the bucket is asked.
            looks += 1;
            use_store = looks < 2;
            continue;
        };
        return match arrival.outcome().await {
            Ok(Opened::Whole(bytes)) => Ok(content(bytes.len() as u64, Source::Whole { bytes, new })),
            Ok(Opened::Fill(fill)) => {
                let phase = fill.watch();
                Ok(content(fill.size, Source::Filling { fill, phase, new }))
            }
            Ok(Opened::Through(size, object)) => {
                let object = object.lock().unwrap_or_else(PoisonError::into_inner).take();
                Ok(content(size, Source::Through(object)))
            }
            Err(failure) => Err(failure.into_error(digest)),
        };
    }
}

/// Joins the fill of a digest or begins one, and says which. `None` when the content is stored by now.
fn join(shared: &Arc<Shared>, digest: &Digest, use_store: bool) -> Option<(Arrival<Opened>, bool)> {
    match shared.fills.enter(digest, || use_store && shared.parts.store.size(digest).is_some()) {
        Entry::Joined(arrival) => Some((arrival, false)),
        Entry::New(departure, arrival) => {
            shared.spawn_fill("fill", digest, task::fill(shared.clone(), *digest, departure));
            Some((arrival, true))
        }
        Entry::Landed => None,
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
    let origin = shared.origin(digest);
    let (linked, data) = tokio::join!(parts.links.ask(repository, LinkKind::Layer, digest), origin.head());
    match linked {
        Ok(true) => {}
        Ok(false) => match parts.replicator.elsewhere(repository, digest).await? {
            Elsewhere::NotPending => return Err(FetchError::NotFound),
            Elsewhere::Durable => return Ok(origin.head().await.map_err(|failure| failure.into_error(digest))?.size),
            Elsewhere::Pending => return Err(FetchError::Pending(*digest)),
        },
        Err(error) => return without_bucket(shared, repository, digest, error).await,
    }
    match data {
        Ok(data) => Ok(data.size),
        Err(Failure::Bucket(error)) if error.is_transient() => {
            parts.store.size(digest).ok_or_else(|| Failure::Bucket(error).into_error(digest))
        }
        Err(failure) => Err(failure.into_error(digest)),
    }
}

/// The bucket cannot be asked: what a pull relies on counts here too.
async fn without_bucket(
    shared: &Shared,
    repository: &Repository,
    digest: &Digest,
    error: BucketError,
) -> Result<u64, FetchError> {
    match shared.parts.store.size(digest) {
        Some(size) if shared.parts.links.was_seen(repository, LinkKind::Layer, digest) => Ok(size),
        _ => Err(error.into()),
    }
}
