//! The last `PUT` of a session, which may arrive several times: a client that did not receive the
//! answer repeats it, at any node, and gets the same answer.
//!
//! The commit runs in the background, so neither a client that disconnects nor a proxy that times
//! out stops it. A request that is repeated meanwhile waits for the same commit. If the session is
//! unknown, the bucket decides: the answer is whether the repository has the blob. Nothing is ever
//! written for a session that does not exist.

use super::place::Place;
use super::session::{Session, Writing};
use super::{OTHERS_WRITE, UploadError, Uploads};
use crate::repository::layout::LinkKind;
use bytes::Bytes;
use entrepot_oci::{Digest, Repository, SessionId};
use futures::Stream;
use std::future::Future;
use std::io;
use std::sync::Arc;

impl Uploads {
    /// Receives the last body, verifies the digest and commits. When it returns, the blob is as
    /// durable as `replication.mode` requires. Repeated after a commit, it does nothing and
    /// succeeds.
    ///
    /// # Errors
    /// A digest that does not match ends the session. `Unfinished` after `upload.answerWithin`; the
    /// commit continues.
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

    /// Whether the blob is durable and the repository links it. Answers a client that repeats the
    /// last `PUT` of a session which is unknown here. Always asks the bucket, regardless of what is
    /// remembered.
    ///
    /// # Errors
    /// `UnknownSession` if the blob is not durable or not linked; other errors if the bucket fails.
    pub async fn finished(&self, repository: &Repository, digest: &Digest) -> Result<(), UploadError> {
        self.in_time(async {
            // A commit of an earlier run may still be replicating.
            self.inner.replicator.durable(repository, digest).await?;
            let there = self.inner.env.links.ask(repository, LinkKind::Layer, digest).await?
                && self.inner.env.bucket.head(&self.inner.env.layout.data(digest)).await?.is_some();
            if there { Ok(()) } else { Err(UploadError::UnknownSession) }
        })
        .await
    }

    /// Waits for a blob that is pending at this node. `false`: it takes longer than
    /// `upload.answerWithin`.
    ///
    /// # Errors
    /// If the bucket fails.
    pub(super) async fn settled(&self, repository: &Repository, digest: &Digest) -> Result<bool, UploadError> {
        let durable = async { Ok(self.inner.replicator.durable(repository, digest).await?) };
        match self.in_time(durable).await {
            Ok(()) => Ok(true),
            Err(UploadError::Unfinished) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a `HEAD` may report a blob that is pending at this node. Under WriteThrough it may
    /// not before the blob is durable, because a client that finds a blob pushes its manifest next,
    /// perhaps to another node.
    ///
    /// # Errors
    /// If the bucket fails.
    pub async fn may_be_found(&self, repository: &Repository, digest: &Digest) -> Result<bool, UploadError> {
        Ok(self.inner.env.config.replication.is_write_back() || self.settled(repository, digest).await?)
    }

    /// The session and the right to write to it; `None` if the blob is already committed.
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
                // The session ended meanwhile, or is being committed. The next iteration finds out
                // which.
                Some(_) => {}
                None if self.inner.commits.of(id).is_some() => {}
                None => return Err(UploadError::Busy),
            }
        }
    }

    /// The answer for a blob that this node has committed in this run.
    async fn committed(&self, repository: &Repository, digest: &Digest) -> Result<(), UploadError> {
        // Content that is not durable yet is never evicted, so it is still in the store.
        if self.inner.env.config.replication.is_write_back() && self.inner.env.store.contents.size(digest).is_some() {
            return Ok(());
        }
        self.finished(repository, digest).await
    }

    pub(super) async fn in_time<T>(
        &self,
        steps: impl Future<Output = Result<T, UploadError>>,
    ) -> Result<T, UploadError> {
        let within = self.inner.env.config.upload.answer_within.get();
        tokio::time::timeout(within, steps).await.unwrap_or(Err(UploadError::Unfinished))
    }
}
