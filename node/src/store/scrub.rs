//! Reads stored content only to check that it still matches its digest. This counts no use, and
//! leaves the page cache as it was.

use super::error::StoreError;
use super::identity::Identity;
use super::index::{Entry, Verdict};
use super::inner::Inner;
use super::read::open_file;
use super::round::Round;
use super::verify::Judged;
use entrepot_oci::{Digest, Hasher};
use parking_lot::MutexGuard;
use rustix::fs::Advice;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;

/// The result of scrubbing some content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scrubbed {
    /// It is sound, or was replaced or removed meanwhile.
    Kept,
    /// It was damaged, or its file was missing, and it is not stored any more.
    Removed,
}

/// Content being scrubbed.
pub struct Scrubbing {
    inner: Arc<Inner>,
    digest: Digest,
    entry: Arc<Entry>,
    /// The open file, or why it cannot be read.
    reading: io::Result<Reading>,
}

/// The progress of reading the file.
struct Reading {
    file: File,
    identity: Identity,
    hasher: Hasher,
    at: u64,
}

/// The result of one step of a scrub.
pub enum Step {
    /// This many bytes were read, and there are more.
    More(Box<Scrubbing>, u64),
    /// The content was read to its end.
    Done(Scrubbed),
}

/// The verification of all stored content over time. Clones share the state.
#[derive(Clone)]
pub struct Scrub {
    pub(super) inner: Arc<Inner>,
}

impl Inner {
    pub(super) fn round(&self) -> MutexGuard<'_, Round> {
        self.round.lock()
    }
}

impl Scrub {
    /// The next digests to scrub, at most `most`, in ascending order after the last one scrubbed.
    pub fn next(&self, most: usize) -> Vec<Digest> {
        let after = self.inner.round().after;
        self.inner.index.following(after.as_ref(), most)
    }

    /// Records that this content was scrubbed. A clean shutdown keeps this.
    pub fn done(&self, digest: &Digest) {
        self.inner.round().after = Some(*digest);
    }

    /// Ends a round; the next one starts at the first digest. Returns whether the round covered all
    /// content.
    pub fn end_round(&self) -> bool {
        std::mem::replace(&mut *self.inner.round(), Round::resumed(None)).whole
    }

    /// Starts to read stored content only to check it, which counts no use. `None` if it is not
    /// stored. Blocking.
    pub fn begin(&self, digest: &Digest) -> Option<Box<Scrubbing>> {
        let entry = self.inner.index.get(digest)?;
        let reading = open_file(&self.inner.folders.content(digest)).and_then(|file| {
            let identity = Identity::of(&file.metadata()?);
            Ok(Reading { file, identity, hasher: Hasher::new(digest.algorithm()), at: 0 })
        });
        Some(Box::new(Scrubbing { inner: Arc::clone(&self.inner), digest: *digest, entry, reading }))
    }
}

impl Scrubbing {
    /// Size of the content in bytes.
    pub fn size(&self) -> u64 {
        self.entry.size
    }

    /// Reads and hashes the next piece. Blocking.
    ///
    /// # Errors
    /// If the disk fails for another reason than a damaged file.
    pub fn step(self: Box<Self>) -> Result<Step, StoreError> {
        let Scrubbing { inner, digest, entry, reading } = *self;
        let Reading { file, identity, mut hasher, at } = match reading {
            Ok(reading) => reading,
            Err(error) => return inner.end_scrub(&digest, &entry, Err(error)),
        };
        if at >= identity.size {
            return inner.end_scrub(&digest, &entry, Ok((identity, hasher.finish())));
        }
        let range = at..identity.size;
        let piece = match super::pieces::read_cached(&file, &range) {
            Some(piece) => Ok(piece),
            None => super::pieces::read(&file, &range).inspect(|piece| {
                // No request needed this piece, so it must not displace others from the page cache.
                // Best effort.
                let length = NonZeroU64::new(u64::try_from(piece.len()).unwrap_or_default());
                let _ = rustix::fs::fadvise(&file, at, length, Advice::DontNeed);
            }),
        };
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => return inner.end_scrub(&digest, &entry, Err(error)),
        };
        hasher.update(&piece);
        let read = u64::try_from(piece.len()).unwrap_or_default();
        let reading = Ok(Reading { file, identity, hasher, at: at.saturating_add(read) });
        Ok(Step::More(Box::new(Scrubbing { inner, digest, entry, reading }), read))
    }
}

impl Inner {
    fn end_scrub(
        &self,
        digest: &Digest,
        entry: &Arc<Entry>,
        hashed: io::Result<(Identity, Digest)>,
    ) -> Result<Step, StoreError> {
        let judged = self.judge(digest, entry, hashed);
        match judged.map_err(StoreError::io("scrub", &self.folders.content(digest)))? {
            Judged::Sound(identity) => self.trust(digest, entry, identity),
            Judged::Removed => return Ok(Step::Done(Scrubbed::Removed)),
            // Damaged content that cannot be removed is not served: it is verified again before its
            // next use.
            Judged::Damaged => self.doubt(digest, entry),
        }
        Ok(Step::Done(Scrubbed::Kept))
    }

    /// Records that the file was verified, so it need not be verified before its next use, even if
    /// another program touched it.
    fn trust(&self, digest: &Digest, entry: &Arc<Entry>, identity: Identity) {
        let known = entry.verdict.initialized() || entry.verdict.set(Verdict::Sound(identity)).is_err();
        if known && entry.sound() != Some(identity) {
            let renewed = Arc::new(entry.renewed(entry.size, Some(identity), Arc::clone(&entry.links)));
            if self.index.replace(digest, entry, renewed) {
                entry.mark_gone();
            }
        }
    }
}
