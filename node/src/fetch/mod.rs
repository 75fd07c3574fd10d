//! Fetch: content from the store, else from the running fill of that digest, else from a new fill out of the bucket.
//!
//! One fill a digest at a node (`flight`), with any number of readers that stream from the growing file (`reader`)
//! and none of which waits for its end. A fill (`fill`) reads a large object through several ranges at once, goes on
//! when a request to the bucket breaks off (`origin`), and goes on when its readers leave. What is stored and served
//! is verified; the last bytes of unverified content are held back until its digest is known. Where there is no room,
//! or the disk fails, content passes through without being stored (`through`): a pull never fails for want of disk.
//!
//! **What is served before it is verified.** A range of content that is not stored is given as the bucket has it (206):
//! a part says nothing of the digest of the whole, and clients that pull lazily (eStargz, SOCI, zstd:chunked) need a few
//! KiB of a layer at once and verify each chunk against a table of contents that they have verified. Waiting for the
//! whole layer would take from them what they are there for. A node verifies the whole in the background (the same
//! request begins a fill). When that does not match, the object is marked as damaged (`store::damaged`), and from then on
//! this node gives nothing of it away, no range and no size, before all of it was verified: it answers 502 (`doubt`).
//! The mark goes when the object is replaced, in the bucket or by a push through this node.
//!
//! Nothing is served but through a repository that links it, and what a tag is, is asked of the bucket (`tags`).

mod circuit;
mod content;
mod doubt;
mod failure;
mod fill;
mod flight;
mod linked;
mod locate;
mod manifest;
mod origin;
mod reader;
mod result;
mod tags;
mod task;
mod through;
mod whole;

#[cfg(test)]
mod tests;

pub use content::Content;

use crate::observe::Metrics;
use crate::oci::{Digest, Repository, Tag};
use crate::run::{Bulk, Clock, Hands, Tasks};
use crate::store::bucket::{Bucket, BucketError, ObjectMeta};
use crate::store::disk::{Expected, Store, StoreError};
use crate::store::layout::LinkKind;
use crate::store::{Damaged, Layout, Links, Replicator};
use bytes::Bytes;
use circuit::Circuit;
use entrepot_config as config;
use flight::Flights;
use futures::FutureExt;
use origin::Origin;
use std::sync::Arc;
use std::time::Duration;

/// Why content cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The repository does not link it, or there is no such tag.
    #[error("not found")]
    NotFound,
    /// The repository links it and the bucket has no bytes of it.
    #[error("{0} is linked and its content is missing in the bucket")]
    ContentMissing(Digest),
    /// What the bucket has is not what the digest says.
    #[error("the content of {0} in the bucket does not match its digest")]
    Mismatch(Digest),
    /// Another node acknowledged the blob and has not made it durable yet (WriteBack).
    #[error("{0} is on its way to the bucket from another node; retry later")]
    Pending(Digest),
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A tag and the manifest that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub digest: Digest,
    /// The bucket could not be asked; this is the last known value, within `tags.staleIfError`.
    pub stale: bool,
}

/// What the fetch flow is made of.
pub struct FetchParts {
    pub bucket: Arc<dyn Bucket>,
    pub layout: Layout,
    pub store: Store,
    pub links: Links,
    pub replicator: Arc<dyn Replicator>,
    /// What was seen to be damaged in the bucket; shared with whoever repairs it.
    pub damaged: Arc<Damaged>,
    pub config: config::Fetch,
    pub tags: config::Tags,
    pub tasks: Tasks,
    /// Where fills of large content are received.
    pub bulk: Bulk,
    pub hands: Hands,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    /// For how long a body that broke off is tried again without one more byte arriving.
    pub retry_budget: Duration,
    /// A body that yields nothing for this long has broken off.
    pub stall_timeout: Duration,
}

/// The fetch flow. Clones share it.
#[derive(Clone)]
pub struct Fetch {
    shared: Arc<Shared>,
}

