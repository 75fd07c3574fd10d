//! The interface between the flows that accept content and the one that makes it durable.
//!
//! `upload` and `manage` use it, `replicate` implements it, and `app::flows` connects them.

use crate::store::{Pin, StoreError};
use async_trait::async_trait;
use entrepot_bucket::BucketError;
use entrepot_oci::{Digest, Repository};
use entrepot_runtime::clock::Timestamp;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A blob that must become durable, through a repository. Its JSON form is that of a journal entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The repository that links it.
    pub repository: Repository,
    /// The blob.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// When it was journaled.
    pub since: Timestamp,
}

/// A pending blob whose journal entry is written.
#[derive(Debug)]
pub struct Journaled {
    /// The blob.
    pub pending: Pending,
    /// The journal entry. It is removed when the blob is durable.
    pub(crate) entry: PathBuf,
}

/// Makes blobs durable.
#[async_trait]
pub trait Replicator: Send + Sync + 'static {
    /// Writes the journal entry of a blob that the store is about to adopt. With `sync` the entry
    /// is on disk when this returns. It then survives a power failure, as required for a blob that
    /// is acknowledged before it is durable.
    ///
    /// # Errors
    /// If the disk fails.
    async fn journal(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        sync: bool,
    ) -> Result<Journaled, StoreError>;

    /// Starts to send a journaled blob that the store has adopted; `pin` keeps it there. The
    /// sending continues until the blob is durable, whether or not a request waits for it.
    fn send(&self, journaled: Journaled, pin: Pin);

    /// Waits until the blob is durable through the repository. Returns at once if the blob is not
    /// pending.
    ///
    /// # Errors
    /// If the bucket failed for the whole retry budget. The blob stays pending and is tried again.
    async fn durable(&self, repository: &Repository, digest: &Digest) -> Result<(), BucketError>;

    /// The size in bytes of the data of a digest in the bucket; `None` if the bucket does not have
    /// it. If the data is missing or damaged there and the store has it, it is uploaded again. One
    /// request if the bucket has the data.
    ///
    /// # Errors
    /// If the bucket fails, or does not accept the data.
    async fn ensure_data(&self, digest: &Digest) -> Result<Option<u64>, BucketError>;

    /// Waits, for the retry budget at most, for a blob that another node acknowledged and has not
    /// yet made durable. Call it if the repository does not link the blob.
    ///
    /// # Errors
    /// If the bucket fails.
    async fn elsewhere(&self, repository: &Repository, digest: &Digest) -> Result<Elsewhere, BucketError>;
}

/// The state at other nodes of a blob that the repository does not link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// No other node is known to have it.
    NotPending,
    /// It is durable and linked now.
    Durable,
    /// It was still pending at the end of the retry budget.
    Pending,
}
