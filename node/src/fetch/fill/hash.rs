//! Hashing what was written, in order, by whoever has just written it.
//!
//! Ranges arrive beside each other and a hash wants one order. Who has written the batch that is next hashes it while its
//! core still has the bytes at hand; what arrived before its turn is read back from the file, which is in the page cache
//! then. One hashes at a time: who finds another at it leaves the bytes to that one, or to the end. So nobody waits for
//! the hash, and it needs neither a thread nor memory of its own.

use super::Fill;
use super::file::Batch;
use crate::oci::{Algorithm, Digest, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Read back from the file at once; fits into a core's second-level cache, so that it is hashed from there.
const READ_BACK: usize = 256 << 10;

/// The hash of a fill, and how far it is.
pub(super) struct Hash {
    state: Mutex<State>,
}

struct State {
    hasher: Hasher,
    /// The next byte to hash.
    at: u64,
    buffer: Vec<u8>,
}

impl Hash {
    pub(super) fn new(algorithm: Algorithm) -> Hash {
        Hash { state: Mutex::new(State { hasher: Hasher::new(algorithm), at: 0, buffer: Vec::new() }) }
    }

    /// Hashes what can be, after a batch was written; nothing when another is at it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn after(&self, batch: &Batch, fill: &Fill) -> io::Result<()> {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        state.take(batch);
        state.catch_up(fill)
    }

    /// Whether bytes are left when no more is written.
    pub(super) fn is_behind(&self, fill: &Fill) -> bool {
        self.state().at < fill.size
    }

    /// Hashes what is left when no more is written.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn catch_up(&self, fill: &Fill) -> io::Result<()> {
        self.state().catch_up(fill)
    }

    /// The digest. `None` when bytes are missing.
    pub(super) fn finish(&self, fill: &Fill) -> Option<Digest> {
        let mut state = self.state();
        let hasher = std::mem::replace(&mut state.hasher, Hasher::new(fill.digest.algorithm()));
        (state.at == fill.size).then(|| hasher.finish())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Hashes a batch that is the next one; of any other the file will tell.
    fn take(&mut self, batch: &Batch) {
        if batch.at == self.at {
            for piece in batch.pieces.iter() {
                self.hasher.update(piece);
            }
            self.at += batch.len();
        }
    }

    /// Hashes what is written beyond the hash, from the file.
    fn catch_up(&mut self, fill: &Fill) -> io::Result<()> {
        loop {
            let readable = fill.in_file(self.at).saturating_sub(self.at);
            if readable == 0 {
                return Ok(());
            }
            self.buffer.resize(READ_BACK, 0);
            let wanted = READ_BACK.min(usize::try_from(readable).unwrap_or(READ_BACK));
            let read = fill.file.opened()?.read_at(&mut self.buffer[..wanted], self.at)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.hasher.update(&self.buffer[..read]);
            self.at += read as u64;
        }
    }
}
