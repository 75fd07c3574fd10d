//! The spool file of a session: what is received is written and hashed, and where it will have to be durable soon, put
//! on disk meanwhile. All of it blocks.

use crate::oci::{Algorithm, Digest, Hasher};
use crate::run::crash;
use crate::run::tasks::begin_blocking;
use crate::store::disk::Reservation;
use bytes::Bytes;
use rustix::fs::FallocateFlags;
use std::fs::{File, Metadata};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

/// While receiving, the digest is not known, nor its algorithm; nearly all are this.
pub(super) const USUAL: Algorithm = Algorithm::Sha256;
/// What is read at once when content is hashed again.
const READ_BYTES: usize = 1 << 20;
/// Written bytes that are put on disk together. The last of them is what a commit waits for: 8 MiB took 5 ms, 32 MiB
/// 16 ms; the file system's journal is written with each, and fewer bytes gained nothing more.
const SYNCED_BYTES: u64 = 8 << 20;
/// Room on disk that is taken at once, ahead of the writing: into room that it has, ext4 took a third less time to write.
const ALLOCATED_BYTES: u64 = 8 << 20;
/// What is appended at once by an upload that is large; a small one takes no room ahead.
const LARGE_APPEND: u64 = 512 << 10;

/// The spool file and what is known of it. Whoever holds it is the only writer.
pub(super) struct Spool {
    file: Arc<File>,
    /// Bytes in the file.
    offset: u64,
    /// The part of them that was acknowledged. What follows came with requests that broke off.
    answered: u64,
    /// `None`: the file is of an earlier run and was not read yet.
    hashes: Option<Hashes>,
    /// Set aside for the bytes in the file.
    pub reservation: Reservation,
    /// Bytes from the start that are on disk, or soon will be by `syncing`.
    synced: u64,
    syncing: Option<Receiver<io::Result<()>>>,
    /// Where the room on disk ends that is taken already.
    allocated: u64,
    /// When the file was last written to, in seconds and nanoseconds, as its file system says after our own writing.
    written: Option<(i64, i64)>,
}

/// The hash of the bytes up to two places.
struct Hashes {
    answered: Hasher,
    end: Hasher,
}

impl Spool {
    /// An empty file.
    pub fn new(file: File, reservation: Reservation) -> Spool {
        let hashes = Hashes { answered: Hasher::new(USUAL), end: Hasher::new(USUAL) };
        Spool { hashes: Some(hashes), ..Spool::found(file, 0, 0, reservation) }
    }

    /// A file of an earlier run, with `offset` bytes of which the first `answered` were acknowledged. What it holds is
    /// hashed when the hash is needed, and nothing else is believed of it: the disk may have lost or changed bytes.
    pub fn found(file: File, answered: u64, offset: u64, reservation: Reservation) -> Spool {
        let answered = answered.min(offset);
        let file = Arc::new(file);
        Spool {
            file,
            offset,
            answered,
            hashes: None,
            reservation,
            synced: 0,
            syncing: None,
            allocated: 0,
            written: None,
        }
    }

    /// Bytes received.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes acknowledged.
    pub fn answered(&self) -> u64 {
        self.answered
    }

    /// All that was received is acknowledged.
    pub fn acknowledge(&mut self) {
        self.answered = self.offset;
        if let Some(hashes) = &mut self.hashes {
            hashes.answered = hashes.end.clone();
        }
    }

    /// Whether the file does not have to be read for the hash of it.
    pub fn is_hashed(&self) -> bool {
        self.hashes.is_some() && !self.was_changed()
    }

    /// Whether others have written to the file since this session did.
    fn was_changed(&self) -> bool {
        let now = self.file.metadata().ok();
        let same = |now: &Metadata| now.len() == self.offset && self.written.is_none_or(|at| at == modified(now));
        !now.is_some_and(|now| same(&now))
    }

    /// Remembers when the session itself wrote.
    fn wrote(&mut self) {
        self.written = self.file.metadata().ok().map(|now| modified(&now));
    }

    /// Reads the file if its hash is not known yet.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn hash(&mut self) -> io::Result<()> {
        self.hashes().map(|_| ())
    }

    /// The digest of all bytes received. Another algorithm than the usual reads the file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn digest(&mut self, algorithm: Algorithm) -> io::Result<Digest> {
        if self.was_changed() {
            tracing::warn!("the file of an upload was changed by others; it is hashed again");
            self.hashes = None;
        }
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

    /// Gives up the bytes from an offset on, none of which was acknowledged. Room that was set aside for them stays so.
    ///
    /// # Errors
    /// When the disk fails; the bytes are then still there.
    pub fn give_up_from(&mut self, offset: u64) -> io::Result<()> {
        let answered = self.answered;
        let before = self.hashes()?.answered.clone();
        let end = hash(&self.file, answered..offset, before)?;
        self.file.set_len(offset)?;
        self.offset = offset;
        self.wrote();
        self.synced = self.synced.min(offset);
        // The room that was taken ahead went with the bytes.
        self.allocated = 0;
        self.hashes()?.end = end;
        crash::point("upload.bytes-given-up");
        Ok(())
    }

    /// Writes and hashes the pieces, one after the other on one thread: a thread for each was measured, and waking it
    /// for every MiB cost more than it gained.
    ///
    /// # Errors
    /// When the disk fails; whatever did reach the file is part of the upload all the same.
    pub fn append(&mut self, pieces: &[Bytes]) -> io::Result<()> {
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
        self.reservation.wrote(count);
        self.offset += count;
        self.wrote();
        result
    }

    /// Takes room for what is about to be written and some more. The file's length stays what is written.
    fn allocate(&mut self, bytes: u64) {
        if bytes < LARGE_APPEND || self.offset + bytes <= self.allocated {
            return;
        }
        let room = bytes.max(ALLOCATED_BYTES);
        self.allocated = match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.offset, room) {
            Ok(()) => self.offset + room,
            // The file system cannot, or is nearly full: what really does not fit is found when it is written.
            Err(_) => u64::MAX,
        };
    }

    /// Writes at the offset; on an error also says how far it came.
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

    /// Goes on putting on disk what was written, in the background: the sync at the end then has little left to do.
    ///
    /// # Errors
    /// When what was begun before failed. The system reports that once and then takes the bytes for written: the
    /// session must end.
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
        // Who does not ask for the result any more does not rely on it either.
        begin_blocking(move || done.send(file.sync_data()));
        self.syncing = Some(syncing);
        self.synced = self.offset;
        Ok(())
    }

    /// Whether [`Spool::complete`] has nothing to do, as for every small upload.
    pub fn is_complete(&self) -> bool {
        self.syncing.is_none() && self.allocated <= self.offset
    }

    /// Ends the writing: waits for what [`Spool::sync_behind`] began, and gives back the room that was taken ahead.
    ///
    /// # Errors
    /// As there.
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
    io::Error::other("a sync was cut off")
}

/// Goes on hashing these bytes of the file.
///
/// # Errors
/// When they cannot be read, or the file ends before.
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
