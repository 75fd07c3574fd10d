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
//! commit continues in a background task, so no step is left half done. After `upload.answerWithin`
//! the client gets `Unfinished`, and the commit continues. A manifest push ends with its client as
//! long as nothing is written; afterwards it continues in the same way, and still counts as one of
//! `http.maxRequests`.
//!
//! # Crash
//!
//! The next start restores the sessions from their directories without trusting their bytes, and
//! removes directories without a session. The modules `commit` and `manifest` state what a crash
//! between two of their steps leaves.

mod age;
mod commit;
mod commits;
mod error;
mod finish;
mod manifest;
mod place;
mod pressure;
mod receive;
mod references;
mod relink;
mod session;
mod space;
mod spool;
mod wanted;
mod writer;

use crate::repository::layout::LinkKind;
use crate::repository::tags::Conditions;
use crate::repository::{Environment, Replicator};
use crate::store::StoreError;
use bytes::Bytes;
use commits::Commits;
use dashmap::DashMap;
use entrepot_config::PeerAddress;
use entrepot_oci::{Digest, Reference, Repository, SessionId, Tag};
use entrepot_runtime::share::Holder;
pub use error::UploadError;
use futures::Stream;
pub use place::Place;
use session::Session;
use space::{Part, Space};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long a request waits for another one that writes to the same session. A client that lost its
/// connection and returns must not be rejected only because the node has not noticed the loss yet.
const OTHERS_WRITE: Duration = Duration::from_secs(10);

/// Progress of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// The session.
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
    /// The `Content-Type` of the request.
    pub content_type: Option<String>,
    /// The bytes of the manifest.
    pub content: Bytes,
    /// The client's `If-Match` and `If-None-Match`. They apply to the tag, or to the manifest if it
    /// is pushed by digest.
    pub conditions: Conditions,
}

/// A manifest that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The manifest.
    pub digest: Digest,
    /// The manifest that this one refers to, for `OCI-Subject`.
    pub subject: Option<Digest>,
    /// The tags that the push made or moved, each with the manifest to which it pointed before.
    pub moved: Vec<(Tag, Option<Digest>)>,
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
    /// The space that unfinished uploads may use.
    part: Part,
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
        let part = Part::default();
        let sessions = restore(&env, &part)?;
        env.metrics.sessions.set(sessions.len().try_into().unwrap_or(i64::MAX));
        let write_back = env.config.replication.is_write_back();
        let synced = write_back || env.bucket.capabilities().adopts_files;
        let inner = Inner { env, replicator, sessions, part, commits: Arc::default(), synced };
        Ok(Uploads { inner: Arc::new(inner) })
    }

    /// The node that handles the requests of a session.
    pub fn owner(&self, id: &SessionId) -> Owner {
        if *id.owner() == self.inner.env.config.node.name {
            return Owner::Here;
        }
        let peer = self.inner.env.config.node.peer(id.owner());
        peer.map_or(Owner::Unknown, Owner::Peer)
    }

    /// Opens a session of a client. A client may have as many sessions as are free
    /// (`upload.maxSessions`). If it has as many, one of them that is unused is removed first.
    ///
    /// # Errors
    /// If the limit is reached and no session may be removed, or if the disk fails.
    pub async fn open(&self, repository: &Repository, holder: Holder) -> Result<SessionStatus, UploadError> {
        if !self.has_place(&holder) && !self.make_place(&holder).await {
            return Err(UploadError::TooManySessions(self.inner.env.config.upload.max_sessions));
        }
        let room = self.inner.env.store.room.reserve(0).await?;
        let space = Space { room, charge: self.inner.part.charge_existing(&Some(holder.clone()), 0) };
        let id = SessionId::new(self.inner.env.config.node.name.clone());
        let uploads = self.inner.env.store.dirs.uploads();
        let session =
            Session::create(&uploads, id.clone(), repository.clone(), (holder, space), &self.inner.env.clock).await?;
        self.inner.sessions.insert(id.clone(), session);
        self.inner.env.metrics.sessions.inc();
        Ok(SessionStatus { id, offset: 0 })
    }

    fn session(&self, repository: &Repository, id: &SessionId) -> Result<Arc<Session>, UploadError> {
        let session = self.inner.sessions.get(id).map(|session| session.clone());
        let session = session.filter(|session| session.repository == *repository);
        let session = session.ok_or(UploadError::UnknownSession)?;
        // An empty session is renewed only by bytes: it costs its client only another `POST`.
        if session.offset() > 0 {
            session.touch(self.inner.env.clock.uptime());
        }
        Ok(session)
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
        if !self.is_linked(from, LinkKind::Layer, digest).await? || self.data_size(digest).await?.is_none() {
            return Ok(false);
        }
        // The link is written before the data is checked: whatever removes data removes it first
        // and looks for links afterwards.
        self.inner.env.links.write(repository, LinkKind::Layer, digest).await?;
        Ok(self.data_size(digest).await?.is_some())
    }

    /// Accepts a manifest: checks its references, waits until they are durable, and makes the
    /// manifest visible, the tag last.
    ///
    /// From the first write on, the push continues if this future is dropped. Otherwise it would
    /// leave the link of a manifest whose references were not looked up, and a client that finds
    /// the manifest does not push it again. `held` is kept until the push ends.
    ///
    /// # Errors
    /// If the content is not a valid manifest, if it refers to missing content, or if the bucket
    /// fails. In these cases nothing that is visible is broken.
    pub async fn manifest(
        &self,
        repository: &Repository,
        push: ManifestPush,
        held: impl Send + 'static,
    ) -> Result<Accepted, UploadError> {
        let planned = self.plan(repository, push).await?;
        let (uploads, repository) = (self.clone(), repository.clone());
        self.to_the_end(async move {
            let _held = held;
            uploads.accept(&repository, planned).await
        })
        .await
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
        // A client that disconnected does not learn the outcome; it repeats the request.
        self.inner.env.tasks.complete("commit", steps).await.unwrap_or(Err(UploadError::Stopping))
    }
}

/// Restores the sessions on disk and removes directories without a session. A directory that cannot
/// be read or removed is left in place and does not prevent the node from starting.
fn restore(env: &Environment, part: &Part) -> Result<DashMap<SessionId, Arc<Session>>, StoreError> {
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
        let account_existing =
            |bytes| Space { room: env.store.room.account_existing(bytes), charge: part.charge_existing(&None, bytes) };
        match Session::restore(folder.clone(), account_existing, &env.clock) {
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
