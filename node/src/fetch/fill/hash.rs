//! Hashes written bytes in order, on the thread that has just written them.
//!
//! Ranges arrive in parallel, but a hash needs one order. The thread that writes the next
//! contiguous batch hashes it while the bytes are still in its core's cache. Batches that arrived
//! too early are read back later from the file, which is in the page cache then. Only one thread
//! hashes at a time: a thread that finds the hash locked leaves its bytes to the other thread, or
//! to the end of the download. So no thread waits for the hash, and the hash needs no thread or
//! queue of its own.

use super::Fill;
use super::file::Batch;
use entrepot_oci::{Algorithm, Digest, Hasher};
use parking_lot::{Mutex, MutexGuard};
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes read back from the file at once. They fit into a core's second-level cache, so they are
/// hashed from there.
const READ_BACK: usize = 256 << 10;

/// The hash of a download, and its position.
pub(super) struct Hash {
    state: Mutex<State>,
}

struct State {
    hasher: Hasher,
    /// Position of the next byte to hash.
    at: u64,
    buffer: Vec<u8>,
}

impl Hash {
    pub(super) fn new(algorithm: Algorithm) -> Hash {
        Hash { state: Mutex::new(State { hasher: Hasher::new(algorithm), at: 0, buffer: Vec::new() }) }
    }

    /// Hashes all contiguous bytes after a batch was written. Does nothing if another thread is
    /// hashing.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn after(&self, batch: &Batch, fill: &Fill) -> io::Result<()> {
        let Some(mut state) = self.state.try_lock() else { return Ok(()) };
        state.take(batch);
        state.catch_up(fill)
    }

    /// Whether unhashed bytes are left after the last write.
    pub(super) fn is_behind(&self, fill: &Fill) -> bool {
        self.state().at < fill.size
    }

    /// Hashes the rest after the last write.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn catch_up(&self, fill: &Fill) -> io::Result<()> {
        self.state().catch_up(fill)
    }

    /// The digest. `None` if bytes are missing.
    pub(super) fn finish(&self, fill: &Fill) -> Option<Digest> {
        let mut state = self.state();
        let hasher = std::mem::replace(&mut state.hasher, Hasher::new(fill.digest.algorithm()));
        (state.at == fill.size).then(|| hasher.finish())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    /// Hashes a batch if it is the next one. Any other batch is read from the file later.
    fn take(&mut self, batch: &Batch) {
        if batch.at == self.at {
            for piece in batch.pieces.iter() {
                self.hasher.update(piece);
            }
            self.at += batch.len();
        }
    }

    /// Hashes contiguous written bytes after the current position, from the file.
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
