//! Committing a session: turns a verified spool file into a blob that is as durable as its
//! acknowledgement promises.
//!
//! The steps, and what a crash after each leaves:
//! 1. verified: the unchanged session; the client repeats the `PUT`.
//! 2. journaled: a journal entry without content. The next start removes the entry; the session
//!    still exists.
//! 3. adopted: the next start replicates the blob, and removes the session's directory, which has
//!    no data file any more.
//! 4. session removed: as 3.
//!
//! In none of these cases has the client received 201.

use super::commits::Commit;
use super::session::{Session, Writing};
use super::{UploadError, Uploads};
use crate::store::StoreError;
use entrepot_oci::Digest;
use entrepot_runtime::crash;
use std::io;
use std::sync::Arc;

impl Uploads {
    /// Verifies the digest and commits. On a mismatch the session ends. `commit` reports progress
    /// to repeated requests.
    pub(super) async fn commit(
        &self,
        session: Arc<Session>,
        writing: Writing,
        expected: Digest,
        commit: Commit,
    ) -> Result<(), UploadError> {
        let writing = self.verified(&session, writing, &expected).await?;
        crash::point("upload.verified");
        let write_back = self.inner.env.config.replication.is_write_back();
        let size = writing.offset();
        // The blob is pinned before it is in the store, so it can never be evicted in between.
        let pin = self.inner.env.store.contents.pin(&expected);
        let journaled = self.inner.replicator.journal(&session.repository, &expected, size, write_back).await?;
        crash::point("upload.journaled");
        let writing = self.adopt(&session, writing, &expected).await?;
        crash::point("upload.adopted");
        if let Err(error) = self.end(&session, writing).await {
            tracing::warn!(%error,
                "cannot remove the directory of a committed upload session; it will be removed at the next start");
        }
        crash::point("upload.session-removed");
        self.inner.replicator.send(journaled, pin);
        // Only after the blob was handed to the replicator: a repeated request waits for the
        // replicator's result.
        commit.adopted();
        if write_back {
            return Ok(());
        }
        Ok(self.inner.replicator.durable(&session.repository, &expected).await?)
    }

    /// Completes the spool file and compares it with the declared digest. On a mismatch the session
    /// ends.
    async fn verified(
        &self,
        session: &Arc<Session>,
        writing: Writing,
        expected: &Digest,
    ) -> Result<Writing, UploadError> {
        let (writing, completed) = session.complete(writing).await.map_err(session.failed("sync"))?;
        if let Err(error) = completed {
            return Err(self.lost(session, writing, error).await);
        }
        let (writing, actual) = session.digest(writing, expected.algorithm()).await?;
        if actual == *expected {
            return Ok(writing);
        }
        self.inner.env.metrics.mismatches.with_label_values(&["upload"]).inc();
        self.end(session, writing).await?;
        Err(UploadError::DigestMismatch { expected: Box::new(*expected), actual: Box::new(actual) })
    }

    /// Moves the spool file into the store.
    async fn adopt(&self, session: &Session, mut writing: Writing, digest: &Digest) -> Result<Writing, UploadError> {
        let write_back = self.inner.env.config.replication.is_write_back();
        let reservation = writing.space.room.take();
        // WriteBack acknowledges content that only this disk has, so the content is synced.
        // WriteThrough acknowledges content that the bucket has; after a power failure the store
        // verifies what it kept.
        match self.inner.env.store.contents.adopt(digest, &session.data(), reservation, write_back).await {
            Ok(()) => {
                writing.space.charge.release();
                Ok(writing)
            }
            Err(error @ StoreError::Io { .. }) if write_back => {
                // After a failed sync, the next sync can succeed without having written the bytes,
                // so the client must send them again.
                self.end(session, writing).await?;
                Err(error.into())
            }
            Err(error) => {
                // The bytes are still in the session, so the client may finish it again.
                let size = writing.offset();
                writing.space.room = self.inner.env.store.room.account_existing(size);
                Err(error.into())
            }
        }
    }

    /// Ends a session whose written bytes may not have reached the disk.
    pub(super) async fn lost(&self, session: &Session, writing: Writing, error: io::Error) -> UploadError {
        if let Err(error) = self.end(session, writing).await {
            tracing::warn!(%error, "cannot remove the failed upload session; it will be removed at the next start");
        }
        UploadError::Store(session.failed("store")(error))
    }

    /// Forgets a session and removes its directory. A request that waits for the right to write
    /// gets it only afterwards, and then finds that the session is gone.
    pub(super) async fn end(&self, session: &Session, writing: Writing) -> Result<(), UploadError> {
        if self.inner.sessions.remove(&session.id).is_some() {
            self.inner.env.metrics.sessions.dec();
        }
        let removed = session.remove().await;
        drop(writing);
        removed
    }
}
