//! Hashing what arrives, in order, on a thread of its own.
//!
//! Ranges arrive beside each other and a hash wants one order. Batches of the range where the hash is come by a short
//! queue and are hashed from memory; what arrived before its turn, or while the queue was full, is read back from the
//! file, which is in the page cache then. So the hash never slows the receiving and needs no memory for it.

use super::Fill;
use super::file::Batch;
use crate::oci::{Digest, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};

/// Messages that wait for the hash; with batches of half a MiB, 2 MiB at most, and mostly shared with the writing.
pub(super) const QUEUE: usize = 4;

/// Read back from the file at once; fits into a core's second-level cache, so that it is hashed from there.
const READ_BACK: usize = 256 << 10;

pub(super) enum Message {
    /// Bytes of the head range, perhaps not written yet.
    Batch(Batch),
    /// More of the head range is written.
    Written,
}

/// Hashes the content from its first byte until the last or until the senders are gone, whichever is first. `None`
/// when bytes are missing then.
pub(super) fn in_order(fill: &Fill, inbox: &Receiver<Message>) -> io::Result<Option<Digest>> {
    let mut hashing = Hashing { fill, hasher: Hasher::new(fill.digest.algorithm()), at: 0, buffer: Vec::new() };
    while hashing.at < fill.size {
        let message = match inbox.try_recv() {
            Ok(message) => message,
            Err(empty_or_gone) => {
                hashing.catch_up()?;
                if hashing.at == fill.size || empty_or_gone == TryRecvError::Disconnected {
                    break;
                }
                // A sender that found the queue full had published before: it is seen by the catching up that follows
                // the last message. One that comes now is received.
                match inbox.recv() {
                    Ok(message) => message,
                    Err(_) => continue,
                }
            }
        };
        if let Message::Batch(batch) = message {
            hashing.take(&batch);
        }
    }
    Ok((hashing.at == fill.size).then(|| hashing.hasher.finish()))
}

struct Hashing<'a> {
    fill: &'a Fill,
    hasher: Hasher,
    at: u64,
    buffer: Vec<u8>,
}

impl Hashing<'_> {
    /// Hashes a batch that is the next one; of any other the file will tell.
    fn take(&mut self, batch: &Batch) {
        if batch.at == self.at {
            for piece in batch.pieces.iter() {
                self.hasher.update(piece);
            }
            self.advance(batch.len());
        }
    }

    /// Hashes what is written beyond the hash, from the file.
    fn catch_up(&mut self) -> io::Result<()> {
        loop {
            let readable = self.fill.readable(self.at).saturating_sub(self.at);
            if readable == 0 {
                return Ok(());
            }
            self.buffer.resize(READ_BACK, 0);
            let wanted = READ_BACK.min(usize::try_from(readable).unwrap_or(READ_BACK));
            let read = self.fill.file.file().read_at(&mut self.buffer[..wanted], self.at)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.hasher.update(&self.buffer[..read]);
            self.advance(read as u64);
        }
    }

    fn advance(&mut self, by: u64) {
        self.at += by;
        // Before the next look at what is written: a sender then either sees its range as the head and sends word, or
        // had published before, and is seen.
        if let Some(head) = self.fill.range_of(self.at) {
            self.fill.head.store(head, Ordering::SeqCst);
        }
    }
}
