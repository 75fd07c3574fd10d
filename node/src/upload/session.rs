//! Sessions: an unfinished upload, as stored in `uploads/<id>/` and as requests see it.
//!
//! `data` is the spool file. `record` holds the repository, the number of acknowledged bytes, and
//! the time of the last use. The record is replaced as a whole, before the acknowledgement that it
//! describes. It does not vouch for the bytes: after a start, the whole of `data` is hashed again.

use super::UploadError;
use super::age::LastUse;
use super::space::Space;
use super::spool::{Spool, USUAL};
use crate::store::StoreError;
use bytes::Bytes;
use entrepot_oci::{Algorithm, Digest, Repository, SessionId};
use entrepot_runtime::clock::{Clock, Timestamp, Uptime};
use entrepot_runtime::crash;
use entrepot_runtime::share::Holder;
use entrepot_runtime::tasks::blocking;
use parking_lot::{Mutex as SyncMutex, MutexGuard};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// The record as stored on disk.
#[derive(Serialize, Deserialize)]
struct Record {
    repository: Repository,
    /// Bytes acknowledged.
    answered: u64,
    /// Time of the last use, so a restart does not reset the age.
    used: Timestamp,
}

/// An unfinished upload.
pub(super) struct Session {
    pub id: SessionId,
    pub repository: Repository,
    /// Whose session it is; `None`: it is of an earlier run of the node.
    pub holder: Option<Holder>,
    used: SyncMutex<LastUse>,
    /// Bytes received, for requests that do not wait for the writer.
    offset: AtomicU64,
    folder: PathBuf,
    spool: Arc<Mutex<Spool>>,
}

/// The right to write to a session. Blocking work holds it until its end, so a request that is
/// dropped meanwhile leaves the session consistent.
pub(super) type Writing = OwnedMutexGuard<Spool>;

impl Session {
    /// Creates the directory, the empty spool file and the record.
    pub async fn create(
        uploads: &Path,
        id: SessionId,
        repository: Repository,
        (holder, space): (Holder, Space),
        clock: &Clock,
    ) -> Result<Arc<Session>, StoreError> {
        let folder = uploads.join(id.to_string());
        let made = folder.clone();
        let file = blocking(move || {
            fs::create_dir(&made)?;
            File::create_new(made.join("data"))
        });
        let file = file.await.flatten().map_err(StoreError::io("create the upload session", &folder))?;
        let spool = Spool::new(file, space);
        let session = Session::new(id, (repository, Some(holder)), LastUse::now(clock.uptime()), folder, spool);
        crash::point("upload.session-created");
        let session = Arc::new(session);
        let writing = session.spool.clone().lock_owned().await;
        session.acknowledge(writing, clock.now()).await?;
        Ok(session)
    }

    fn new(
        id: SessionId,
        (repository, holder): (Repository, Option<Holder>),
        used: LastUse,
        folder: PathBuf,
        spool: Spool,
    ) -> Session {
        Session {
            id,
            repository,
            holder,
            used: SyncMutex::new(used),
            offset: AtomicU64::new(spool.offset()),
            folder,
            spool: Arc::new(Mutex::new(spool)),
        }
    }

    /// Restores a session of an earlier run without reading its bytes. `None` for a directory
    /// without a session: a crash left it before a client knew its ID, or after the blob was
    /// committed. Blocking.
    ///
    /// `account_existing` takes the space of the bytes of the spool file.
    pub fn restore(folder: PathBuf, account_existing: impl FnOnce(u64) -> Space, clock: &Clock) -> Option<Session> {
        let id = SessionId::parse(folder.file_name()?.to_str()?).ok()?;
        let record: Record = serde_json::from_slice(&fs::read(folder.join("record")).ok()?).ok()?;
        let file = File::options().read(true).write(true).open(folder.join("data")).ok()?;
        let length = file.metadata().ok()?.len();
        // Releases the disk space that was allocated ahead.
        file.set_len(length).ok()?;
        let (now, answered) = (clock.now(), record.answered);
        let used = LastUse::earlier(clock.uptime(), now.since(record.used));
        let session = Session::new(
            id,
            (record.repository, None),
            used,
            folder,
            Spool::found(file, answered, length, account_existing(length)),
        );
        if record.used > now
            && let Err(error) = session.replace_record(answered, now)
        {
            // The clock was set back. With that record, each start would treat the session as new.
            tracing::warn!(session = %session.id, %error,
                "cannot correct the record of an upload session, whose last use is in the future; \
                 the session does not age across restarts");
        }
        Some(session)
    }

    /// Bytes received.
    pub fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// The last time that it received something, or that a client used it after it had received
    /// something.
    pub fn used(&self) -> LastUse {
        *self.last_use()
    }

    pub fn touch(&self, now: Uptime) {
        *self.last_use() = LastUse::now(now);
    }

