//! The fetch flow: serves content from the store, else from a running download of the same digest,
//! else from a new download out of the bucket.
//!
//! A node runs one download per digest (`single_flight`). Any number of readers stream from the growing
//! file (`reader`), and none waits for the end of the download. A download (`fill`) reads a large
//! object through several ranges in parallel, resumes when a request to the bucket fails half way
//! (`origin`), and continues when its readers leave. What is stored and served is verified: the
//! last bytes of unverified content are held back until the digest is known. If there is no free
//! space, or the disk fails, content passes through without being stored (`pass_through`): a pull never
//! fails because of a full disk.
//!
//! **What is served before it is verified.** A range of content that is not stored is served as the
//! bucket has it (206), because a part cannot be checked against the digest of the whole. Clients
//! that pull lazily (eStargz, SOCI, zstd:chunked) need a few KiB of a layer at once, and verify
//! each chunk against a table of contents that they have verified. Waiting for the whole layer
//! would defeat their purpose. The same request starts a download, which verifies the whole content
//! in the background. If it does not match, the object is marked as damaged (`repository::damaged`).
//! From then on this node serves nothing of it, no range and no size, until all of it was verified:
//! it responds with 502 (`doubt`). The mark is removed when the object is replaced, in the bucket
//! or by a push through this node.
//!
//! This flow never serves content unless the repository links it. It asks the bucket for the
//! current value of a tag (`tags`). It never writes to the bucket.

mod circuit;
mod content;
mod doubt;
mod failure;
mod fill;
mod fill_metrics;
mod in_memory;
mod locate;
mod manifest;
mod miss;
mod opened;
mod origin;
mod pass_through;
mod reader;
mod single_flight;
mod source;
mod tags;

#[cfg(test)]
mod tests;

pub use content::Content;

use crate::repository::layout::LinkKind;
use crate::repository::{Environment, Replicator};
use crate::store::{Expected, StoreError};
use bytes::Bytes;
use circuit::Circuit;
use entrepot_bucket::{BodyReader, BucketError, ObjectMeta};
use entrepot_oci::{Digest, Repository, Tag};
use entrepot_runtime::{BackgroundBlocking, BackgroundRuntime};
use futures::FutureExt;
use opened::Opened;
use origin::Origin;
use single_flight::SingleFlight;
use source::BucketSource;
use std::sync::Arc;

/// Why content cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The repository does not link the content, or the tag does not exist.
    #[error("not found")]
    NotFound,
    /// The repository links the content, but the bucket does not have it.
    #[error("{0} belongs to this repository but is missing from the bucket; push it again")]
    ContentMissing(Digest),
    /// The content in the bucket does not match its digest.
    #[error("the content of {0} in the bucket is damaged: it does not match its digest; push it again")]
    Mismatch(Digest),
    /// Another node acknowledged the blob and has not uploaded it to the bucket yet (WriteBack).
    #[error("another node is still uploading {0} to the bucket; retry later")]
    Pending(Digest),
    /// The bucket failed.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The disk of the store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A tag's current manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The manifest.
    pub digest: Digest,
    /// The bucket did not respond. This is the last known value, not older than
    /// `links.staleIfError`.
    pub stale: bool,
}

/// The parts of the fetch flow.
pub struct FetchParts {
    /// The parts below the flow.
    pub env: Environment,
    /// Knows what other nodes still have to send, and sends stored data that the bucket lost.
    pub replicator: Arc<dyn Replicator>,
    /// Runs the downloads of large content.
    pub background_runtime: BackgroundRuntime,
    /// Writes and hashes the downloads.
    pub background: BackgroundBlocking,
}

/// The fetch flow. Clones share it.
#[derive(Clone)]
pub struct Fetch {
    shared: Arc<Shared>,
}

/// State that requests, downloads and readers share.
struct Shared {
    parts: FetchParts,
    fills: Arc<SingleFlight<Opened>>,
    manifests: Arc<SingleFlight<Bytes>>,
    circuit: Circuit,
}

