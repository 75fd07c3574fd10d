//! Upload: sessions that take bytes, verify them and commit them to the store; and the manifest, which is the
//! barrier after which an image is durable.

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

use crate::observe::Metrics;
use crate::oci::{Digest, ManifestError, NodeName, Reference, Repository, SessionId, Tag};
use crate::run::{Clock, Tasks};
use crate::store::bucket::BucketError;
use crate::store::disk::StoreError;
use crate::store::layout::LinkKind;
use crate::store::tags::{Conditions, TagError};
use crate::store::{Bucket, Fallback, Layout, Links, RecentPuts, Replicator, Store, Tags};
use bytes::Bytes;
use commits::Commits;
use dashmap::DashMap;
use entrepot_config::{self as config, ReplicationMode};
use futures::Stream;
pub use place::Place;
use session::Session;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a request waits for another that writes to the same session: a client that lost its connection and comes
/// back is not to be refused because the node has not noticed the loss yet.
const OTHERS_WRITE: Duration = Duration::from_secs(10);

/// Why an upload did not go on.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// There is no such session, at this node or any other.
    #[error("there is no such upload session; start again with POST")]
    UnknownSession,
    /// The chunk does not begin where the session ends.
    #[error("the chunk does not begin at byte {offset}, where the upload ends")]
    OutOfOrder { offset: u64 },
    /// The body has another length than its range or `Content-Length` says.
    #[error("the body has another length than its Content-Range says")]
    Length { offset: u64 },
    /// Another request is writing to the session.
    #[error("another request is writing to this upload session")]
    Busy,
    /// The work goes on without the client.
    #[error("this takes longer than upload.answerWithin and goes on; repeat the request to learn how it ends")]
    Unfinished,
    #[error("the content has the digest {actual}, not {expected}")]
    DigestMismatch { expected: Box<Digest>, actual: Box<Digest> },
    #[error("this node keeps {0} unfinished uploads already, and all are in use; retry later")]
    TooManySessions(u32),
    #[error("the blob is larger than {0} bytes")]
    TooLarge(u64),
    /// The client's connection failed; the session stays as far as it got.
    #[error("the request's body failed: {0}")]
    Body(#[source] io::Error),
    #[error("the manifest refers to content that this repository does not have")]
    MissingReferences { blobs: Vec<Digest>, manifests: Vec<Digest> },
    /// Another node acknowledged a blob and has not made it durable yet (WriteBack).
    #[error("{0} is on its way to the bucket from another node; retry later")]
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

/// How far a session is.
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
    /// Tags in the query (`?tag=`) that the manifest gets as well.
    pub tags: Vec<Tag>,
    pub content_type: Option<String>,
    pub content: Bytes,
    /// The client's `If-Match` and `If-None-Match`: of the tag, or of the manifest if it is pushed by digest.
    pub conditions: Conditions,
}

/// A manifest that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub digest: Digest,
    /// The manifest that it refers to, for `OCI-Subject`.
    pub subject: Option<Digest>,
}

/// Who answers for a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This node.
    Here,
    /// Another; the URL of its listener, without a path.
    Peer(String),
    /// A node that cannot be reached from here.
    Unknown,
}

/// What the upload flow is made of.
pub struct UploadParts {
    pub bucket: Arc<dyn Bucket>,
    pub layout: Layout,
    pub store: Store,
    pub links: Links,
    pub replicator: Arc<dyn Replicator>,
    pub tasks: Tasks,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    /// This node's name, for the sessions that begin here.
    pub node: NodeName,
    /// How another node is reached, `{node}` standing for its name.
    pub peers: Option<String>,
    pub mode: ReplicationMode,
    pub config: config::Upload,
    pub tags: Tags,
    pub fallback: Fallback,
    pub recent_puts: RecentPuts,
}

/// The upload flow. Clones share it.
#[derive(Clone)]
pub struct Uploads {
    inner: Arc<Inner>,
}

