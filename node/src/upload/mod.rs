//! Upload: sessions receive bytes, verify them and commit them to the store. The manifest is the
//! barrier after which an image is durable.
//!
//! This module owns the unfinished sessions on this node's disk, their commits, and the push of
//! manifests. It knows nothing of HTTP. It never sends a blob to the bucket itself (the replicator
//! does), and never evicts stored content.
//!
//! # Consistency
//!
//! - A session has at most one writer. Its record is replaced before a request is acknowledged.
//! - A blob enters the store only after its digest was verified.
//! - Under WriteThrough a blob is acknowledged when the bucket has it and its link. Under WriteBack
//!   it is acknowledged when this disk has it, synced and journaled.
//! - A manifest is acknowledged only when it and everything that it refers to is durable, in either
//!   mode. Its link is written before its references are looked up, and its tags last (see
//!   `manifest`).
//!
//! # Retries
//!
//! The bucket retries its requests within the retry budget; this module does not repeat them. The
//! client repeats: a repeated chunk replaces the bytes that were never acknowledged, and a repeated
//! last `PUT` gets the result of the first one, also from another node (see `finish`). Writes of
//! tags are conditional and are repeated when another write came first.
//!
//! # Cancellation
//!
//! A client that disconnects ends the receiving; the bytes received so far stay in the session. A
//! commit or a manifest push continues in a background task, so no step is left half done. After
//! `upload.answerWithin` the client gets `Unfinished`, and the commit continues.
//!
//! # Crash
//!
//! The next start restores the sessions from their directories without trusting their bytes, and
//! removes directories without a session. The modules `commit` and `manifest` state what a crash
//! between two of their steps leaves.

mod age;
mod commit;
mod commits;
mod finish;
mod manifest;
mod place;
mod pressure;
mod receive;
mod references;
mod relink;
mod session;
mod spool;
mod writer;

use crate::repository::layout::LinkKind;
use crate::repository::tags::{Conditions, TagError};
use crate::repository::{Environment, Replicator};
use crate::store::StoreError;
use bytes::Bytes;
use commits::Commits;
use dashmap::DashMap;
use entrepot_bucket::BucketError;
use entrepot_config::PeerAddress;
use entrepot_oci::{Digest, ManifestError, Reference, Repository, SessionId, Tag};
use futures::Stream;
pub use place::Place;
use session::Session;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a request waits for another one that writes to the same session. A client that lost its
/// connection and returns must not be rejected only because the node has not noticed the loss yet.
const OTHERS_WRITE: Duration = Duration::from_secs(10);

/// Why an upload failed or was interrupted.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The session exists neither at this node nor at any other.
    #[error("unknown upload session; start a new upload with POST")]
    UnknownSession,
    /// The chunk does not start where the session ends.
    #[error("chunk out of order: expected it to start at byte {offset}")]
    OutOfOrder { offset: u64 },
    /// The length of the body differs from its `Content-Range` or `Content-Length`.
    #[error("the body length does not match Content-Range or Content-Length")]
    Length { offset: u64 },
    /// The session keeps the bytes before the piece of the body that exceeds the range.
    #[error("the request body is longer than its Content-Range")]
    LongerThanRange,
    /// Another request is writing to the session.
    #[error("another request is writing to this upload session; retry later")]
    Busy,
    /// The work continues without the client.
    #[error(
        "the upload takes longer than upload.answerWithin and continues in the background; \
         repeat the request to get its result"
    )]
    Unfinished,
    /// The node stops and has abandoned the work. The client repeats the request.
    #[error("the node is shutting down; retry the upload")]
    Stopping,
    #[error("digest mismatch: expected {expected}, but the content has {actual}")]
    DigestMismatch { expected: Box<Digest>, actual: Box<Digest> },
    #[error("too many unfinished uploads on this node (limit {0}, upload.maxSessions); retry later")]
    TooManySessions(u32),
    #[error("the content is larger than the limit of {0} bytes")]
    TooLarge(u64),
    /// The connection of the client failed. The session keeps the bytes received so far.
    #[error("cannot read the request body: {0}")]
    Body(#[source] io::Error),
    #[error("the manifest refers to content that is missing in this repository; push that content first")]
    MissingReferences { blobs: Vec<Digest>, manifests: Vec<Digest> },
    /// Another node acknowledged a blob and has not made it durable yet (WriteBack).
    #[error("{0} is not in the bucket yet: another node is still uploading it; retry later")]
    Pending(Digest),
    #[error(transparent)]
    Tag(#[from] TagError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Progress of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    pub id: SessionId,
    /// Bytes received.
    pub offset: u64,
}

/// A manifest as a client pushes it.
#[derive(Clone, Debug)]
pub struct ManifestPush {
    /// The tag or digest in the path.
    pub reference: Reference,
    /// Tags in the query (`?tag=`), which the manifest gets in addition to `reference`.
    pub tags: Vec<Tag>,
    pub content_type: Option<String>,
    pub content: Bytes,
    /// The client's `If-Match` and `If-None-Match`. They apply to the tag, or to the manifest if it
    /// is pushed by digest.
    pub conditions: Conditions,
}

/// A manifest that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub digest: Digest,
    /// The manifest that this one refers to, for `OCI-Subject`.
    pub subject: Option<Digest>,
}

