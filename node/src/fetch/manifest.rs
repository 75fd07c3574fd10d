//! Manifests are small, so they are fetched completely, verified before the first byte is served,
//! and stored.

use super::failure::Failure;
use super::in_memory;
use super::miss::visible;
use super::single_flight::{Entry, Follower, Leader};
use super::{FetchError, Shared};
use crate::repository::layout::LinkKind;
use bytes::Bytes;
use entrepot_bucket::BucketErrorKind;
use entrepot_oci::{Digest, MAX_MANIFEST_BYTES, Repository};
use std::sync::Arc;

/// See [`super::Fetch::manifest`].
pub(super) async fn manifest(
    shared: &Arc<Shared>,
    repository: &Repository,
    digest: &Digest,
) -> Result<Bytes, FetchError> {
    let _expected = shared.expect(digest);
    let mut joined = visible(shared, repository, LinkKind::Revision, digest, || join(shared, digest, true)).await?;
    let mut is_stored = false;
    let (follower, result) = loop {
        if joined.is_none()
            && let Some(content) = stored(shared, digest).await
        {
            return Ok(served(shared, content, "hit", "store"));
        }
        // It was stored after this request checked. The store is checked once more, and only once.
        match joined.take().or_else(|| join(shared, digest, !is_stored)) {
            Some(joined) => break joined,
            None => is_stored = true,
        }
    };
    let content = follower.outcome().await.map_err(|failure| failure.into_error(digest))?;
    Ok(served(shared, content, result, "fill"))
}

/// Joins the fetch of a manifest or starts one, and returns which. `None` if it is stored by now.
fn join(shared: &Arc<Shared>, digest: &Digest, use_store: bool) -> Option<(Follower<Bytes>, &'static str)> {
    match shared.manifests.enter(digest, || use_store && shared.parts.env.store.contents.contains(digest)) {
        Entry::AlreadyStored => None,
        Entry::Joined(follower) => Some((follower, "joined")),
        Entry::New(leader, follower) => {
            shared.spawn_fill("fetch manifest", digest, fill(shared.clone(), *digest, leader));
            Some((follower, "fill"))
        }
    }
}

async fn stored(shared: &Shared, digest: &Digest) -> Option<Bytes> {
    match shared.parts.env.store.contents.read_small(digest).await {
        Ok(content) => content,
        Err(error) => {
            tracing::warn!(%digest, %error, "cannot read a stored manifest; reading from the bucket");
            None
        }
    }
}

fn served(shared: &Shared, content: Bytes, result: &str, source: &str) -> Bytes {
    let metrics = &shared.parts.env.metrics;
    metrics.fetches.with_label_values(&[result]).inc();
    metrics.served_bytes.with_label_values(&[source]).inc_by(content.len() as u64);
    content
}

async fn fill(shared: Arc<Shared>, digest: Digest, mut leader: Leader<Bytes>) {
    let Some(fetched) = leader.cancel_when_unused(fetch(&shared, &digest)).await else { return };
    if leader.wanted().await {
        in_memory::land(&shared, &digest, LinkKind::Revision, fetched, leader).await;
    }
}

/// Reads the whole manifest from the bucket and verifies it.
async fn fetch(shared: &Shared, digest: &Digest) -> Result<Bytes, Failure> {
    let origin = shared.origin(digest);
    let object = origin.open(None).await?;
    let size = object.meta.size;
    if size > MAX_MANIFEST_BYTES as u64 {
        let error = origin.error(BucketErrorKind::Refused);
        return Err(error.because(format!("the manifest has {size} bytes; the limit is {MAX_MANIFEST_BYTES}")).into());
    }
    in_memory::read(&origin, digest, object).await
}
