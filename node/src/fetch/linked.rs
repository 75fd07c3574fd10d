//! Content is served only through a repository that links it. On a miss, content and link are
//! requested in parallel.

use super::{FetchError, Shared};
use crate::repository::layout::LinkKind;
use entrepot_oci::{Digest, Repository};
use std::pin::pin;
use std::task::Poll;

/// Checks whether the repository links the content. If the content is not stored, calls `join` in
/// parallel, because each costs a round trip to the bucket. Returns the result of `join`; the work
/// that it started must wait until it is wanted.
///
/// # Errors
/// `NotFound` if the repository does not link the content, or a bucket error.
pub(super) async fn linked<T>(
    shared: &Shared,
    repository: &Repository,
    kind: LinkKind,
    digest: &Digest,
    join: impl FnOnce() -> Option<T>,
) -> Result<Option<T>, FetchError> {
    let mut link = pin!(shared.parts.links.exists(repository, kind, digest));
    // The link check is polled first, so that it gets a slot at the bucket before the content does.
    // Otherwise content requests that wait for their link checks could hold all slots.
    let (linked, joined) = match futures::poll!(link.as_mut()) {
        Poll::Ready(linked) => (linked?, None),
        Poll::Pending => {
            let joined = if shared.parts.store.contains(digest) { None } else { join() };
            (link.await?, joined)
        }
    };
    if linked { Ok(joined) } else { Err(FetchError::NotFound) }
}
