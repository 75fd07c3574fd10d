//! Finding stored content and opening it.

use super::content::{Source, StoredContent};
use super::error::{StoreError, is_damage};
use super::identity::Identity;
use super::index::Entry;
use super::inner::{Inner, Removal};
use super::memory::{Kept, MAX_SMALL};
use crate::oci::Digest;
use bytes::Bytes;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

/// How often content is looked at again that was replaced or changed between two looks.
const LOOKS: usize = 8;

/// Not blocking: a pipe in the place of a file would wait for a writer for ever. To a file it makes no difference.
const OPEN: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Opens the file that was verified if the system has its path in memory, and so without waiting for the disk. What it
/// has not, and what is wrong with a file, whoever opens it the other way learns.
fn open_cached(path: &Path, verified: &Identity) -> Option<File> {
    let file = File::from(openat2(CWD, path, OPEN, Mode::empty(), ResolveFlags::CACHED).ok()?);
    verified.is(&file.metadata().ok()?).then_some(file)
}

/// Opens a file for reading.
///
/// # Errors
/// When it cannot be opened: `NotFound` when there is none, `InvalidData` when it is a folder or anything else that is
/// no file.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let file = match openat(CWD, path, OPEN, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOTDIR) => return Err(io::ErrorKind::NotFound.into()),
        Err(Errno::LOOP | Errno::NXIO) => return Err(io::ErrorKind::InvalidData.into()),
        Err(error) => return Err(error.into()),
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// What was found in the place of a file that was verified.
enum Look {
    Same(File),
    /// Another file, or the same with other times.
    Changed,
    /// Nothing that can be read; the content is not stored any more.
    Gone,
}

impl Inner {
    /// See `Store::open_content`.
    pub(super) async fn open_content(self: &Arc<Self>, digest: &Digest) -> Result<Option<StoredContent>, StoreError> {
        let opened = self.open_sound(digest).await?;
        Ok(opened.map(|(file, entry)| self.opened(file, *digest, entry)))
    }

    /// Opens stored content whose file is what its digest says. Counts no use.
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

    /// See `Store::read_small`.
    pub(super) async fn read_small(self: &Arc<Self>, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        if let Some(kept) = self.memory.get(digest) {
            self.touch(&kept.entry);
            return Ok(Some(kept.content));
        }
        let digest = *digest;
        for _ in 0..LOOKS {
            let Some((entry, verified)) = self.trusted(&digest).await? else { return Ok(None) };
            let read = self.run(move |inner| Ok((inner.read_now(&digest, &entry, &verified)?, entry))).await?;
            match read {
                (Small::Content(content), _) => return Ok(Some(content)),
                (Small::Gone, entry) if self.is_current(&digest, &entry) => return Ok(None),
                (Small::Changed | Small::Gone, _) => {}
            }
        }
        Ok(None)
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

    /// The file of stored content, if it is still the one that was verified. Blocking.
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
        self.discard(digest, entry, finding, "there is no file in its place");
        Ok(Look::Gone)
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

/// What reading small content came to.
enum Small {
    Content(Bytes),
    Changed,
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_as_it_was_stored_is_not_opened_without_a_look() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("content");
        std::fs::write(&path, "other").unwrap();
        let other = Identity::of(&std::fs::metadata(&path).unwrap());
        std::fs::write(folder.path().join("new"), "bytes").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        let verified = Identity::of(&std::fs::metadata(&path).unwrap());
        assert!(open_cached(&path, &other).is_none());
        // Perhaps the system cannot tell.
        if let Some(mut file) = open_cached(&path, &verified) {
            let mut content = String::new();
            file.read_to_string(&mut content).unwrap();
            assert_eq!(content, "bytes");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(open_cached(&path, &verified).is_none());
    }

    #[test]
    fn what_is_no_file_is_told_apart_and_keeps_nobody_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        for path in [folder.path(), &pipe] {
            assert_eq!(open_file(path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
