//! After an unclean stop a file is verified before its first use: it may be empty, short, or have blocks of nothing.

use super::error::StoreError;
use super::index::Entry;
use super::inner::{Inner, Removal};
use crate::oci::{Digest, Hasher};
use crate::run::tasks::blocking;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// Large enough that hashing, not system calls, is what takes the time.
const BUFFER: usize = 256 << 10;

impl Inner {
    /// The entry of stored content that is known to be what its digest says, verified now if need be. Several at a
    /// time wait for one verification.
    pub(super) async fn trusted(self: &Arc<Self>, digest: &Digest) -> Result<Option<Arc<Entry>>, StoreError> {
        let Some(entry) = self.index.get(digest) else { return Ok(None) };
        let verified = match entry.verified.get() {
            Some(verified) => *verified,
            None => {
                let verify = || self.verify(*digest, Arc::clone(&entry));
                *entry.verified.get_or_try_init(verify).await?
            }
        };
        Ok(verified.then_some(entry))
    }

    /// Whether the file is what its digest says; if not, it is removed.
    async fn verify(self: &Arc<Self>, digest: Digest, entry: Arc<Entry>) -> Result<bool, StoreError> {
        let inner = Arc::clone(self);
        let path = self.folders.content(&digest);
        let failed = StoreError::io("verify", &path);
        blocking(move || match matches(&path, &digest) {
            Ok(true) => Ok(true),
            Ok(false) => {
                inner.metrics.mismatches.with_label_values(&["store"]).inc();
                inner.discard(&digest, &entry, Removal::Corrupt, "it does not match its digest");
                Ok(false)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                inner.discard(&digest, &entry, Removal::Corrupt, "its file is not there");
                Ok(false)
            }
            Err(error) => {
                inner.read_failed(&digest, &entry, &error);
                Err(error)
            }
        })
        .await
        .flatten()
        .map_err(failed)
    }
}

/// Hashes a file. Blocking.
fn matches(path: &Path, digest: &Digest) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new(digest.algorithm());
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish() == *digest),
            read => hasher.update(&buffer[..read]),
        }
    }
}
