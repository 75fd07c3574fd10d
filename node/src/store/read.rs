//! Finding and opening stored content.

use super::content::{Source, StoredContent};
use super::contents::Contents;
use super::error::{StoreError, is_damage};
use super::identity::Identity;
use super::index::Entry;
use super::inner::{Inner, Removal};
use super::memory::{Kept, MAX_SMALL};
use bytes::Bytes;
use entrepot_oci::Digest;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// How often content is opened again that was replaced or changed between two attempts.
const LOOKS: usize = 8;

/// Non-blocking, because opening a named pipe would otherwise wait for a writer. It makes no
/// difference for files.
const OPEN: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Opens a verified file without waiting for the disk, if its path is in the cache. If it is not,
/// or the file has changed, the blocking open finds out.
fn open_cached(path: &Path, verified: &Identity) -> Option<File> {
    let file = File::from(openat2(CWD, path, OPEN, Mode::empty(), ResolveFlags::CACHED).ok()?);
    verified.is(&file.metadata().ok()?).then_some(file)
}

/// Opens a file for reading.
///
/// # Errors
/// `NotFound` if it does not exist, `InvalidData` if it is not a regular file, or another error.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let file = match openat(CWD, path, OPEN, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOTDIR) => return Err(io::ErrorKind::NotFound.into()),
        Err(Errno::LOOP | Errno::NXIO) => return Err(io::ErrorKind::InvalidData.into()),
        Err(error) => return Err(error.into()),
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// The state of a file that was verified earlier.
enum Look {
    Same(File),
    /// Another file, or the same file with other times.
    Changed,
    /// Unreadable. The content is not stored any more.
    Gone,
}

impl Contents {
    /// Opens stored content for reading, and counts a use. A file that is not known to be verified
    /// is verified first. Content that does not match its digest or cannot be read is removed, and
    /// the result is `None`.
    ///
    /// # Errors
    /// If the disk fails. The caller may then read from the bucket instead.
    pub async fn open(&self, digest: &Digest) -> Result<Option<StoredContent>, StoreError> {
        let opened = self.inner.open_sound(digest).await?;
        Ok(opened.map(|(file, entry)| self.inner.opened(file, *digest, entry)))
    }

    /// Returns the whole of small stored content (a manifest), and keeps it in memory. Counts a
    /// use.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn read_small(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        if let Some(kept) = self.inner.memory.get(digest) {
            self.inner.touch(&kept.entry);
            return Ok(Some(kept.content));
        }
        let digest = *digest;
        for _ in 0..LOOKS {
            let Some((entry, verified)) = self.inner.trusted(&digest).await? else { return Ok(None) };
            let read = self.inner.run(move |inner| Ok((inner.read_now(&digest, &entry, &verified)?, entry))).await?;
            match read {
                (Small::Content(content), _) => return Ok(Some(content)),
                (Small::Gone, entry) if self.inner.is_current(&digest, &entry) => return Ok(None),
                (Small::Changed | Small::Gone, _) => {}
            }
        }
        Ok(None)
    }
}

impl Inner {
    /// Opens stored content whose file matches its digest. Counts no use.
    pub(super) async fn open_sound(
        self: &Arc<Self>,
        digest: &Digest,
    ) -> Result<Option<(File, Arc<Entry>)>, StoreError> {
        let digest = *digest;
        for _ in 0..LOOKS {
            let Some((entry, verified)) = self.trusted(&digest).await? else { return Ok(None) };
            if let Some(file) = open_cached(&self.folders.content(&digest), &verified) {
                return Ok(Some((file, entry)));
            }
            let opened = self.run(move |inner| Ok((inner.look(&digest, &entry, &verified)?, entry))).await?;
            match opened {
                (Look::Same(file), entry) => return Ok(Some((file, entry))),
                (Look::Gone, entry) if self.is_current(&digest, &entry) => return Ok(None),
                (Look::Changed | Look::Gone, _) => {}
            }
        }
        Ok(None)
    }

    fn opened(self: &Arc<Self>, file: File, digest: Digest, entry: Arc<Entry>) -> StoredContent {
        self.touch(&entry);
        let size = entry.size;
        StoredContent { size, source: Arc::new(Source { file, digest, entry, store: Arc::clone(self) }) }
    }

    /// Reads the whole of small content. Blocking.
    fn read_now(&self, digest: &Digest, entry: &Arc<Entry>, verified: &Identity) -> Result<Small, StoreError> {
        let mut file = match self.look(digest, entry, verified)? {
            Look::Same(file) => file,
            Look::Changed => return Ok(Small::Changed),
            Look::Gone => return Ok(Small::Gone),
        };
        self.touch(entry);
        let mut content = Vec::with_capacity(usize::try_from(entry.size).unwrap_or_default());
        if let Err(error) = file.read_to_end(&mut content) {
            return self.unreadable(digest, entry, error).map(|()| Small::Gone);
        }
        let content = Bytes::from(content);
        if entry.size <= MAX_SMALL {
            self.memory.keep(*digest, Kept { content: content.clone(), entry: Arc::clone(entry) });
        }
        Ok(Small::Content(content))
    }

    /// Opens the file of stored content, if it is still the verified one. Blocking.
    fn look(&self, digest: &Digest, entry: &Arc<Entry>, verified: &Identity) -> Result<Look, StoreError> {
        let opened = open_file(&self.folders.content(digest)).and_then(|file| Ok((file.metadata()?, file)));
        let finding = match opened {
            Ok((metadata, file)) if verified.is(&metadata) => return Ok(Look::Same(file)),
            Ok(_) => {
                self.doubt(digest, entry);
                return Ok(Look::Changed);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Removal::Missing,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Removal::Corrupt,
            Err(error) => return self.unreadable(digest, entry, error).map(|()| Look::Gone),
        };
        self.discard(digest, entry, finding, "its file is missing or not a regular file");
        Ok(Look::Gone)
    }

    /// Handles a failed read. Content that the disk cannot read is removed; then there is no error,
    /// because there is nothing to read.
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

/// The result of reading small content.
enum Small {
    Content(Bytes),
    Changed,
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_not_opened_from_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("content");
        std::fs::write(&path, "other").unwrap();
        let other = Identity::of(&std::fs::metadata(&path).unwrap());
        std::fs::write(folder.path().join("new"), "bytes").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        let verified = Identity::of(&std::fs::metadata(&path).unwrap());
        assert!(open_cached(&path, &other).is_none());
        // The file may not be cached, or caching not supported.
        if let Some(mut file) = open_cached(&path, &verified) {
            let mut content = String::new();
            file.read_to_string(&mut content).unwrap();
            assert_eq!(content, "bytes");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(open_cached(&path, &verified).is_none());
    }

    #[test]
    fn a_directory_or_pipe_is_rejected_without_blocking() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        for path in [folder.path(), &pipe] {
            assert_eq!(open_file(path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
