//! Content that is read completely and verified before its first byte is served: manifests and
//! small blobs. Requests that wait for it get it from memory and do not wait for the disk.

use super::Shared;
use super::failure::Failure;
use super::fill_metrics::{ended, failed};
use super::origin::Origin;
use super::single_flight::Leader;
use crate::repository::layout::LinkKind;
use bytes::Bytes;
use entrepot_bucket::Object;
use entrepot_oci::Digest;
use futures::TryStreamExt;

/// Reads the whole content and verifies it. `first` is a response that begins at byte 0.
///
/// # Errors
/// If it cannot be read to its end, or does not match the digest.
pub(super) async fn read(origin: &Origin, digest: &Digest, first: Object) -> Result<Bytes, Failure> {
    let size = first.meta.size;
    let collect = |mut all: Vec<u8>, piece: Bytes| async move {
        all.extend_from_slice(&piece);
        Ok(all)
    };
    let content = origin.bytes(size, 0..size, Some(first)).try_fold(Vec::new(), collect).await?;
    if Digest::of(digest.algorithm(), &content) == *digest { Ok(content.into()) } else { Err(origin.mismatch()) }
}

/// Sends the result of [`read`] to the requests that wait, and then stores the content.
pub(super) async fn land<T: Clone + From<Bytes>>(
    shared: &Shared,
    digest: &Digest,
    kind: LinkKind,
    read: Result<Bytes, Failure>,
    leader: Leader<T>,
) {
    let content = match read {
        Ok(content) => {
            shared.parts.env.damaged.repaired(digest);
            content
        }
        Err(failure) => {
            shared.count_fill(failed(shared, digest, &failure));
            return leader.end(Err(failure));
        }
    };
    let _running = shared.count_running();
    leader.announce(Ok(content.clone().into()));
    let store = &shared.parts.env.store;
    let stored = match kind {
        LinkKind::Layer => store.contents.insert(digest, content).await,
        LinkKind::Revision => store.contents.insert_small(digest, content).await,
    };
    shared.count_fill(ended(digest, stored));
    // The flight ends only now, so that a new request either joins it or finds the content stored.
    drop(leader);
}