struct Inner {
    bucket: Arc<dyn Bucket>,
    layout: Layout,
    store: Store,
    links: Links,
    replicator: Arc<dyn Replicator>,
    tasks: Tasks,
    clock: Clock,
    metrics: Arc<Metrics>,
    node: NodeName,
    peers: Option<String>,
    mode: ReplicationMode,
    config: config::Upload,
    tags: Tags,
    fallback: Fallback,
    recent_puts: RecentPuts,
    sessions: DashMap<SessionId, Arc<Session>>,
    commits: Arc<Commits>,
    /// What is received will have to be on disk when it is committed.
    synced: bool,
}

impl Uploads {
    /// Takes up the sessions of earlier runs, and removes what a crash left of others. Blocking, for it reads the
    /// disk.
    ///
    /// # Errors
    /// When the folder of sessions cannot be read.
    pub fn start(parts: UploadParts) -> Result<Uploads, StoreError> {
        let sessions = restore(&parts)?;
        parts.metrics.sessions.set(sessions.len().try_into().unwrap_or(i64::MAX));
        let UploadParts { bucket, layout, store, links, replicator, tasks, clock, metrics, .. } = parts;
        let UploadParts { node, peers, mode, config, tags, fallback, recent_puts, .. } = parts;
        let synced = mode == ReplicationMode::WriteBack || bucket.capabilities().adopts_files;
        Ok(Uploads {
            inner: Arc::new(Inner {
                bucket,
                layout,
                store,
                links,
                replicator,
                tasks,
                clock,
                metrics,
                node,
                peers,
                mode,
                config,
                tags,
                fallback,
                recent_puts,
                sessions,
                commits: Arc::default(),
                synced,
            }),
        })
    }

    /// Who answers for a session.
    pub fn owner(&self, id: &SessionId) -> Owner {
        if *id.owner() == self.inner.node {
            return Owner::Here;
        }
        match &self.inner.peers {
            Some(peers) => Owner::Peer(peers.replace("{node}", id.owner().as_str())),
            None => Owner::Unknown,
        }
    }

    /// Opens a session. When there are as many as may be, the one that is missed the least ends.
    ///
    /// # Errors
    /// When there are too many and all are in use, or the disk fails.
    pub async fn open(&self, repository: &Repository) -> Result<SessionStatus, UploadError> {
        let most = self.inner.config.max_sessions;
        if self.inner.sessions.len() >= most as usize && !self.make_place().await {
            return Err(UploadError::TooManySessions(most));
        }
        let reservation = self.inner.store.reserve(0).await?;
        let id = SessionId::new(self.inner.node.clone());
        let uploads = self.inner.store.uploads_dir();
        let session = Session::create(&uploads, id.clone(), repository.clone(), reservation, &self.inner.clock).await?;
        self.inner.sessions.insert(id.clone(), session);
        self.inner.metrics.sessions.inc();
        Ok(SessionStatus { id, offset: 0 })
    }

    fn session(&self, repository: &Repository, id: &SessionId) -> Result<Arc<Session>, UploadError> {
        let session = self.inner.sessions.get(id).map(|session| session.clone());
        let session = session.filter(|session| session.repository == *repository);
        session.inspect(|session| session.touch(self.inner.clock.uptime())).ok_or(UploadError::UnknownSession)
    }

    /// How far the session is.
    ///
    /// # Errors
    /// When there is none of this id in this repository.
    pub async fn status(&self, repository: &Repository, id: &SessionId) -> Result<SessionStatus, UploadError> {
        let session = self.session(repository, id)?;
        Ok(SessionStatus { id: id.clone(), offset: session.offset() })
    }

