//! Sessions: an unfinished upload as it lies in `uploads/<id>/`, and as requests see it.
//!
//! `data` is the spool file; `record` says what it is: the repository, how much was acknowledged, and when it was last
//! used. The record is replaced as a whole, before the answer that it is about. Nothing in it vouches for bytes: what a
//! start finds in `data` is hashed from its beginning.

use super::UploadError;
use super::age::LastUse;
use super::spool::{Spool, USUAL};
use crate::oci::{Algorithm, Digest, Repository, SessionId};
use crate::run::clock::{Clock, Timestamp, Uptime};
use crate::run::crash;
use crate::run::tasks::blocking;
use crate::store::disk::{Reservation, StoreError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// The record as it lies on disk.
#[derive(Serialize, Deserialize)]
struct Record {
    repository: String,
    /// Bytes acknowledged.
    answered: u64,
    /// When it was last used, so that a restart does not renew its age.
    used: Timestamp,
}

/// An unfinished upload.
pub(super) struct Session {
    pub id: SessionId,
    pub repository: Repository,
    used: SyncMutex<LastUse>,
    /// Bytes received, for those who ask without waiting for the writer.
    offset: AtomicU64,
    folder: PathBuf,
    spool: Arc<Mutex<Spool>>,
}

/// The right to write to a session. It is held across blocking work, so that a request that goes away leaves the
/// session as the work left it.
pub(super) type Writing = OwnedMutexGuard<Spool>;

impl Session {
    /// Makes the folder, the empty spool file and the record.
    pub async fn create(
        uploads: &Path,
        id: SessionId,
        repository: Repository,
        reservation: Reservation,
        clock: &Clock,
    ) -> Result<Arc<Session>, StoreError> {
        let folder = uploads.join(id.to_string());
        let made = folder.clone();
        let file = blocking(move || {
            fs::create_dir(&made)?;
            File::create_new(made.join("data"))
        });
        let file = file.await.flatten().map_err(StoreError::io("make the session", &folder))?;
        let spool = Spool::new(file, reservation);
        let session = Session::new(id, repository, LastUse::now(clock.uptime()), folder, spool);
        crash::point("upload.session-created");
        let session = Arc::new(session);
        let writing = session.spool.clone().lock_owned().await;
        session.acknowledge(writing, clock.now()).await?;
        Ok(session)
    }

    fn new(id: SessionId, repository: Repository, used: LastUse, folder: PathBuf, spool: Spool) -> Session {
        Session {
            id,
            repository,
            used: SyncMutex::new(used),
            offset: AtomicU64::new(spool.offset()),
            folder,
            spool: Arc::new(Mutex::new(spool)),
        }
    }

    /// Takes up a session of an earlier run without reading its bytes. `None` for a folder that holds none: a crash left
    /// it before anybody knew its id, or after the blob was committed. Blocking.
    ///
    /// `readmit` sets aside the bytes that lie in the spool file.
    pub fn restore(folder: PathBuf, readmit: impl FnOnce(u64) -> Reservation, clock: &Clock) -> Option<Session> {
        let id = SessionId::parse(folder.file_name()?.to_str()?).ok()?;
        let record: Record = serde_json::from_slice(&fs::read(folder.join("record")).ok()?).ok()?;
        let repository = Repository::parse(&record.repository).ok()?;
        let file = File::options().read(true).write(true).open(folder.join("data")).ok()?;
        let length = file.metadata().ok()?.len();
        // The room that was taken ahead is given back.
        file.set_len(length).ok()?;
        let (now, answered) = (clock.now(), record.answered);
        let used = LastUse::earlier(clock.uptime(), now.since(record.used));
        let session = Session::new(id, repository, used, folder, Spool::found(file, answered, length, readmit(length)));
        if record.used > now
            && let Err(error) = session.replace_record(answered, now)
        {
            // The clock was set back: with that record the session would be new again at each start.
            tracing::warn!(session = %session.id, %error, "a session's record lies in the future and stays so");
        }
        Some(session)
    }

    /// Bytes received.
    pub fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// When it last received something, or was asked for.
    pub fn used(&self) -> LastUse {
        *self.last_use()
    }

    pub fn touch(&self, now: Uptime) {
        *self.last_use() = LastUse::now(now);
    }

    fn last_use(&self) -> MutexGuard<'_, LastUse> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The spool file.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Waits for the right to write; `None` when another request keeps it for longer than `patience`.
    pub async fn writing(&self, patience: Duration) -> Option<Writing> {
        tokio::time::timeout(patience, self.spool.clone().lock_owned()).await.ok()
    }

    /// The right to write, if nobody has it: for removing a session that nobody uses.
    pub fn idle(&self) -> Option<Writing> {
        self.spool.clone().try_lock_owned().ok()
    }

    /// Hashes what an earlier run left in the spool file, if that was not done yet. It goes on when nobody waits for it
    /// any more, so that the next request finds it done.
    ///
    /// # Errors
    /// When the file cannot be read; the session is of no use then.
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

    /// Gives up the bytes from an offset on. `readmit` sets aside those that stay.
    ///
    /// # Errors
    /// When the disk fails; the bytes are then still there.
    pub async fn give_up_from(
        self: &Arc<Self>,
        mut writing: Writing,
        offset: u64,
        readmit: impl FnOnce(u64) -> Reservation + Send + 'static,
    ) -> Result<Writing, StoreError> {
        let session = self.clone();
        let given_up = blocking(move || {
            writing.give_up_from(offset)?;
            session.offset.store(offset, Ordering::Release);
            writing.reservation = readmit(offset);
            Ok(writing)
        });
        given_up.await.flatten().map_err(self.failed("shorten"))
    }

    /// Writes down that all bytes received are acknowledged, which the answer may say from then on.
    pub async fn acknowledge(self: &Arc<Self>, mut writing: Writing, now: Timestamp) -> Result<Writing, StoreError> {
        let session = self.clone();
        let written = blocking(move || {
            session.replace_record(writing.offset(), now)?;
            writing.acknowledge();
            Ok(writing)
        });
        written.await.map_err(StoreError::io("write the session's record", &self.folder))?
    }

    fn replace_record(&self, answered: u64, used: Timestamp) -> Result<(), StoreError> {
        let record = Record { repository: self.repository.to_string(), answered, used };
        let unfinished = self.folder.join("record.new");
        let written = serde_json::to_vec(&record)
            .map_err(io::Error::from)
            .and_then(|record| fs::write(&unfinished, record))
            .and_then(|()| fs::rename(&unfinished, self.folder.join("record")));
        written.map_err(StoreError::io("write the session's record", &self.folder))?;
        crash::point("upload.record-written");
        Ok(())
    }

    /// Ends the writing.
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

    /// The digest of all that was received, in the algorithm that the client names.
    pub async fn digest(&self, mut writing: Writing, algorithm: Algorithm) -> Result<(Writing, Digest), StoreError> {
        if algorithm == USUAL && writing.is_hashed() {
            let digest = writing.digest(algorithm).map_err(self.failed("read"))?;
            return Ok((writing, digest));
        }
        let hashed = blocking(move || writing.digest(algorithm).map(|digest| (writing, digest)));
        hashed.await.flatten().map_err(self.failed("read"))
    }

    /// For `map_err`: what was being done to the spool file.
    pub fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> StoreError + use<> {
        StoreError::io(action, &self.data())
    }

    /// Removes the session's folder and what is in it.
    pub async fn remove(&self) -> Result<(), UploadError> {
        let folder = self.folder.clone();
        let removed = blocking(move || fs::remove_dir_all(folder)).await.flatten();
        Ok(removed.map_err(StoreError::io("remove the session", &self.folder))?)
    }
}