/// What requests, fills and readers share.
struct Shared {
    parts: FetchParts,
    fills: Arc<Flights<locate::Opened>>,
    manifests: Arc<Flights<Bytes>>,
    circuit: Circuit,
}

impl Shared {
    /// The object that holds the content of a digest.
    fn origin(&self, digest: &Digest) -> Origin {
        let parts = &self.parts;
        let key = parts.layout.data(digest);
        Origin::new(parts.bucket.clone(), key, parts.retry_budget, parts.stall_timeout)
    }

    /// Expects content that is not stored: its link may be seen before there is a fill of it.
    fn expect(&self, digest: &Digest) -> Option<Expected> {
        let store = &self.parts.store;
        (!store.contains(digest)).then(|| store.expect(digest))
    }

    /// Runs a fill in the background. Links of its content that are seen before it ends are remembered.
    fn spawn_fill(&self, name: &'static str, digest: &Digest, fill: impl Future<Output = ()> + Send + 'static) {
        let expected = self.parts.store.expect(digest);
        self.parts.tasks.spawn(name, fill.map(|()| drop(expected)));
    }

    /// Counts, logs and remembers content of the bucket that is not what its digest says.
    fn mismatch(&self, digest: &Digest, version: Option<ObjectMeta>) {
        self.parts.damaged.mark(digest, version);
        self.parts.metrics.mismatches.with_label_values(&["bucket"]).inc();
        tracing::error!(key = %self.parts.layout.data(digest), "the content in the bucket does not match its digest");
    }
}

impl Fetch {
    pub fn new(parts: FetchParts) -> Fetch {
        let circuit = Circuit::new(parts.clock.clone());
        let shared = Shared { parts, fills: Flights::new(), manifests: Flights::new(), circuit };
        Fetch { shared: Arc::new(shared) }
    }

    /// A blob, through a repository that links it.
    ///
    /// # Errors
    /// When it is not linked or cannot be read.
    pub async fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Content, FetchError> {
        locate::blob(&self.shared, repository, digest).await
    }

    /// The size of a blob in bytes, through a repository that links it. Starts no fill. A client that pushes does not send
    /// what this finds, so the bucket is asked for link and data, whatever is stored or was seen before.
    ///
    /// # Errors
    /// As [`Fetch::blob`].
    pub async fn blob_size(&self, repository: &Repository, digest: &Digest) -> Result<u64, FetchError> {
        locate::blob_size(&self.shared, repository, digest).await
    }

    /// Begins to fill the store with content that it lost, without a reader. Nothing when it is stored, or being
    /// filled already; without room it stays as it is.
    pub fn refill(&self, digest: &Digest) {
        locate::refill(&self.shared, digest);
    }

    /// A manifest, whole and verified, through a repository that links it.
    ///
    /// # Errors
    /// As [`Fetch::blob`].
    pub async fn manifest(&self, repository: &Repository, digest: &Digest) -> Result<Bytes, FetchError> {
        manifest::manifest(&self.shared, repository, digest).await
    }

    /// Asks the bucket for the link of a manifest, for a client that does not push what it finds. What is served then
    /// follows from the answer. While the bucket cannot be asked, what was seen before counts, as for a pull.
    pub async fn recheck_manifest(&self, repository: &Repository, digest: &Digest) {
        if let Err(error) = self.shared.parts.links.ask(repository, LinkKind::Revision, digest).await {
            tracing::debug!(%repository, %digest, %error, "a link cannot be asked for");
        }
    }

    /// What a tag is now: one conditional request, or none within `tags.freshFor`.
    ///
    /// # Errors
    /// `NotFound` when there is no such tag; a bucket error when the bucket cannot be asked and no value is known
    /// that is young enough.
    pub async fn resolve(&self, repository: &Repository, tag: &Tag) -> Result<Resolved, FetchError> {
        tags::resolve(&self.shared, repository, tag).await
    }
}