/// The node that handles the requests of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This node.
    Here,
    /// Another node, at this address.
    Peer(PeerAddress),
    /// A node that this node cannot reach.
    Unknown,
}

/// The upload flow. Clones share the state.
#[derive(Clone)]
pub struct Uploads {
    inner: Arc<Inner>,
}

struct Inner {
    env: Environment,
    replicator: Arc<dyn Replicator>,
    sessions: DashMap<SessionId, Arc<Session>>,
    commits: Arc<Commits>,
    /// Received bytes are synced in the background, because they must be on disk when they are
    /// committed.
    synced: bool,
}

impl Uploads {
    /// Restores the sessions of earlier runs, and removes what a crash left of others. Blocking,
    /// because it reads the disk.
    ///
    /// # Errors
    /// If the directory of sessions cannot be read.
    pub fn start(env: Environment, replicator: Arc<dyn Replicator>) -> Result<Uploads, StoreError> {
        let sessions = restore(&env)?;
        env.metrics.sessions.set(sessions.len().try_into().unwrap_or(i64::MAX));
        let write_back = env.config.replication.is_write_back();
        let synced = write_back || env.bucket.capabilities().adopts_files;
        let inner = Inner { env, replicator, sessions, commits: Arc::default(), synced };
        Ok(Uploads { inner: Arc::new(inner) })
    }

    /// The node that handles the requests of a session.
    pub fn owner(&self, id: &SessionId) -> Owner {
        if *id.owner() == self.inner.env.config.node.name {
            return Owner::Here;
        }
        let peer = self.inner.env.config.node.peer_url.as_ref().and_then(|url| url.of(id.owner()));
        peer.map_or(Owner::Unknown, Owner::Peer)
    }

    /// Opens a session. At the limit (`upload.maxSessions`), it removes an unused session first.
    ///
    /// # Errors
    /// If the limit is reached and all sessions are in use, or if the disk fails.
    pub async fn open(&self, repository: &Repository) -> Result<SessionStatus, UploadError> {
        let most = self.inner.env.config.upload.max_sessions;
        if self.inner.sessions.len() >= most as usize && !self.make_place().await {
            return Err(UploadError::TooManySessions(most));
        }
        let reservation = self.inner.env.store.room.reserve(0).await?;
        let id = SessionId::new(self.inner.env.config.node.name.clone());
        let uploads = self.inner.env.store.dirs.uploads();
        let session =
            Session::create(&uploads, id.clone(), repository.clone(), reservation, &self.inner.env.clock).await?;
        self.inner.sessions.insert(id.clone(), session);
        self.inner.env.metrics.sessions.inc();
        Ok(SessionStatus { id, offset: 0 })
    }

    fn session(&self, repository: &Repository, id: &SessionId) -> Result<Arc<Session>, UploadError> {
        let session = self.inner.sessions.get(id).map(|session| session.clone());
        let session = session.filter(|session| session.repository == *repository);
        session.inspect(|session| session.touch(self.inner.env.clock.uptime())).ok_or(UploadError::UnknownSession)
    }

    /// The progress of the session.
    ///
    /// # Errors
    /// If this repository has no session with this ID.
    pub async fn status(&self, repository: &Repository, id: &SessionId) -> Result<SessionStatus, UploadError> {
        let session = self.session(repository, id)?;
        Ok(SessionStatus { id: id.clone(), offset: session.offset() })
    }

