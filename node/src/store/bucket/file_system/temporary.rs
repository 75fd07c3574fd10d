//! What is not yet an object: files that are being written, and the parts of multipart uploads.

use super::super::MultipartId;
use super::OWN_FOLDER;
use crate::run::Clock;
use crate::run::clock::Timestamp;
use rustix::fs::{CWD, RenameFlags, Timespec, Timestamps, futimens, renameat_with};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use uuid::Uuid;

/// The file of an upload's folder that names its key; parts are named by numbers.
const KEY: &str = "key";

/// Locks for all keys together.
const LOCKS: u32 = 256;

/// Other nodes may share the folder, and what they write is new: what has not been written for this long was left by a
/// crash. A single put takes minutes at most.
const LEFT_BEHIND: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes temporary files and folders of uploads below the bucket's own folder.
pub(super) struct Temporaries {
    files: PathBuf,
    uploads: PathBuf,
    locks: PathBuf,
    clock: Clock,
}

/// A file without a name in the bucket. It is removed with the value.
pub(super) struct Temporary {
    pub(super) file: File,
    path: PathBuf,
    modified: Timespec,
}

impl Temporaries {
    pub(super) fn open(folder: &Path, clock: Clock) -> io::Result<Temporaries> {
        debug_assert!(folder.ends_with(OWN_FOLDER));
        let (files, uploads, locks) = (folder.join("put"), folder.join("multipart"), folder.join("locks"));
        std::fs::create_dir_all(&locks)?;
        let temporaries = Temporaries { files, uploads, locks, clock };
        for folder in [&temporaries.files, &temporaries.uploads] {
            std::fs::create_dir_all(folder)?;
            temporaries.remove_left_behind(folder)?;
        }
        Ok(temporaries)
    }

    fn remove_left_behind(&self, folder: &Path) -> io::Result<()> {
        let now = self.clock.now();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            // Gone while we look: another node that starts does the same.
            let Ok(metadata) = entry.metadata() else { continue };
            let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            let modified = Timestamp(u64::try_from(modified.as_millis()).unwrap_or(u64::MAX));
            if now.since(modified) <= LEFT_BEHIND {
                continue;
            }
            let path = entry.path();
            let removed = if metadata.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            match removed {
                Ok(()) => tracing::info!(path = %path.display(), "removed what an interrupted put left in the bucket"),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(path = %path.display(), %error, "cannot remove what a put left"),
            }
        }
        Ok(())
    }

    /// A new, empty file.
    pub(super) fn create(&self) -> io::Result<Temporary> {
        let path = self.files.join(Uuid::new_v4().to_string());
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        Ok(Temporary { file, path, modified: self.modified() })
    }

    /// A file of `size` bytes that lies elsewhere, by one more name for it. `None` where it is on another file system,
    /// is not of that size, or may not be linked: it is to be copied then, and a copy tells what is wrong.
    pub(super) fn adopt(&self, path: &Path, size: u64) -> Option<Temporary> {
        let own = self.files.join(Uuid::new_v4().to_string());
        std::fs::hard_link(path, &own).ok()?;
        let temporary = Temporary { file: File::open(&own).ok()?, path: own, modified: self.modified() };
        temporary.file.metadata().is_ok_and(|metadata| metadata.len() == size).then_some(temporary)
    }

    /// Holds the lock of a key, for as long as the file is open: all nodes of the folder compare and replace one
    /// after the other. Keys share a fixed number of locks, so that no file is left behind for each.
    pub(super) fn lock(&self, key: &str) -> io::Result<File> {
        let number = key.bytes().fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte))) % LOCKS;
        let file =
            File::options().create(true).truncate(false).write(true).open(self.locks.join(number.to_string()))?;
        file.lock()?;
        Ok(file)
    }

    fn modified(&self) -> Timespec {
        // The kernel stamps files with a coarse clock, and a file system gives a freed inode to the next file: two
        // versions of a link, all of one size, could look the same. So the part below a millisecond is random.
        let milliseconds = self.clock.now().0;
        let nanoseconds = (milliseconds % 1000) * 1_000_000 + u64::from(rand::random_range(0..1_000_000u32));
        Timespec {
            tv_sec: i64::try_from(milliseconds / 1000).unwrap_or_default(),
            tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
        }
    }

    pub(super) fn begin_upload(&self, key: &str) -> io::Result<MultipartId> {
        let id = MultipartId(Uuid::new_v4().to_string());
        let folder = self.uploads.join(&id.0);
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join(KEY), key)?;
        Ok(id)
    }

    /// Uploads of that key that were begun and not ended.
    pub(super) fn uploads_of(&self, key: &str) -> io::Result<Vec<MultipartId>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.uploads)? {
            let entry = entry?;
            let is_its = std::fs::read(entry.path().join(KEY)).is_ok_and(|of| of == key.as_bytes());
            if let (true, Ok(id)) = (is_its, entry.file_name().into_string()) {
                found.push(MultipartId(id));
            }
        }
        Ok(found)
    }

    /// The folder of an upload's parts, if it is there.
    pub(super) fn upload(&self, id: &MultipartId) -> Option<PathBuf> {
        // The id came from here once, but what it is now comes from a caller.
        let id = Uuid::parse_str(&id.0).ok()?;
        Some(self.uploads.join(id.to_string())).filter(|folder| folder.is_dir())
    }

    /// Removes an upload and its parts.
    pub(super) fn end_upload(&self, id: &MultipartId) -> io::Result<()> {
        let Some(folder) = self.upload(id) else { return Ok(()) };
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Temporary {
    /// Ends writing: the version is now what it stays.
    pub(super) fn stamp(&self) -> io::Result<()> {
        Ok(futimens(&self.file, &Timestamps { last_access: self.modified, last_modification: self.modified })?)
    }

    /// Ends writing and makes the content durable.
    pub(super) fn finish(&self) -> io::Result<()> {
        self.stamp()?;
        self.file.sync_all()
    }

    /// Takes the name if it is free.
    pub(super) fn link(&self, target: &Path) -> io::Result<()> {
        match std::fs::hard_link(&self.path, target) {
            Err(error) if no_links(&error) => Ok(renameat_with(CWD, &self.path, CWD, target, RenameFlags::NOREPLACE)?),
            linked => linked,
        }
    }

    /// Takes the name from whatever has it.
    pub(super) fn rename(&self, target: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, target)
    }
}

/// Some file systems (FUSE, FAT) have no hard links.
fn no_links(error: &io::Error) -> bool {
    let refused = [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS].map(|errno| Some(errno.raw_os_error()));
    refused.contains(&error.raw_os_error())
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is none. What cannot be removed now is removed as left behind.
        let _ = std::fs::remove_file(&self.path);
    }
}