    fn last_use(&self) -> MutexGuard<'_, LastUse> {
        self.used.lock()
    }

    /// The spool file.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Waits for the right to write; `None` if another request keeps it for longer than `patience`.
    pub async fn writing(&self, patience: Duration) -> Option<Writing> {
        tokio::time::timeout(patience, self.spool.clone().lock_owned()).await.ok()
    }

    /// The right to write, if no request has it. For removing an unused session.
    pub fn idle(&self) -> Option<Writing> {
        self.spool.clone().try_lock_owned().ok()
    }

    /// Hashes what an earlier run left in the spool file, if that was not done yet. The hashing
    /// continues when the request is dropped, so the next request finds it done.
    ///
    /// # Errors
    /// If the file cannot be read. The session is of no use then.
    pub async fn hashed(&self, mut writing: Writing) -> io::Result<(Writing, io::Result<()>)> {
        if writing.is_hashed() {
            return Ok((writing, Ok(())));
        }
        blocking(move || {
            let hashed = writing.hash();
            (writing, hashed)
        })
        .await
    }

    /// Appends pieces. Bytes that were written before an error stay. Blocking.
    pub fn append(&self, spool: &mut Spool, pieces: &[Bytes]) -> Result<(), StoreError> {
        let result = spool.append(pieces);
        self.offset.store(spool.offset(), Ordering::Release);
        result.map_err(self.failed("write"))
    }

    /// Discards the bytes from an offset on. `account_existing` takes the space of the remaining bytes.
    ///
    /// # Errors
    /// If the disk fails. The bytes then still exist.
    pub async fn give_up_from(
        self: &Arc<Self>,
        mut writing: Writing,
        offset: u64,
        account_existing: impl FnOnce(u64) -> Space + Send + 'static,
    ) -> Result<Writing, StoreError> {
        let session = self.clone();
        let given_up = blocking(move || {
            writing.give_up_from(offset)?;
            session.offset.store(offset, Ordering::Release);
            writing.space = account_existing(offset);
            Ok(writing)
        });
        given_up.await.flatten().map_err(self.failed("truncate"))
    }

    /// Records that all received bytes are acknowledged. The answer may be sent only after this
    /// returns.
    pub async fn acknowledge(self: &Arc<Self>, mut writing: Writing, now: Timestamp) -> Result<Writing, StoreError> {
        let session = self.clone();
        let written = blocking(move || {
            session.replace_record(writing.offset(), now)?;
            writing.acknowledge();
            Ok(writing)
        });
        written.await.map_err(StoreError::io("write the upload session's record in", &self.folder))?
    }

    fn replace_record(&self, answered: u64, used: Timestamp) -> Result<(), StoreError> {
        let record = Record { repository: self.repository.clone(), answered, used };
        let unfinished = self.folder.join("record.new");
        let written = serde_json::to_vec(&record)
            .map_err(io::Error::from)
            .and_then(|record| fs::write(&unfinished, record))
            .and_then(|()| fs::rename(&unfinished, self.folder.join("record")));
        written.map_err(StoreError::io("write the upload session's record in", &self.folder))?;
        crash::point("upload.record-written");
        Ok(())
    }

    /// Completes the writing of the spool file.
    ///
    /// # Errors
    /// As [`Spool::complete`].
    pub async fn complete(&self, mut writing: Writing) -> io::Result<(Writing, io::Result<()>)> {
        if writing.is_complete() {
            return Ok((writing, Ok(())));
        }
        blocking(move || {
            let completed = writing.complete();
            (writing, completed)
        })
        .await
    }

    /// The digest of all received bytes, in the algorithm that the client names.
    pub async fn digest(&self, mut writing: Writing, algorithm: Algorithm) -> Result<(Writing, Digest), StoreError> {
        if algorithm == USUAL && writing.is_hashed() {
            let digest = writing.digest(algorithm).map_err(self.failed("read"))?;
            return Ok((writing, digest));
        }
        let hashed = blocking(move || writing.digest(algorithm).map(|digest| (writing, digest)));
        hashed.await.flatten().map_err(self.failed("read"))
    }

    /// For `map_err`: adds the action and the path of the spool file.
    pub fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> StoreError + use<> {
        StoreError::io(action, &self.data())
    }

    /// Removes the session's directory with its content.
    pub async fn remove(&self) -> Result<(), UploadError> {
        let folder = self.folder.clone();
        let removed = blocking(move || fs::remove_dir_all(folder)).await.flatten();
        Ok(removed.map_err(StoreError::io("remove the upload session", &self.folder))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_the_record_on_disk_does_not_change() {
        let text = r#"{"repository":"library/alpine","answered":1048576,"used":1700000000000}"#;
        let record: Record = serde_json::from_str(text).unwrap();
        assert_eq!((record.repository.as_str(), record.answered), ("library/alpine", 1_048_576));
        assert_eq!(record.used, Timestamp(1_700_000_000_000));
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
        assert!(serde_json::from_str::<Record>(r#"{"repository":"../a","answered":0,"used":0}"#).is_err());
    }
}
