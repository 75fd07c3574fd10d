//! A file that was found after an unclean stop, or was changed by others, is verified before its next use: it may be
//! empty, short, or hold other bytes.

use super::error::StoreError;
use super::identity::Identity;
use super::index::{Entry, Verdict};
use super::inner::{Inner, Removal};
use super::read::open_file;
use crate::oci::{Digest, Hasher};
use crate::run::tasks::blocking;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// Large enough that hashing, not system calls, is what takes the time.
const BUFFER: usize = 256 << 10;

/// What the hash of a file came to.
pub(super) enum Judged {
    Sound(Identity),
    /// It is damaged, and so the content is not stored any more.
    Removed,
    /// It is damaged, and stays: it cannot be removed, or is not the file of the entry any more.
    Damaged,
}

impl Inner {
    /// Stored content that is known to be what its digest says, and the file that was verified; verified now if need
    /// be. Several at a time wait for one verification.
    pub(super) async fn trusted(
        self: &Arc<Self>,
        digest: &Digest,
    ) -> Result<Option<(Arc<Entry>, Identity)>, StoreError> {
        loop {
            let Some(entry) = self.index.get(digest) else { return Ok(None) };
            let verdict = match entry.verdict.get() {
                Some(verdict) => *verdict,
                None => {
                    let verify = || self.verify(*digest, Arc::clone(&entry));
                    *entry.verdict.get_or_try_init(verify).await?
                }
            };
            match verdict {
                Verdict::Sound(identity) => return Ok(Some((entry, identity))),
                // It could not be removed.
                Verdict::Damaged if self.is_current(digest, &entry) => return Ok(None),
                // It was removed, and perhaps stored anew meanwhile.
                Verdict::Damaged => {}
            }
        }
    }

    /// Hashes the file; if it is not what its digest says, it is removed.
    async fn verify(self: &Arc<Self>, digest: Digest, entry: Arc<Entry>) -> Result<Verdict, StoreError> {
        let inner = Arc::clone(self);
        let path = self.folders.content(&digest);
        let failed = StoreError::io("verify", &path);
        blocking(move || {
            let judged = inner.judge(&digest, &entry, hash(&path, &digest))?;
            Ok(match judged {
                Judged::Sound(identity) => Verdict::Sound(identity),
                Judged::Removed | Judged::Damaged => Verdict::Damaged,
            })
        })
        .await
        .flatten()
        .map_err(failed)
    }

    /// What the hash of an entry's file says of the entry. Damaged content is removed. Blocking.
    pub(super) fn judge(
        &self,
        digest: &Digest,
        entry: &Arc<Entry>,
        hashed: io::Result<(Identity, Digest)>,
    ) -> io::Result<Judged> {
        let (why, finding) = match hashed {
            // The entry's size is what answers and accounts say: a file of another one is no use, whatever it holds.
            Ok((identity, actual)) if actual == *digest && identity.size == entry.size => {
                return Ok(Judged::Sound(identity));
            }
            Ok(_) => (Removal::Corrupt, "it does not match its digest"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (Removal::Missing, "there is no file in its place")
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => (Removal::Corrupt, "it is no file any more"),
            Err(error) => {
                return if self.read_failed(digest, entry, &error) { Ok(Judged::Removed) } else { Err(error) };
            }
        };
        Ok(if self.discard(digest, entry, why, finding) { Judged::Removed } else { Judged::Damaged })
    }

    /// The file was changed by others: the entry's verdict is not one on it. Readers that verify it now find out.
    pub(super) fn doubt(&self, digest: &Digest, entry: &Arc<Entry>) {
        let renewed = Arc::new(entry.renewed(entry.size, None, Arc::clone(&entry.links)));
        if self.index.replace(digest, entry, renewed) {
            tracing::warn!(%digest, "a stored file was changed by others; verifying it");
            entry.mark_gone();
        }
    }
}

impl Inner {
    /// See `Store::forget_links`.
    pub(super) fn forget_links(&self, digest: &Digest) {
        if let Some(entry) = self.index.get(digest) {
            let renewed = Arc::new(entry.renewed(entry.size, entry.sound(), Arc::default()));
            if self.index.replace(digest, &entry, renewed) {
                entry.mark_gone();
            }
        }
    }
}

/// The digest of a file, and which file that is. Blocking.
fn hash(path: &Path, digest: &Digest) -> io::Result<(Identity, Digest)> {
    let file = open_file(path)?;
    // Before its bytes are read: should it be written to meanwhile, its times are others afterwards.
    let identity = Identity::of(&file.metadata()?);
    Ok((identity, read(file, Hasher::new(digest.algorithm()))?))
}

fn read(mut file: File, mut hasher: Hasher) -> io::Result<Digest> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        }
    }
}