impl Shared {
    /// The object that holds the content of a digest.
    fn origin(&self, digest: &Digest) -> Origin {
        let env = &self.parts.env;
        let (bucket, background) = (env.bucket.clone(), env.background_bucket.clone());
        let source = BucketSource { bucket, background, key: env.layout.data(digest), reader: BodyReader::Client };
        let config = &env.config.bucket;
        // A broken body is retried for as long as a request; one that yields nothing for the time of a
        // request is considered broken.
        Origin::new(Arc::new(source), config.retry_budget.get(), config.request_timeout.get())
    }

    /// Registers content that is not stored, because its link may be seen before its download
    /// starts.
    fn expect(&self, digest: &Digest) -> Option<Expected> {
        let store = &self.parts.env.store;
        (!store.contents.contains(digest)).then(|| store.contents.expect(digest))
    }

    /// Runs a download in the background. Links of its content that are seen before it ends are
    /// remembered.
    fn spawn_fill(&self, name: &'static str, digest: &Digest, fill: impl Future<Output = ()> + Send + 'static) {
        let expected = self.parts.env.store.contents.expect(digest);
        self.parts.env.tasks.spawn(name, fill.map(|()| drop(expected)));
    }

    /// Counts, logs and remembers an object of the bucket that does not match its digest.
    fn mismatch(&self, digest: &Digest, version: Option<ObjectMeta>) {
        self.parts.env.damaged.mark(digest, version);
        self.parts.env.metrics.mismatches.with_label_values(&["bucket"]).inc();
        tracing::error!(key = %self.parts.env.layout.data(digest), "the content in the bucket does not match its digest");
    }
}

impl Fetch {
    /// The flow over these parts.
    pub fn new(parts: FetchParts) -> Fetch {
        let circuit = Circuit::new(parts.env.clock.clone());
        let shared = Shared { parts, fills: SingleFlight::new(), manifests: SingleFlight::new(), circuit };
        Fetch { shared: Arc::new(shared) }
    }

    /// A blob, through a repository that links it.
    ///
    /// # Errors
    /// If it is not linked or cannot be read.
    pub async fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Content, FetchError> {
        locate::blob(&self.shared, repository, digest).await
    }

    /// The size of a blob in bytes, through a repository that links it. Starts no download. A
    /// client does not push a blob that it finds here, so the bucket is always asked for link and
    /// data, whatever is stored or was seen before.
    ///
    /// # Errors
    /// As [`Fetch::blob`].
    pub async fn blob_size(&self, repository: &Repository, digest: &Digest) -> Result<u64, FetchError> {
        locate::blob_size(&self.shared, repository, digest).await
    }

    /// Starts a download of content that the store lost, without a reader. Does nothing if the
    /// content is stored or already being downloaded. Without free space the content is not stored.
    pub fn refill(&self, digest: &Digest) {
        locate::refill(&self.shared, digest);
    }

    /// A manifest, complete and verified, through a repository that links it.
    ///
    /// # Errors
    /// As [`Fetch::blob`].
    pub async fn manifest(&self, repository: &Repository, digest: &Digest) -> Result<Bytes, FetchError> {
        manifest::manifest(&self.shared, repository, digest).await
    }

    /// Asks the bucket for the link of a manifest, because a client does not push a manifest that
    /// it finds. The response follows from the result. While the bucket is unreachable, a link that
    /// was seen before counts, as for a pull.
    pub async fn recheck_manifest(&self, repository: &Repository, digest: &Digest) {
        if let Err(error) = self.shared.parts.env.links.ask(repository, LinkKind::Revision, digest).await {
            tracing::debug!(%repository, %digest, %error, "cannot check the link of a manifest in the bucket");
        }
    }

    /// The current value of a tag: one conditional request, or none within `tags.freshFor`.
    ///
    /// # Errors
    /// `NotFound` if there is no such tag. A bucket error if the bucket does not respond and no
    /// known value is recent enough.
    pub async fn resolve(&self, repository: &Repository, tag: &Tag) -> Result<Resolved, FetchError> {
        tags::resolve(&self.shared, repository, tag).await
    }
}
