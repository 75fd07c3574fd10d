//! The seam between upload and replicate: what makes content durable.
//!
//! `upload` and `manage` use it, `replicate` implements it, `run::app` joins them.

use super::bucket::BucketError;
use super::disk::{Pin, StoreError};
use crate::oci::{Digest, Repository};
use crate::run::clock::Timestamp;
use async_trait::async_trait;
use std::path::PathBuf;

/// A blob that is to be durable, through a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub repository: Repository,
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// When it was journaled.
    pub since: Timestamp,
}

/// A pending blob whose journal entry is written.
#[derive(Debug)]
pub struct Journaled {
    pub pending: Pending,
    /// The entry; removed when the blob is durable.
    pub(crate) entry: PathBuf,
}

/// Makes blobs durable.
#[async_trait]
pub trait Replicator: Send + Sync + 'static {
    /// Writes the journal entry of a blob that is about to be adopted by the store. With `sync` it is on disk when
    /// this returns: it then survives a power failure, as what is acknowledged before it is durable must.
    ///
    /// # Errors
    /// When the disk fails.
    async fn journal(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        sync: bool,
    ) -> Result<Journaled, StoreError>;

    /// Begins to send a journaled blob that the store has adopted; `pin` keeps it there. It goes on until the blob is
    /// durable, whoever waits for it.
    fn send(&self, journaled: Journaled, pin: Pin);

    /// Waits until the blob is durable through the repository; returns at once when it is not pending.
    ///
    /// # Errors
    /// When the bucket failed for the whole retry budget. The blob stays pending and is tried again.
    async fn durable(&self, repository: &Repository, digest: &Digest) -> Result<(), BucketError>;

    /// Whether the bucket has the data of a digest. Data that is missing or damaged there is put again if it is stored
    /// here. One request if it is there.
    ///
    /// # Errors
    /// When the bucket cannot be asked, or does not take the data.
    async fn ensure_data(&self, digest: &Digest) -> Result<bool, BucketError>;

    /// Waits for a blob that another node acknowledged and has not yet made durable, at most for the retry budget. To be
    /// asked when the repository does not link it.
    ///
    /// # Errors
    /// When the bucket cannot be asked.
    async fn elsewhere(&self, repository: &Repository, digest: &Digest) -> Result<Elsewhere, BucketError>;
}

/// What another node does with a blob that the repository does not link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// No node is known to have it.
    NotPending,
    /// It is durable and linked now.
    Durable,
    /// It was still pending at the end of the retry budget.
    Pending,
}
