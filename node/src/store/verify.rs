//! Verification before use: a file that was found after an unclean stop, or that another program
//! changed, may be empty, short, or have other bytes.

use super::error::StoreError;
use super::identity::Identity;
use super::index::{Entry, Verdict};
use super::inner::{Inner, Removal};
use super::read::open_file;
use entrepot_oci::{Digest, Hasher};
use entrepot_runtime::tasks::blocking;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// Buffer size in bytes. Large enough that hashing takes longer than the system calls.
const BUFFER: usize = 256 << 10;

/// The result of hashing a file.
pub(super) enum Judged {
    Sound(Identity),
    /// The file is damaged, so the content is not stored any more.
    Removed,
    /// The file is damaged and remains: it cannot be removed, or does not belong to the entry any
    /// more.
    Damaged,
}

impl Inner {
    /// Stored content whose file matches its digest, and the identity of that file. The file is
    /// verified now if necessary; concurrent callers wait for one verification.
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
                // It was removed, and perhaps stored again meanwhile.
                Verdict::Damaged => {}
            }
        }
    }

    /// Hashes the file, and removes it if it does not match its digest.
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

    /// Compares the hash of an entry's file with the entry. Damaged content is removed. Blocking.
    pub(super) fn judge(
        &self,
        digest: &Digest,
        entry: &Arc<Entry>,
        hashed: io::Result<(Identity, Digest)>,
    ) -> io::Result<Judged> {
        let (why, finding) = match hashed {
            // Responses and accounting use the entry's size, so a file of another size is useless
            // even if its digest matches.
            Ok((identity, actual)) if actual == *digest && identity.size == entry.size => {
                return Ok(Judged::Sound(identity));
            }
            Ok(_) => (Removal::Corrupt, "it does not match its digest"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Removal::Missing, "its file is missing"),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                (Removal::Corrupt, "it is not a regular file any more")
            }
            Err(error) => {
                return if self.read_failed(digest, entry, &error) { Ok(Judged::Removed) } else { Err(error) };
            }
        };
        Ok(if self.discard(digest, entry, why, finding) { Judged::Removed } else { Judged::Damaged })
    }

    /// Called when another program changed the file: the entry's verdict does not apply any more.
    /// Readers that are verifying it find out.
    pub(super) fn doubt(&self, digest: &Digest, entry: &Arc<Entry>) {
        let renewed = Arc::new(entry.renewed(entry.size, None, Arc::clone(&entry.links)));
        if self.index.replace(digest, entry, renewed) {
            tracing::warn!(%digest, "a stored file has changed; verifying it before its next use");
            entry.mark_gone();
        }
    }
}

/// The digest and the identity of a file. Blocking.
fn hash(path: &Path, digest: &Digest) -> io::Result<(Identity, Digest)> {
    let file = open_file(path)?;
    // Read before the bytes: if the file is written meanwhile, its times differ afterwards.
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
