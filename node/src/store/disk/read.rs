//! Finding stored content and opening it.

use super::content::{Source, StoredContent};
use super::error::{StoreError, is_damage};
use super::index::Entry;
use super::inner::{Inner, Removal};
use super::memory::{Kept, MAX_SMALL};
use crate::oci::Digest;
use bytes::Bytes;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// Opens a file of that size if the system has its path in memory, and so without waiting for the disk. What it has not,
/// and what is wrong with a file, whoever opens it the other way learns.
fn open_cached(path: &Path, size: u64) -> Option<File> {
    let file = openat2(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::CACHED).ok()?;
    let file = File::from(file);
    (file.metadata().ok()?.len() == size).then_some(file)
}

impl Inner {
    /// See `Store::open_content`.
    pub(super) async fn open_content(self: &Arc<Self>, digest: &Digest) -> Result<Option<StoredContent>, StoreError> {
        let Some(entry) = self.trusted(digest).await? else { return Ok(None) };
        self.touch(&entry);
        let digest = *digest;
        if let Some(file) = open_cached(&self.folders.content(&digest), entry.size) {
            return Ok(Some(self.opened(file, digest, entry)));
        }
        self.run(move |inner| Ok(inner.open_file(&digest, &entry)?.map(|file| inner.opened(file, digest, entry)))).await
    }

    fn opened(self: &Arc<Self>, file: File, digest: Digest, entry: Arc<Entry>) -> StoredContent {
        let size = entry.size;
        StoredContent { size, source: Arc::new(Source { file, digest, entry, store: Arc::clone(self) }) }
    }

    /// See `Store::read_small`.
    pub(super) async fn read_small(self: &Arc<Self>, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        if let Some(kept) = self.memory.get(digest) {
            self.touch(&kept.entry);
            return Ok(Some(kept.content));
        }
        let Some(entry) = self.trusted(digest).await? else { return Ok(None) };
        self.touch(&entry);
        let digest = *digest;
        self.run(move |inner| {
            let Some(mut file) = inner.open_file(&digest, &entry)? else { return Ok(None) };
            let mut content = Vec::with_capacity(usize::try_from(entry.size).unwrap_or_default());
            if let Err(error) = file.read_to_end(&mut content) {
                return inner.unreadable(&digest, &entry, error).map(|()| None);
            }
            let content = Bytes::from(content);
            if entry.size <= MAX_SMALL {
                inner.memory.keep(digest, Kept { content: content.clone(), entry });
            }
            Ok(Some(content))
        })
        .await
    }

    /// The file of stored content. `None`, and not stored any more, when it is not there, has another size than it
    /// had, or the disk cannot open it. Blocking.
    fn open_file(&self, digest: &Digest, entry: &Arc<Entry>) -> Result<Option<File>, StoreError> {
        let opened = File::open(self.folders.content(digest)).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((size, file)) if size == entry.size => Ok(Some(file)),
            Ok(_) => {
                self.discard(digest, entry, Removal::Corrupt, "its file has another size than it had");
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.discard(digest, entry, Removal::Corrupt, "its file is not there");
                Ok(None)
            }
            Err(error) => self.unreadable(digest, entry, error).map(|()| None),
        }
    }

    /// Content that the disk cannot give back is not stored any more: no error then, for there is nothing to read.
    fn unreadable(&self, digest: &Digest, entry: &Arc<Entry>, error: io::Error) -> Result<(), StoreError> {
        if is_damage(&error) {
            self.discard(digest, entry, Removal::Unreadable, &error.to_string());
            if entry.is_gone() {
                return Ok(());
            }
        }
        Err(StoreError::io("read", &self.folders.content(digest))(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_as_it_was_stored_is_not_opened_without_a_look() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("content");
        assert!(open_cached(&path, 5).is_none());
        std::fs::write(&path, "bytes").unwrap();
        assert!(open_cached(&path, 4).is_none());
        // Perhaps the system cannot tell.
        if let Some(mut file) = open_cached(&path, 5) {
            let mut content = String::new();
            file.read_to_string(&mut content).unwrap();
            assert_eq!(content, "bytes");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(open_cached(&path, 5).is_none());
    }
}
