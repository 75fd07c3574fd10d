//! The last `PUT` of a session, once or several times: a client that did not hear the answer repeats it, at any node, and
//! is told the same.
//!
//! The commit runs in the background, so that neither a client that goes away nor a proxy that loses patience stops it.
//! Whoever repeats the request while it runs waits for the same commit. When nothing is remembered of the session, the
//! bucket is asked whether the repository has the blob; nothing is ever written for a session that is not there.

use super::place::Place;
use super::session::{Session, Writing};
use super::{OTHERS_WRITE, UploadError, Uploads};
use crate::oci::{Digest, Repository, SessionId};
use crate::store::layout::LinkKind;
use bytes::Bytes;
use entrepot_config::ReplicationMode;
use futures::Stream;
use std::future::Future;
use std::io;
use std::sync::Arc;

impl Uploads {
    /// Takes the last body, verifies the digest and commits. When it returns, the blob is as durable as
    /// `replication.mode` says. Repeated after a commit, it does nothing and succeeds.
    ///
    /// # Errors
    /// A digest that does not match ends the session. `Unfinished` after `upload.answerWithin`; the commit goes on.
    pub async fn finish(
        &self,
        repository: &Repository,
        id: &SessionId,
        digest: &Digest,
        place: Option<Place>,
        body: impl Stream<Item = io::Result<Bytes>> + Send + Unpin,
    ) -> Result<(), UploadError> {
        let Some((session, writing)) = self.in_time(self.claim(repository, id, digest)).await? else { return Ok(()) };
        let writing = self.receive(&session, writing, place, body).await?;
        let commit = self.inner.commits.begin(id, repository, digest);
        let (uploads, digest) = (self.clone(), *digest);
        self.in_time(self.to_the_end(async move { uploads.commit(session, writing, digest, commit).await })).await
    }

    /// Whether the blob is durable and the repository links it, as a client asks that repeats the last `PUT` of a
    /// session which is unknown here. The bucket is asked, whatever is remembered.
    ///
    /// # Errors
    /// `UnknownSession` when it is not so; others when the bucket cannot be asked.
    pub async fn finished(&self, repository: &Repository, digest: &Digest) -> Result<(), UploadError> {
        self.in_time(async {
            // A commit of before the last start may still be on its way.
            self.inner.replicator.durable(repository, digest).await?;
            let there = self.inner.links.ask(repository, LinkKind::Layer, digest).await?
                && self.inner.bucket.head(&self.inner.layout.data(digest)).await?.is_some();
            if there { Ok(()) } else { Err(UploadError::UnknownSession) }
        })
        .await
    }

    /// Waits for a blob that is on its way to the bucket from this node. `false`: it takes longer than
    /// `upload.answerWithin`.
    ///
    /// # Errors
    /// When the bucket fails.
    pub(super) async fn settled(&self, repository: &Repository, digest: &Digest) -> Result<bool, UploadError> {
        let durable = async { Ok(self.inner.replicator.durable(repository, digest).await?) };
        match self.in_time(durable).await {
            Ok(()) => Ok(true),
            Err(UploadError::Unfinished) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a `HEAD` may tell of a blob that is on its way to the bucket from this node. Under WriteThrough only when
    /// it has arrived, because a client that finds a blob pushes its manifest next, perhaps to another node.
    ///
    /// # Errors
    /// When the bucket fails.
    pub async fn may_be_found(&self, repository: &Repository, digest: &Digest) -> Result<bool, UploadError> {
        Ok(self.inner.mode == ReplicationMode::WriteBack || self.settled(repository, digest).await?)
    }

    /// The session and the right to write to it; `None` when the blob is committed already.
    async fn claim(
        &self,
        repository: &Repository,
        id: &SessionId,
        digest: &Digest,
    ) -> Result<Option<(Arc<Session>, Writing)>, UploadError> {
        loop {
            if let Some(known) = self.inner.commits.of(id)
                && known.adopted().await
            {
                if known.repository != *repository || known.digest != *digest {
                    return Err(UploadError::UnknownSession);
                }
                return self.committed(repository, digest).await.map(|()| None);
            }
            let session = match self.session(repository, id) {
                Err(UploadError::UnknownSession) => return self.finished(repository, digest).await.map(|()| None),
                session => session?,
            };
            match session.writing(OTHERS_WRITE).await {
                Some(writing) if self.is_open(id) => return Ok(Some((session, writing))),
                // It ended meanwhile, or is being committed: how, is known now.
                Some(_) => {}
                None if self.inner.commits.of(id).is_some() => {}
                None => return Err(UploadError::Busy),
            }
        }
    }

    /// What to answer for a blob that this node has committed in this run.
    async fn committed(&self, repository: &Repository, digest: &Digest) -> Result<(), UploadError> {
        // What is not durable yet is not a victim, so that it is stored.
        if self.inner.mode == ReplicationMode::WriteBack && self.inner.store.size(digest).is_some() {
            return Ok(());
        }
        self.finished(repository, digest).await
    }

    pub(super) async fn in_time<T>(
        &self,
        steps: impl Future<Output = Result<T, UploadError>>,
    ) -> Result<T, UploadError> {
        let within = self.inner.config.answer_within.get();
        tokio::time::timeout(within, steps).await.unwrap_or(Err(UploadError::Unfinished))
    }
}
