//! Sessions: an unfinished upload as it lies in `uploads/<id>/`, and as requests see it.
//!
//! `data` is the spool file; `record` says what it is: repository, start, and a hash state with the offset that it
//! belongs to. The record is replaced as a whole, and may lag behind the data: what a crash cut between the two is
//! hashed again from the record's offset on.

use super::UploadError;
use super::spool::{Spool, USUAL, hash};
use crate::oci::{Algorithm, Digest, Hasher, Repository, SessionId};
use crate::run::clock::{Clock, Timestamp};
use crate::run::crash;
use crate::run::tasks::blocking;
use crate::store::disk::{Reservation, StoreError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// After so many bytes the record is written again: what a start has to hash anew is at most this, 0.15 s of one core.
const RECORD_EVERY: u64 = 256 << 20;

/// The record as it lies on disk.
#[derive(Serialize, Deserialize)]
struct Record {
    repository: String,
    started: Timestamp,
    /// Bytes that the hash state covers.
    offset: u64,
    hash_state: String,
}

/// An unfinished upload.
pub(super) struct Session {
    pub id: SessionId,
    pub repository: Repository,
    started: Timestamp,
    touched: AtomicU64,
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
        let started = clock.now();
        let made = folder.clone();
        let file = blocking(move || {
            fs::create_dir(&made)?;
            File::create_new(made.join("data"))
        });
        let file = file.await.flatten().map_err(StoreError::io("make the session", &folder))?;
        let spool = Spool::new(file, 0, Hasher::new(USUAL), reservation);
        let session = Session::new(id, repository, started, started, folder, spool);
        crash::point("upload.session-created");
        let session = Arc::new(session);
        let writing = session.spool.clone().lock_owned().await;
        session.write_record(writing).await?;
        Ok(session)
    }

    fn new(
        id: SessionId,
        repository: Repository,
        started: Timestamp,
        touched: Timestamp,
        folder: PathBuf,
        spool: Spool,
    ) -> Session {
        Session {
            id,
            repository,
            started,
            touched: AtomicU64::new(touched.0),
            offset: AtomicU64::new(spool.offset()),
            folder,
            spool: Arc::new(Mutex::new(spool)),
        }
    }

    /// Takes up a session of an earlier run. `None` for a folder that holds none: a crash left it before anybody knew
    /// its id, or after the blob was committed. Blocking.
    ///
    /// `readmit` sets aside the bytes that lie in the spool file.
    pub fn restore(folder: PathBuf, readmit: impl FnOnce(u64) -> Reservation, clock: &Clock) -> Option<Session> {
        let id = SessionId::parse(folder.file_name()?.to_str()?).ok()?;
        let record: Record = serde_json::from_slice(&fs::read(folder.join("record")).ok()?).ok()?;
        let file = File::options().read(true).write(true).open(folder.join("data")).ok()?;
        let length = file.metadata().ok()?.len();
        // The room that was taken ahead is given back.
        file.set_len(length).ok()?;
        let state = hex::decode(record.hash_state).ok()?;
        let (hasher, offset) = match Hasher::resume(USUAL, &state) {
            Ok(hasher) if record.offset <= length => (hasher, record.offset),
            // The spool lost bytes that the record knows (a power failure): what is there is hashed anew.
            _ => (Hasher::new(USUAL), 0),
        };
        let hasher = hash(&file, offset, hasher).ok()?;
        let spool = Spool::new(file, length, hasher, readmit(length));
        let repository = Repository::parse(&record.repository).ok()?;
        Some(Session::new(id, repository, record.started, clock.now(), folder, spool))
    }

    /// Bytes received.
    pub fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// When it last received something, or was asked for.
    pub fn touched(&self) -> Timestamp {
        Timestamp(self.touched.load(Ordering::Relaxed))
    }

    pub fn touch(&self, now: Timestamp) {
        self.touched.store(now.0, Ordering::Relaxed);
    }

    /// The spool file.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Waits for the right to write; `None` when another request keeps it for longer than `patience`.
    pub async fn writing(&self, patience: std::time::Duration) -> Option<Writing> {
        tokio::time::timeout(patience, self.spool.clone().lock_owned()).await.ok()
    }

    /// The right to write, if nobody has it: for removing a session that nobody uses.
    pub fn idle(&self) -> Option<Writing> {
        self.spool.clone().try_lock_owned().ok()
    }

    /// Appends pieces, and from time to time writes the record anew. Bytes that were written before an error stay.
    /// Blocking.
    pub fn append(&self, spool: &mut Spool, pieces: &[Bytes]) -> Result<(), StoreError> {
        let before = spool.offset();
        let result = spool.append(pieces);
        self.offset.store(spool.offset(), Ordering::Release);
        result.map_err(StoreError::io("write the upload", &self.data()))?;
        if before / RECORD_EVERY != spool.offset() / RECORD_EVERY { self.replace_record(spool) } else { Ok(()) }
    }

    /// Replaces the record by one of the spool as it is now.
    pub async fn write_record(self: &Arc<Self>, writing: Writing) -> Result<Writing, StoreError> {
        let session = self.clone();
        let written = blocking(move || session.replace_record(&writing).map(|()| writing)).await;
        written.map_err(StoreError::io("write the session's record", &self.folder))?
    }

    /// As `write_record`. Blocking.
    fn replace_record(&self, spool: &Spool) -> Result<(), StoreError> {
        let record = Record {
            repository: self.repository.to_string(),
            started: self.started,
            offset: spool.offset(),
            hash_state: hex::encode(spool.hasher().state()),
        };
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
    pub async fn complete(&self, mut writing: Writing) -> io::Result<Writing> {
        if writing.is_complete() {
            return Ok(writing);
        }
        blocking(move || writing.complete().map(|()| writing)).await.flatten()
    }

    /// The digest of all that was received, in the algorithm that the client names.
    pub async fn digest(&self, writing: Writing, algorithm: Algorithm) -> Result<(Writing, Digest), StoreError> {
        if algorithm == USUAL {
            let digest = writing.hasher().clone().finish();
            return Ok((writing, digest));
        }
        let hashed = blocking(move || {
            let hasher = hash(writing.file(), 0, Hasher::new(algorithm))?;
            io::Result::Ok((writing, hasher.finish()))
        });
        hashed.await.flatten().map_err(StoreError::io("read the upload", &self.data()))
    }

    /// Removes the session's folder and what is in it.
    pub async fn remove(&self) -> Result<(), UploadError> {
        let folder = self.folder.clone();
        let removed = blocking(move || fs::remove_dir_all(folder)).await.flatten();
        Ok(removed.map_err(StoreError::io("remove the session", &self.folder))?)
    }
}
