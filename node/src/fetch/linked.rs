//! Nothing is served but through a repository that links it; content that is not stored is asked for beside its link.

use super::{FetchError, Shared};
use crate::oci::{Digest, Repository};
use crate::store::layout::LinkKind;
use std::pin::pin;
use std::task::Poll;

/// Asks whether the repository links the content, and calls `join` meanwhile if the content is not stored: each costs
/// a round trip to the bucket. Returns what `join` did; what it began must wait to be wanted.
///
/// # Errors
/// `NotFound` when the repository does not link it, or a bucket error.
pub(super) async fn linked<T>(
    shared: &Shared,
    repository: &Repository,
    kind: LinkKind,
    digest: &Digest,
    join: impl FnOnce() -> Option<T>,
) -> Result<Option<T>, FetchError> {
    let mut link = pin!(shared.parts.links.exists(repository, kind, digest));
    // The link is asked for first: a request that has its turn at the bucket must not wait for one that has not.
    let (linked, joined) = match futures::poll!(link.as_mut()) {
        Poll::Ready(linked) => (linked?, None),
        Poll::Pending => {
            let joined = if shared.parts.store.contains(digest) { None } else { join() };
            (link.await?, joined)
        }
    };
    if linked { Ok(joined) } else { Err(FetchError::NotFound) }
}
