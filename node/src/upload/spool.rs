//! The spool file of a session. Received bytes are written and hashed. If they must be durable
//! soon, they are also synced in the background. Everything here blocks.

use super::space::Space;
use bytes::Bytes;
use entrepot_oci::{Algorithm, Digest, Hasher};
use entrepot_runtime::crash;
use entrepot_runtime::tasks::begin_blocking;
use rand::Rng;
use rustix::fs::{FallocateFlags, Timespec, Timestamps};
use std::fs::{File, Metadata};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

/// While receiving, neither the digest nor its algorithm is known. Nearly all uploads use this one.
pub(super) const USUAL: Algorithm = Algorithm::Sha256;
/// Bytes read at a time when content is hashed again.
const READ_BYTES: usize = 1 << 20;
/// Written bytes that are synced together. A commit waits for the last of these syncs: 8 MiB took 5
/// ms, 32 MiB took 16 ms. Smaller values gained nothing more, because each sync also writes the
/// journal of the file system.
const SYNCED_BYTES: u64 = 8 << 20;
/// Disk space that is allocated at a time, ahead of the writes. On ext4, writes into allocated
/// space took a third less time.
const ALLOCATED_BYTES: u64 = 8 << 20;
/// An append of at least this many bytes comes from a large upload. Smaller appends allocate
/// nothing ahead.
const LARGE_APPEND: u64 = 512 << 10;

/// The spool file and its state. The holder of this value is the only writer.
pub(super) struct Spool {
    file: Arc<File>,
    /// Bytes in the file.
    offset: u64,
    /// Number of acknowledged bytes, from the start. The rest came with interrupted requests.
    answered: u64,
    /// `None`: the file is from an earlier run and was not read yet.
    hashes: Option<Hashes>,
    /// The space of the bytes in the file.
    pub space: Space,
    /// Bytes from the start that are on disk, or that `syncing` is writing there.
    synced: u64,
    syncing: Option<Receiver<io::Result<()>>>,
    /// End of the allocated disk space.
    allocated: u64,
    /// The modification time after the session's own last write, in seconds and nanoseconds.
    written: Option<(i64, i64)>,
}

/// The hashes of the acknowledged bytes and of all bytes.
struct Hashes {
    answered: Hasher,
    end: Hasher,
}

impl Spool {
    /// An empty file.
    pub fn new(file: File, space: Space) -> Spool {
        let hashes = Hashes { answered: Hasher::new(USUAL), end: Hasher::new(USUAL) };
        Spool { hashes: Some(hashes), ..Spool::found(file, 0, 0, space) }
    }

    /// A file of an earlier run, with `offset` bytes of which the first `answered` were
    /// acknowledged. Its content is hashed again when the hash is needed, because the disk may have
    /// lost or changed bytes.
    pub fn found(file: File, answered: u64, offset: u64, space: Space) -> Spool {
        let answered = answered.min(offset);
        let file = Arc::new(file);
        Spool { file, offset, answered, hashes: None, space, synced: 0, syncing: None, allocated: 0, written: None }
    }

    /// Bytes received.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes acknowledged.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// Marks all received bytes as acknowledged.
    pub fn acknowledge(&mut self) {
        self.answered = self.offset;
        if let Some(hashes) = &mut self.hashes {
            hashes.answered = hashes.end.clone();
        }
    }

    /// Whether the hash is known and the file is unchanged, so the file need not be read.
    pub fn is_hashed(&self) -> bool {
        self.hashes.is_some() && !self.was_changed()
    }

    /// Whether something else has written to the file since this session did.
    fn was_changed(&self) -> bool {
        let now = self.file.metadata().ok();
        let same = |now: &Metadata| now.len() == self.offset && self.written.is_none_or(|at| at == modified(now));
        !now.is_some_and(|now| same(&now))
    }

    /// Called before each own write, because that write replaces the time by which an earlier change
    /// would be noticed.
    fn forget_hashes_if_changed(&mut self) {
        if self.hashes.is_some() && self.was_changed() {
            tracing::warn!("another program changed the file of an upload session; hashing it again");
            self.hashes = None;
        }
    }

    /// Records the time of the session's own write. A file system stamps files with a clock that ticks
    /// some hundred times per second, so another write within the same tick would leave the same time.
    /// The file therefore gets a time that no tick has: its nanoseconds are random.
    fn wrote(&mut self) {
        if let Ok(now) = self.file.metadata() {
            let time = Timespec { tv_sec: now.mtime(), tv_nsec: rand::rng().random_range(0..1_000_000_000) };
            // Best effort: a file system without such times only detects changes in later ticks.
            let _ = rustix::fs::futimens(&self.file, &Timestamps { last_access: time, last_modification: time });
        }
        self.written = self.file.metadata().ok().map(|now| modified(&now));
    }

