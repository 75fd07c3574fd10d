//! The objects as files: how they get their names, and how they lose them. All of it blocks.

use super::{Delete, ETag, Failure, Put, PutBody, PutMode, Tree, copy, etag_of, is_missing, locks, temporary};
use crate::Checksum;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

impl Tree {
    pub(super) fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    pub(super) fn metadata(&self, key: &str) -> io::Result<Option<Metadata>> {
        match std::fs::metadata(self.path(key)) {
            Ok(metadata) => Ok(Some(metadata).filter(Metadata::is_file)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn version(&self, key: &str) -> io::Result<Option<ETag>> {
        Ok(self.metadata(key)?.as_ref().map(etag_of))
    }

    pub(super) fn open(&self, key: &str) -> io::Result<Option<(File, Metadata)>> {
        let file = match File::open(self.path(key)) {
            Ok(file) => file,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        Ok(metadata.is_file().then_some((file, metadata)))
    }

    /// Gives a synced temporary file the name of the object.
    pub(super) fn publish(&self, temporary: temporary::Temporary, key: &str, mode: &PutMode) -> io::Result<Put> {
        let target = self.path(key);
        let etag = etag_of(&temporary.file.metadata()?);
        let before = self.folders.now();
        let named = self.folders.within(&target, || match mode {
            PutMode::IfAbsent | PutMode::IfMatch(None) => {
                self.temporaries.link(&temporary, &target, key).map(|()| true)
            }
            PutMode::Overwrite => {
                let _held = self.temporaries.locks.hold(key)?;
                temporary.rename(&target).map(|()| true)
            }
            PutMode::IfMatch(Some(version)) => {
                let _held = self.temporaries.locks.hold(key)?;
                if self.version(key)?.as_ref() != Some(version) {
                    return Ok(false);
                }
                temporary.rename(&target).map(|()| true)
            }
        });
        match named {
            Ok(true) => Ok(Put::Done(etag)),
            Ok(false) => Ok(Put::Changed),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && *mode == PutMode::IfMatch(None) => {
                Ok(Put::Changed)
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                // The other put may not be durable yet, but the caller relies on it.
                self.folders.sync(&target, before)?;
                Ok(Put::Exists)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a conditional write can return at once because the object exists. This saves the
    /// copy in the usual case; the hard link at the end decides.
    pub(super) fn is_taken(&self, key: &str, mode: &PutMode) -> io::Result<bool> {
        let before = self.folders.now();
        let is_taken = *mode == PutMode::IfAbsent && self.metadata(key)?.is_some();
        if is_taken {
            self.folders.sync(&self.path(key), before)?;
        }
        Ok(is_taken)
    }

    pub(super) fn put(&self, key: &str, body: &PutBody, mode: &PutMode) -> Result<Put, Failure> {
        if self.is_taken(key, mode)? {
            return Ok(Put::Exists);
        }
        let temporary = match self.adopt(body)? {
            Some(adopted) => adopted,
            None => {
                let temporary = self.temporaries.create()?;
                copy::write(body, &temporary.file)?;
                temporary.finish()?;
                temporary
            }
        };
        Ok(self.publish(temporary, key, mode)?)
    }

    /// Adopts a whole file of the same file system as a synced temporary file, without a copy. The
    /// file is read once if a checksum is given that the caller has not verified itself.
    pub(super) fn adopt(&self, body: &PutBody) -> Result<Option<temporary::Temporary>, Failure> {
        let PutBody::File { path, range, checksum } = body else { return Ok(None) };
        if range.start != 0 || self.sync_failed.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let Some(temporary) = self.temporaries.adopt(path, range.end) else { return Ok(None) };
        if let Some(checksum) = checksum.filter(|checksum| !matches!(checksum, Checksum::Verified(_)))
            && !checksum.is_of_file(path, range.clone()).map_err(Failure::Local)?
        {
            return Err(Failure::WrongContent);
        }
        match temporary.finish() {
            Ok(()) => Ok(Some(temporary)),
            Err(error) => {
                // The system reports a failed write only once and then treats the bytes as written,
                // so another attempt with this file would seem to succeed. A copy writes all bytes
                // again.
                self.sync_failed.store(true, Ordering::Relaxed);
                tracing::warn!(path = %path.display(), %error,
                    "cannot sync a linked file; copying files into the bucket from now on");
                Ok(None)
            }
        }
    }

    pub(super) fn delete_if_match(&self, key: &str, version: &ETag) -> io::Result<Delete> {
        let held = self.temporaries.locks.hold(key)?;
        if self.version(key)?.as_ref() != Some(version) {
            return Ok(Delete::Changed);
        }
        self.remove(key, held).map(|()| Delete::Done)
    }

    pub(super) fn delete(&self, key: &str) -> io::Result<()> {
        // Most deletes find nothing when several nodes remove the same keys, and then need no lock.
        if self.metadata(key)?.is_none() {
            return Ok(());
        }
        let held = self.temporaries.locks.hold(key)?;
        self.remove(key, held)
    }

    /// Removes an object, releases its lock, and then makes the removal durable.
    pub(super) fn remove(&self, key: &str, held: locks::Held) -> io::Result<()> {
        let path = self.path(key);
        let removed = std::fs::remove_file(&path);
        drop(held);
        match removed {
            Err(error) if is_missing(&error) || error.kind() == ErrorKind::IsADirectory => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.folders.removed(&path),
        }
    }
}
