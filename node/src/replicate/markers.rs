//! Markers in the bucket for blobs that a node has acknowledged and not yet made durable
//! (WriteBack).
//!
//! Behind a load balancer, the manifest of such a blob, or a `HEAD` of it, may reach another node.
//! That node finds no link. From the marker it learns that the blob will arrive, and waits. Without
//! the marker it would answer that the blob is unknown, which clients treat as final.
//!
//! | what happens | result |
//! |---|---|
//! | the bucket is unreachable when the blob is acknowledged | no marker; other nodes cannot reach the bucket either |
//! | the node of the marker stops before the blob is durable | it is trusted for an hour; then the blob is unknown |
//! | the link is written and the marker removed between two checks | the other node reads the link again |

use crate::repository::layout::LinkKind;
use crate::repository::replicator::{Elsewhere, Pending};
use crate::repository::{Layout, Links};
use entrepot_bucket::{Bucket, BucketError, PutBody, PutMode, get_small};
use entrepot_oci::{Digest, NodeName, Repository};
use entrepot_runtime::Clock;
use entrepot_runtime::clock::{Stopwatch, Timestamp};
use entrepot_runtime::retry;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// Longest time that an acknowledgement waits for its marker. WriteBack acknowledges while the
/// bucket is unreachable, so it does not wait for the whole retry budget.
const PATIENCE: Duration = Duration::from_secs(1);

/// An older marker is ignored: its node does not return, or its blob takes very long.
const BELIEVED: Duration = Duration::from_secs(3600);

/// Size limit of a marker. It has two short fields.
const MAX_BYTES: usize = 1024;

/// The longest pause between two checks of a blob that is pending at another node.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

#[derive(Serialize, Deserialize)]
struct Marker {
    node: String,
    since: Timestamp,
}

/// Writes, removes and reads markers.
pub(super) struct Markers {
    pub bucket: Arc<dyn Bucket>,
    pub layout: Layout,
    pub links: Links,
    pub clock: Clock,
    pub node: NodeName,
    pub write_back: bool,
    pub retry_budget: Duration,
}

impl Markers {
    /// Writes the marker of a blob that is about to be acknowledged. A failure is only logged,
    /// because the blob is safe on the local disk.
    pub async fn put(&self, pending: &Pending) {
        let marker = Marker { node: self.node.to_string(), since: pending.since };
        let Ok(content) = serde_json::to_vec(&marker) else { return };
        let key = self.layout.pending(&pending.repository, &pending.digest);
        let put = self.bucket.put(&key, PutBody::Bytes(content.into()), PutMode::Overwrite);
        match tokio::time::timeout(PATIENCE, put).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error,
                    "cannot write the marker of a pending blob; \
                     other nodes report the blob as unknown until it is durable")
            }
            Err(_) => {
                tracing::warn!(%key,
                    "timed out writing the marker of a pending blob; \
                     other nodes report the blob as unknown until it is durable")
            }
        }
    }

    /// Removes the marker of a blob that is durable or lost.
    pub async fn remove(&self, pending: &Pending) {
        if !self.write_back {
            return;
        }
        if let Err(error) = self.bucket.delete(&self.layout.pending(&pending.repository, &pending.digest)).await {
            tracing::warn!(%error, "cannot remove the marker of a blob; other nodes ignore it one hour after the push");
        }
    }

    /// See [`crate::repository::Replicator::elsewhere`].
    pub async fn wait(&self, repository: &Repository, digest: &Digest) -> Result<Elsewhere, BucketError> {
        if !self.write_back {
            return Ok(Elsewhere::NotPending);
        }
        let spent = Stopwatch::start();
        let mut pauses = retry::pauses();
        loop {
            let pending = self.is_pending(repository, digest).await?;
            // The link is read after the marker: a marker is removed only after the link is
            // written, so a blob that becomes durable between the two reads is found.
            if self.links.ask(repository, LinkKind::Layer, digest).await? {
                return Ok(Elsewhere::Durable);
            }
            if !pending {
                return Ok(Elsewhere::NotPending);
            }
            let pause = pauses.next().unwrap_or_default().min(LONGEST_PAUSE);
            if spent.elapsed() + pause > self.retry_budget {
                return Ok(Elsewhere::Pending);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Whether a marker of another node says that the blob is pending there.
    async fn is_pending(&self, repository: &Repository, digest: &Digest) -> Result<bool, BucketError> {
        let key = self.layout.pending(repository, digest);
        let Some((content, _)) = get_small(&*self.bucket, &key, MAX_BYTES).await? else { return Ok(false) };
        let Ok(marker) = serde_json::from_slice::<Marker>(&content) else { return Ok(false) };
        // A marker of this node is ignored, because this node knows its own pending blobs.
        Ok(marker.node != self.node.as_str() && self.clock.now().since(marker.since) < BELIEVED)
    }
}
