//! Committing a session: from a verified spool file to a blob that is as durable as its acknowledgement says.
//!
//! The steps, and what a crash after each leaves:
//! 1. verified: the session as it was; the client repeats the `PUT`.
//! 2. journaled: a journal entry without content; the next start drops it, the session is still there.
//! 3. adopted: the next start replicates the blob and removes the session's folder, which has lost its data.
//! 4. session removed: as 3.
//!
//! In none of these has the client been told 201.

use super::commits::Commit;
use super::session::{Session, Writing};
use super::{UploadError, Uploads};
use crate::oci::Digest;
use crate::run::crash;
use crate::store::disk::StoreError;
use entrepot_config::ReplicationMode;
use std::io;
use std::sync::Arc;

impl Uploads {
    /// Verifies the digest and commits. On a mismatch the session ends. `commit` tells those who repeat the request.
    pub(super) async fn commit(
        &self,
        session: Arc<Session>,
        writing: Writing,
        expected: Digest,
        commit: Commit,
    ) -> Result<(), UploadError> {
        let (writing, completed) = session.complete(writing).await.map_err(session.failed("sync"))?;
        if let Err(error) = completed {
            return Err(self.lost(&session, writing, error).await);
        }
        let (mut writing, actual) = session.digest(writing, expected.algorithm()).await?;
        if actual != expected {
            self.inner.metrics.mismatches.with_label_values(&["upload"]).inc();
            self.end(&session, writing).await?;
            return Err(UploadError::DigestMismatch { expected: Box::new(expected), actual: Box::new(actual) });
        }
        crash::point("upload.verified");
        let write_back = self.inner.mode == ReplicationMode::WriteBack;
        let size = writing.offset();
        // Pinned before it is in the store, so that at no moment it can be a victim.
        let pin = self.inner.store.pin(&expected);
        let journaled = self.inner.replicator.journal(&session.repository, &expected, size, write_back).await?;
        crash::point("upload.journaled");
        let reservation = writing.reservation.take();
        // WriteBack acknowledges what only this disk has, so it is synced. WriteThrough acknowledges what the bucket
        // has; after a power failure the store verifies what it kept.
        match self.inner.store.adopt(&expected, &session.data(), reservation, write_back).await {
            Ok(()) => {}
            Err(error @ StoreError::Io { .. }) if write_back => {
                // A sync that failed once seems to succeed the next time: the client must send the bytes again.
                self.end(&session, writing).await?;
                return Err(error.into());
            }
            Err(error) => {
                // The bytes still lie in the session, which the client may finish again.
                writing.reservation = self.inner.store.readmit(size);
                return Err(error.into());
            }
        }
        crash::point("upload.adopted");
        if let Err(error) = self.end(&session, writing).await {
            tracing::warn!(%error, "the folder of a committed session stays on the disk until the next start");
        }
        crash::point("upload.session-removed");
        self.inner.replicator.send(journaled, pin);
        // After it is sent: whoever repeats the request waits for what the replicator makes of it.
        commit.adopted();
        if write_back {
            return Ok(());
        }
        Ok(self.inner.replicator.durable(&session.repository, &expected).await?)
    }

    /// Ends a session of which the disk did not keep what was written.
    pub(super) async fn lost(&self, session: &Session, writing: Writing, error: io::Error) -> UploadError {
        if let Err(error) = self.end(session, writing).await {
            tracing::warn!(%error, "a failed session stays on the disk until the next start");
        }
        UploadError::Store(session.failed("keep")(error))
    }

    /// Forgets a session and removes its folder. Whoever waits for the right to write gets it only then, and finds the
    /// session gone.
    pub(super) async fn end(&self, session: &Session, writing: Writing) -> Result<(), UploadError> {
        if self.inner.sessions.remove(&session.id).is_some() {
            self.inner.metrics.sessions.dec();
        }
        let removed = session.remove().await;
        drop(writing);
        removed
    }
}