    /// Receives a body and acknowledges everything that the session then has. The body must start
    /// where the session ends, or in the part that was never acknowledged; it then replaces the
    /// bytes from there on. With a range, the body must have the length of the range.
    ///
    /// # Errors
    /// Bytes received before an error stay in the session until the request is repeated.
    pub async fn append(
        &self,
        repository: &Repository,
        id: &SessionId,
        place: Option<Place>,
        body: impl Stream<Item = io::Result<Bytes>> + Send + Unpin,
    ) -> Result<SessionStatus, UploadError> {
        let session = self.session(repository, id)?;
        let writing = self.writing(&session).await?;
        let writing = self.receive(&session, writing, place, body).await?;
        let writing = session.acknowledge(writing, self.inner.env.clock.now()).await?;
        Ok(SessionStatus { id: id.clone(), offset: writing.offset() })
    }

    /// Ends a session without a blob.
    ///
    /// # Errors
    /// If this repository has no session with this ID.
    pub async fn cancel(&self, repository: &Repository, id: &SessionId) -> Result<(), UploadError> {
        let session = self.session(repository, id)?;
        let writing = self.writing(&session).await?;
        self.end(&session, writing).await
    }

    /// Links a blob of the repository `from`. `false`: `from` does not have it, and the client must
    /// upload it.
    ///
    /// # Errors
    /// If the bucket fails.
    pub async fn mount(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: &Repository,
    ) -> Result<bool, UploadError> {
        // Under WriteBack the source may be visible here and not yet durable; a link to it would be
        // broken at other nodes.
        if !self.settled(from, digest).await? {
            return Ok(false);
        }
        if !self.is_linked(from, LinkKind::Layer, digest).await? || !self.has_data(digest).await? {
            return Ok(false);
        }
        // The link is written before the data is checked: whatever removes data removes it first
        // and looks for links afterwards.
        self.inner.env.links.write(repository, LinkKind::Layer, digest).await?;
        self.has_data(digest).await
    }

    /// Accepts a manifest: checks its references, waits until they are durable, and makes the
    /// manifest visible, the tag last.
    ///
    /// # Errors
    /// If the content is not a valid manifest, if it refers to missing content, or if the bucket
    /// fails. In these cases nothing that is visible is broken.
    pub async fn manifest(&self, repository: &Repository, push: ManifestPush) -> Result<Accepted, UploadError> {
        let (uploads, repository) = (self.clone(), repository.clone());
        self.to_the_end(async move { uploads.accept(&repository, push).await }).await
    }

    async fn writing(&self, session: &Session) -> Result<session::Writing, UploadError> {
        let writing = session.writing(OTHERS_WRITE).await.ok_or(UploadError::Busy)?;
        // The session may have ended during the wait.
        if self.is_open(&session.id) { Ok(writing) } else { Err(UploadError::UnknownSession) }
    }

    fn is_open(&self, id: &SessionId) -> bool {
        self.inner.sessions.contains_key(id)
    }

    /// Runs steps that must not be left half done when the client disconnects.
    ///
    /// # Errors
    /// `Stopping` if the node stopped before the steps were done; otherwise the error of the steps.
    async fn to_the_end<T: Send + 'static>(
        &self,
        steps: impl Future<Output = Result<T, UploadError>> + Send + 'static,
    ) -> Result<T, UploadError> {
        let (done, result) = oneshot::channel();
        self.inner.env.tasks.spawn("commit", async move {
            // A client that disconnected does not learn the outcome; it repeats the request.
            let _ = done.send(steps.await);
        });
        result.await.unwrap_or(Err(UploadError::Stopping))
    }
}

/// Restores the sessions on disk and removes directories without a session. A directory that cannot
/// be read or removed is left in place and does not prevent the node from starting.
fn restore(env: &Environment) -> Result<DashMap<SessionId, Arc<Session>>, StoreError> {
    let uploads = env.store.dirs.uploads();
    let sessions = DashMap::new();
    for found in std::fs::read_dir(&uploads).map_err(StoreError::io("read the upload sessions in", &uploads))? {
        let folder = match found {
            Ok(found) => found.path(),
            Err(error) => {
                tracing::error!(%error, folder = %uploads.display(), "cannot list the upload sessions");
                continue;
            }
        };
        match Session::restore(folder.clone(), |bytes| env.store.room.account_existing(bytes), &env.clock) {
            Some(session) => {
                sessions.insert(session.id.clone(), Arc::new(session));
            }
            None => {
                tracing::info!(folder = %folder.display(), "removing an upload session left by a crash");
                if let Err(error) = std::fs::remove_dir_all(&folder) {
                    tracing::error!(%error, folder = %folder.display(),
                        "cannot remove an upload session left by a crash");
                }
            }
        }
    }
    Ok(sessions)
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod races_tests;