    /// Takes a body and acknowledges all that the session has then. The body must begin where the session ends, or where
    /// what was acknowledged ends: then it replaces what came after that. With a range, it must have the range's length.
    ///
    /// # Errors
    /// Whatever is received before an error stays, until the same request comes again.
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
        let writing = session.acknowledge(writing, self.inner.clock.now()).await?;
        Ok(SessionStatus { id: id.clone(), offset: writing.offset() })
    }

    /// Ends a session without a blob.
    ///
    /// # Errors
    /// When there is none of this id in this repository.
    pub async fn cancel(&self, repository: &Repository, id: &SessionId) -> Result<(), UploadError> {
        let session = self.session(repository, id)?;
        let writing = self.writing(&session).await?;
        self.end(&session, writing).await
    }

    /// Links a blob that the repository `from` has. `false`: it does not have it, upload it instead.
    ///
    /// # Errors
    /// When the bucket cannot be asked.
    pub async fn mount(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: &Repository,
    ) -> Result<bool, UploadError> {
        // Under WriteBack the source may be visible here and not yet durable; a link to it would be broken elsewhere.
        if !self.settled(from, digest).await? {
            return Ok(false);
        }
        if !self.is_linked(from, LinkKind::Layer, digest).await? || !self.has_data(digest).await? {
            return Ok(false);
        }
        // The link first, then the look at the data: what removes data removes it first and looks for links afterwards.
        self.inner.links.write(repository, LinkKind::Layer, digest).await?;
        self.has_data(digest).await
    }

    /// Takes a manifest: checks its references, waits until they are durable, and makes it visible, the tag last.
    ///
    /// # Errors
    /// When it is not a manifest, refers to what is not there, or the bucket fails. Then nothing is visible of it
    /// that is broken.
    pub async fn manifest(&self, repository: &Repository, push: ManifestPush) -> Result<Accepted, UploadError> {
        let (uploads, repository) = (self.clone(), repository.clone());
        self.to_the_end(async move { uploads.accept(&repository, push).await }).await
    }

    async fn writing(&self, session: &Session) -> Result<session::Writing, UploadError> {
        let writing = session.writing(OTHERS_WRITE).await.ok_or(UploadError::Busy)?;
        // It may have ended while this waited.
        if self.is_open(&session.id) { Ok(writing) } else { Err(UploadError::UnknownSession) }
    }

    fn is_open(&self, id: &SessionId) -> bool {
        self.inner.sessions.contains_key(id)
    }

    /// Runs steps that are not to be left half way when the client goes away.
    async fn to_the_end<T: Send + 'static>(
        &self,
        steps: impl Future<Output = Result<T, UploadError>> + Send + 'static,
    ) -> Result<T, UploadError> {
        let (done, result) = oneshot::channel();
        self.inner.tasks.spawn("commit", async move {
            // A client that went away does not learn the outcome; it asks again.
            let _ = done.send(steps.await);
        });
        result.await.unwrap_or_else(|_| Err(UploadError::Body(io::Error::other("the node stopped in the middle"))))
    }
}

/// Sessions that a start finds; folders that hold none are removed. One folder that cannot be read or removed is left,
/// and keeps no node from starting.
fn restore(parts: &UploadParts) -> Result<DashMap<SessionId, Arc<Session>>, StoreError> {
    let uploads = parts.store.uploads_dir();
    let sessions = DashMap::new();
    for found in std::fs::read_dir(&uploads).map_err(StoreError::io("read the sessions", &uploads))? {
        let folder = match found {
            Ok(found) => found.path(),
            Err(error) => {
                tracing::error!(%error, folder = %uploads.display(), "a session cannot be read");
                continue;
            }
        };
        match Session::restore(folder.clone(), |bytes| parts.store.readmit(bytes), &parts.clock) {
            Some(session) => {
                sessions.insert(session.id.clone(), Arc::new(session));
            }
            None => {
                tracing::info!(folder = %folder.display(), "removing what a crash left of a session");
                if let Err(error) = std::fs::remove_dir_all(&folder) {
                    tracing::error!(%error, folder = %folder.display(), "what is left of a session cannot be removed");
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
