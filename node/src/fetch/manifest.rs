//! Manifests are small, so they are fetched completely, verified before the first byte is served,
//! and stored.

use super::failure::Failure;
use super::flight::{Arrival, Departure, Entry};
use super::linked::linked;
use super::whole;
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
    let mut joined = linked(shared, repository, LinkKind::Revision, digest, || join(shared, digest, true)).await?;
    let mut landed = false;
    let (arrival, result) = loop {
        if joined.is_none()
            && let Some(content) = stored(shared, digest).await
        {
            return Ok(served(shared, content, "hit", "store"));
        }
        // It was stored after this request checked. The store is checked once more, and only once.
        match joined.take().or_else(|| join(shared, digest, !landed)) {
            Some(joined) => break joined,
            None => landed = true,
        }
    };
    let content = arrival.outcome().await.map_err(|failure| failure.into_error(digest))?;
    Ok(served(shared, content, result, "fill"))
}

/// Joins the fetch of a manifest or starts one, and returns which. `None` if it is stored by now.
fn join(shared: &Arc<Shared>, digest: &Digest, use_store: bool) -> Option<(Arrival<Bytes>, &'static str)> {
    match shared.manifests.enter(digest, || use_store && shared.parts.store.contains(digest)) {
        Entry::Landed => None,
        Entry::Joined(arrival) => Some((arrival, "joined")),
        Entry::New(departure, arrival) => {
            shared.spawn_fill("fetch manifest", digest, fill(shared.clone(), *digest, departure));
            Some((arrival, "fill"))
        }
    }
}

async fn stored(shared: &Shared, digest: &Digest) -> Option<Bytes> {
    match shared.parts.store.read_small(digest).await {
        Ok(content) => content,
        Err(error) => {
            tracing::warn!(%digest, %error, "cannot read a stored manifest; reading from the bucket");
            None
        }
    }
}

fn served(shared: &Shared, content: Bytes, result: &str, source: &str) -> Bytes {
    let metrics = &shared.parts.metrics;
    metrics.fetches.with_label_values(&[result]).inc();
    metrics.served_bytes.with_label_values(&[source]).inc_by(content.len() as u64);
    content
}

async fn fill(shared: Arc<Shared>, digest: Digest, mut departure: Departure<Bytes>) {
    let Some(fetched) = departure.unless_deserted(fetch(&shared, &digest)).await else { return };
    if departure.wanted().await {
        whole::land(&shared, &digest, LinkKind::Revision, fetched, departure).await;
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
    whole::read(&origin, digest, object).await
}
