//! The two phases in which a miss starts: the content is requested before it is known whether the
//! repository links it, because each of the two requests costs a round trip to the bucket.
//!
//! ```text
//! request ─┬─ link check ──────┬─ linked ───── waits for the outcome ─┐
//!          │                   └─ not linked ─ drops its follower     │
//!          │                                          │               │
//!          └─ leader: first request for the content ──┼───────────────┤
//!                                                     │               │
//!                     no follower left: cancelled, ◄──┘               └─► wanted: the response is
//!                     nothing was stored or served                        read, stored and served
//! ```
//!
//! Until the outcome is wanted, nothing is reserved, written, counted or shown. An open response
//! that nobody wants yet is given up after [`LINK_PATIENCE`] and requested again later.
//!
//! [`visible`] is apart from what reads the content, so that whatever brings content (a source) need
//! not know who may see it.

use super::failure::Failure;
use super::in_memory;
use super::opened::Opened;
use super::reader::HELD_BACK;
use super::single_flight::Leader;
use super::{FetchError, Shared};
use crate::repository::layout::LinkKind;
use bytes::Bytes;
use entrepot_bucket::Object;
use entrepot_oci::{Digest, Repository};
use std::ops::Range;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// How long a response may stay open, unread, until it is wanted. It occupies one of this node's
/// requests to the bucket (`bucket.maxRequests`), and the link checks that decide whether it is
/// wanted may be waiting for one.
const LINK_PATIENCE: Duration = Duration::from_millis(500);

/// The result of the first request.
pub(super) enum First {
    /// All of the content, verified before its first byte is served, or the failure.
    Whole(Result<Bytes, Failure>),
    /// The response with the beginning of larger content, not read yet.
    Beginning(Object),
}

/// Checks whether the repository links the content. If the content is not stored, calls `join` in
/// parallel, because each costs a round trip to the bucket. Returns the result of `join`; the work
/// that it started must wait until it is wanted.
///
/// # Errors
/// `NotFound` if the repository does not link the content, or a bucket error.
pub(super) async fn visible<T>(
    shared: &Shared,
    repository: &Repository,
    kind: LinkKind,
    digest: &Digest,
    join: impl FnOnce() -> Option<T>,
) -> Result<Option<T>, FetchError> {
    let mut link = pin!(shared.parts.env.links.exists(repository, kind, digest));
    // The link check is polled first, so that it gets a slot at the bucket before the content does.
    // Otherwise content requests that wait for their link checks could hold all slots.
    let (is_visible, joined) = match futures::poll!(link.as_mut()) {
        Poll::Ready(is_visible) => (is_visible?, None),
        Poll::Pending => {
            let joined = if shared.parts.env.store.contents.contains(digest) { None } else { join() };
            (link.await?, joined)
        }
    };
    if is_visible { Ok(joined) } else { Err(FetchError::NotFound) }
}

/// Sends the first request, before it is known whether the repository links the content. `None` if
/// it does not.
pub(super) async fn first(
    shared: &Shared,
    digest: &Digest,
    range: Option<Range<u64>>,
    leader: &mut Leader<Opened>,
) -> Option<First> {
    let first = leader.cancel_when_unused(ask(shared, digest, range.clone())).await?;
    if let First::Whole(_) = first {
        return leader.wanted().await.then_some(first);
    }
    match tokio::time::timeout(LINK_PATIENCE, leader.wanted()).await {
        Ok(wanted) => wanted.then_some(first),
        Err(_) => {
            // Dropping the response frees its request slot. The content is requested again once it
            // is wanted.
            drop(first);
            if leader.wanted().await { Some(ask(shared, digest, range.clone()).await) } else { None }
        }
    }
}

async fn ask(shared: &Shared, digest: &Digest, range: Option<Range<u64>>) -> First {
    let origin = shared.origin(digest);
    match origin.open(range).await {
        Ok(object) if object.meta.size > HELD_BACK => First::Beginning(object),
        Ok(object) => First::Whole(in_memory::read(&origin, digest, object).await),
        Err(failure) => First::Whole(Err(failure)),
    }
}
