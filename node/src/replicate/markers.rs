//! Markers in the bucket of blobs that a node has acknowledged and not yet made durable (WriteBack).
//!
//! Behind a load balancer the manifest of such a blob, or a `HEAD` of it, may reach another node. That node finds no link.
//! By the marker it knows that the blob is on its way, and waits for it instead of answering that it is unknown, which
//! clients take as final.
//!
//! | what happens | result |
//! |---|---|
//! | the bucket is away when the blob is acknowledged | no marker; other nodes cannot ask the bucket either |
//! | the marker's node stops before the blob is durable | the marker is believed for an hour; then the blob is unknown |
//! | the link is written and the marker removed between two looks | the node reads the link again |

use crate::oci::{Digest, NodeName, Repository};
use crate::run::Clock;
use crate::run::clock::{Stopwatch, Timestamp};
use crate::run::retry;
use crate::store::bucket::{Bucket, BucketError, PutBody, PutMode, get_small};
use crate::store::layout::LinkKind;
use crate::store::replicator::{Elsewhere, Pending};
use crate::store::{Layout, Links};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// An acknowledgement waits this long for its marker. WriteBack acknowledges while the bucket is away, so it does not
/// wait for the whole retry budget.
const PATIENCE: Duration = Duration::from_secs(1);

/// A marker that is older was left by a node that does not come back, or its blob takes very long.
const BELIEVED: Duration = Duration::from_secs(3600);

/// A marker has two short fields.
const MAX_BYTES: usize = 1024;

/// The longest pause between two looks at a blob that is pending elsewhere.
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
    /// Marks a blob that is about to be acknowledged. A failure is logged, because the blob is safe on this disk.
    pub async fn put(&self, pending: &Pending) {
        let marker = Marker { node: self.node.to_string(), since: pending.since };
        let Ok(content) = serde_json::to_vec(&marker) else { return };
        let key = self.layout.pending(&pending.repository, &pending.digest);
        let put = self.bucket.put(&key, PutBody::Bytes(content.into()), PutMode::Overwrite);
        match tokio::time::timeout(PATIENCE, put).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "other nodes do not learn that a blob is pending here"),
            Err(_) => tracing::warn!(%key, "other nodes do not learn that a blob is pending here: no answer in time"),
        }
    }

    /// Removes the marker of a blob that is durable or lost.
    pub async fn remove(&self, pending: &Pending) {
        if !self.write_back {
            return;
        }
        if let Err(error) = self.bucket.delete(&self.layout.pending(&pending.repository, &pending.digest)).await {
            tracing::warn!(%error, "the marker of a pending blob stays in the bucket");
        }
    }

    /// See [`crate::store::Replicator::elsewhere`].
    pub async fn wait(&self, repository: &Repository, digest: &Digest) -> Result<Elsewhere, BucketError> {
        if !self.write_back {
            return Ok(Elsewhere::NotPending);
        }
        let spent = Stopwatch::start();
        let mut pauses = retry::pauses();
        loop {
            let pending = self.is_pending(repository, digest).await?;
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

    /// Whether another node says that the blob is on its way.
    async fn is_pending(&self, repository: &Repository, digest: &Digest) -> Result<bool, BucketError> {
        let key = self.layout.pending(repository, digest);
        let Some((content, _)) = get_small(&*self.bucket, &key, MAX_BYTES).await? else { return Ok(false) };
        let Ok(marker) = serde_json::from_slice::<Marker>(&content) else { return Ok(false) };
        // This node would know.
        Ok(marker.node != self.node.as_str() && self.clock.now().since(marker.since) < BELIEVED)
    }
}