    /// Reads the file if its hash is not known yet.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn hash(&mut self) -> io::Result<()> {
        self.hashes().map(|_| ())
    }

    /// The digest of all bytes received. For an algorithm other than [`USUAL`], it reads the file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn digest(&mut self, algorithm: Algorithm) -> io::Result<Digest> {
        self.forget_hashes_if_changed();
        if algorithm == USUAL {
            return Ok(self.hashes()?.end.clone().finish());
        }
        Ok(hash(&self.file, 0..self.offset, Hasher::new(algorithm))?.finish())
    }

    fn hashes(&mut self) -> io::Result<&mut Hashes> {
        let hashes = match self.hashes.take() {
            Some(hashes) => hashes,
            None => {
                let answered = hash(&self.file, 0..self.answered, Hasher::new(USUAL))?;
                let end = hash(&self.file, self.answered..self.offset, answered.clone())?;
                Hashes { answered, end }
            }
        };
        Ok(self.hashes.insert(hashes))
    }

    /// Discards the bytes from an offset on, none of which was acknowledged. Their space is
    /// kept.
    ///
    /// # Errors
    /// If the disk fails. The bytes then still exist.
    pub fn give_up_from(&mut self, offset: u64) -> io::Result<()> {
        self.forget_hashes_if_changed();
        let answered = self.answered;
        let before = self.hashes()?.answered.clone();
        let end = hash(&self.file, answered..offset, before)?;
        self.file.set_len(offset)?;
        self.offset = offset;
        self.wrote();
        self.synced = self.synced.min(offset);
        // Truncating the file also released the space that was allocated ahead.
        self.allocated = 0;
        self.hashes()?.end = end;
        crash::point("upload.bytes-given-up");
        Ok(())
    }

    /// Writes and hashes the pieces, one after the other on one thread. Hashing on a second thread
    /// was measured: waking it for every MiB cost more than it gained.
    ///
    /// # Errors
    /// If the disk fails. The bytes that reached the file are still part of the upload.
    pub fn append(&mut self, pieces: &[Bytes]) -> io::Result<()> {
        self.forget_hashes_if_changed();
        self.hash()?;
        self.allocate(pieces.iter().map(|piece| piece.len() as u64).sum());
        let (count, result) = match self.write_pieces(pieces) {
            Ok(count) => (count, Ok(())),
            Err((count, error)) => (count, Err(error)),
        };
        let hasher = &mut self.hashes()?.end;
        let mut left = count;
        for piece in pieces {
            let here = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
            hasher.update(&piece[..here]);
            left -= here as u64;
        }
        self.space.room.wrote(count);
        self.offset += count;
        self.wrote();
        result
    }

    /// Allocates disk space for the next bytes and some more. The length of the file stays the
    /// number of bytes written.
    fn allocate(&mut self, bytes: u64) {
        if bytes < LARGE_APPEND || self.offset + bytes <= self.allocated {
            return;
        }
        let room = bytes.max(ALLOCATED_BYTES);
        self.allocated = match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.offset, room) {
            Ok(()) => self.offset + room,
            // The file system does not support it, or is nearly full. If the bytes do not fit, the
            // write fails.
            Err(_) => u64::MAX,
        };
    }

    /// Writes at the offset. An error also contains the number of bytes written.
    fn write_pieces(&self, pieces: &[Bytes]) -> Result<u64, (u64, io::Error)> {
        let mut file = &*self.file;
        file.seek(SeekFrom::Start(self.offset)).map_err(|error| (0, error))?;
        let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut slices = slices.as_mut_slice();
        IoSlice::advance_slices(&mut slices, 0);
        let mut written = 0;
        while !slices.is_empty() {
            match file.write_vectored(slices) {
                Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    written += count as u64;
                    IoSlice::advance_slices(&mut slices, count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((written, error)),
            }
        }
        Ok(written)
    }

    /// Syncs written bytes in the background, so that the sync at the end has little left to do.
    ///
    /// # Errors
    /// If the previous sync failed. The system reports that once and then treats the bytes as
    /// written, so the session must end.
    pub fn sync_behind(&mut self) -> io::Result<()> {
        if self.offset - self.synced < SYNCED_BYTES {
            return Ok(());
        }
        if let Some(syncing) = &self.syncing {
            match syncing.try_recv() {
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(cut_off()),
                Ok(result) => result?,
            }
        }
        let (done, syncing) = sync_channel(1);
        let file = self.file.clone();
        // If the receiver is gone, nothing relies on the result.
        begin_blocking(move || done.send(file.sync_data()));
        self.syncing = Some(syncing);
        self.synced = self.offset;
        Ok(())
    }

    /// Whether [`Spool::complete`] has nothing to do, as for every small upload.
    pub fn is_complete(&self) -> bool {
        self.syncing.is_none() && self.allocated <= self.offset
    }

    /// Completes the writing: waits for the sync that [`Spool::sync_behind`] started, and releases
    /// the disk space allocated ahead.
    ///
    /// # Errors
    /// As [`Spool::sync_behind`].
    pub fn complete(&mut self) -> io::Result<()> {
        if let Some(syncing) = self.syncing.take() {
            syncing.recv().map_err(|_| cut_off())??;
        }
        if std::mem::take(&mut self.allocated) > self.offset {
            self.file.set_len(self.offset)?;
            self.wrote();
        }
        Ok(())
    }
}

fn modified(file: &Metadata) -> (i64, i64) {
    (file.mtime(), file.mtime_nsec())
}

fn cut_off() -> io::Error {
    io::Error::other("the sync was interrupted")
}

/// Continues a hash with these bytes of the file.
///
/// # Errors
/// If they cannot be read, or the file is shorter.
fn hash(file: &File, bytes: Range<u64>, mut hasher: Hasher) -> io::Result<Hasher> {
    let mut at = bytes.start;
    if at == bytes.end {
        return Ok(hasher);
    }
    let mut buffer = vec![0; READ_BYTES];
    while at < bytes.end {
        let most = usize::try_from(bytes.end - at).map_or(READ_BYTES, |left| left.min(READ_BYTES));
        match file.read_at(&mut buffer[..most], at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                hasher.update(&buffer[..read]);
                at += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hasher)
}
