//! Files that are not objects yet: files being written, and the parts of multipart uploads.

use super::super::MultipartId;
use super::OWN_FOLDER;
use super::locks::Locks;
use super::owners::{Census, Owner, parse};
use entrepot_runtime::Clock;
use rustix::fs::{CWD, RenameFlags, Timespec, Timestamps, futimens, renameat_with};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The file in the directory of an upload that contains its key. The files of parts have numbers as
/// names.
const KEY: &str = "key";

/// Creates temporary files and directories of uploads in the bucket's own directory. Their names
/// contain the name of their owner. Those of dead owners are removed when a bucket is opened.
pub(super) struct Temporaries {
    files: PathBuf,
    uploads: PathBuf,
    pub(super) locks: Locks,
    owner: Owner,
    clock: Clock,
    lacks: Lacks,
}

/// Features that the file system has rejected once, and that are not tried again.
#[derive(Default)]
pub(super) struct Lacks {
    /// Hard links (FAT and many FUSE file systems lack them).
    pub(super) links: AtomicBool,
    /// Renames that do not replace (NFS and many FUSE file systems lack them).
    pub(super) exclusive_renames: AtomicBool,
}

/// A file that has no name in the bucket yet. It is removed when the value is dropped.
pub(super) struct Temporary {
    pub(super) file: File,
    path: PathBuf,
    modified: Timespec,
}

impl Temporaries {
    pub(super) fn open(folder: &Path, clock: Clock) -> io::Result<Temporaries> {
        debug_assert!(folder.ends_with(OWN_FOLDER));
        let (files, uploads, owners) = (folder.join("put"), folder.join("multipart"), folder.join("owners"));
        for folder in [&files, &uploads, &owners] {
            std::fs::create_dir_all(folder)?;
        }
        let locks = Locks::open(folder.join("locks"))?;
        let owner = Owner::new(&owners)?;
        let mut census = Census::of(&owners);
        for folder in [&files, &uploads] {
            remove_left_behind(folder, &mut census)?;
        }
        census.complete()?;
        Ok(Temporaries { files, uploads, locks, owner, clock, lacks: Lacks::default() })
    }

    #[cfg(test)]
    pub(super) fn lacks(&self) -> &Lacks {
        &self.lacks
    }

    /// A new, empty file.
    pub(super) fn create(&self) -> io::Result<Temporary> {
        let path = self.files.join(self.owner.name());
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        Ok(Temporary { file, path, modified: self.modified() })
    }

    /// Links a file of `size` bytes from elsewhere. `None` if it is on another file system, has
    /// another size, or may not be linked. The caller then copies it, and the copy reports what is
    /// wrong.
    pub(super) fn adopt(&self, path: &Path, size: u64) -> Option<Temporary> {
        let own = self.files.join(self.owner.name());
        std::fs::hard_link(path, &own).ok()?;
        let temporary = Temporary { file: File::open(&own).ok()?, path: own, modified: self.modified() };
        temporary.file.metadata().is_ok_and(|metadata| metadata.len() == size).then_some(temporary)
    }

    fn modified(&self) -> Timespec {
        // The kernel stamps files with a coarse clock, and a file system reuses a freed inode for
        // the next file, so two versions of a link, which all have one size, could look the same.
        // Therefore the part below a millisecond is random.
        let milliseconds = self.clock.now().0;
        let nanoseconds = (milliseconds % 1000) * 1_000_000 + u64::from(rand::random_range(0..1_000_000u32));
        Timespec {
            tv_sec: i64::try_from(milliseconds / 1000).unwrap_or_default(),
            tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
        }
    }

    /// Gives a temporary file its name in the bucket, if no file has that name.
    pub(super) fn link(&self, temporary: &Temporary, target: &Path, key: &str) -> io::Result<()> {
        let Lacks { links, exclusive_renames } = &self.lacks;
        if !links.load(Ordering::Relaxed) {
            match std::fs::hard_link(&temporary.path, target) {
                Err(error) if refuses_links(&error) => links.store(true, Ordering::Relaxed),
                linked => return linked,
            }
        }
        if !exclusive_renames.load(Ordering::Relaxed) {
            match renameat_with(CWD, &temporary.path, CWD, target, RenameFlags::NOREPLACE) {
                Err(error) if NO_EXCLUSIVE_RENAMES.contains(&error) => exclusive_renames.store(true, Ordering::Relaxed),
                renamed => return Ok(renamed?),
            }
        }
        // Every other writer that would create or remove this name holds the same lock.
        let _held = self.locks.hold(key)?;
        match std::fs::symlink_metadata(target) {
            Ok(_) => Err(ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == ErrorKind::NotFound => temporary.rename(target),
            Err(error) => Err(error),
        }
    }

    pub(super) fn begin_upload(&self, key: &str) -> io::Result<MultipartId> {
        let id = MultipartId(self.owner.name());
        let folder = self.uploads.join(&id.0);
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join(KEY), key)?;
        Ok(id)
    }

    /// Uploads of that key that are neither completed nor aborted.
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

    /// The directory of an upload's parts, if it exists.
    pub(super) fn upload(&self, id: &MultipartId) -> Option<PathBuf> {
        // The ID comes from the caller, so it is parsed again before it becomes part of a path.
        let (owner, own) = parse(&id.0)?;
        Some(self.uploads.join(format!("{owner}.{own}"))).filter(|folder| folder.is_dir())
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
    #[cfg(test)]
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Ends the writing: sets the modification time, so the version is final.
    pub(super) fn stamp(&self) -> io::Result<()> {
        match futimens(&self.file, &Timestamps { last_access: self.modified, last_modification: self.modified }) {
            // Without this feature, the time that the file system set is used.
            Err(Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
            stamped => Ok(stamped?),
        }
    }

    /// Ends the writing and makes the content durable.
    pub(super) fn finish(&self) -> io::Result<()> {
        self.stamp()?;
        self.file.sync_all()
    }

    /// Moves the file to `target`, replacing an existing file.
    pub(super) fn rename(&self, target: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, target)
    }
}

/// The errors of a file system without hard links.
const NO_LINKS: [Errno; 3] = [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS];

/// The errors of a file system without rename flags (rename(2)).
const NO_EXCLUSIVE_RENAMES: [Errno; 3] = [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOSYS];

pub(super) fn refuses_links(error: &io::Error) -> bool {
    NO_LINKS.map(|errno| Some(errno.raw_os_error())).contains(&error.raw_os_error())
}

/// Removes what dead owners left in a directory.
fn remove_left_behind(folder: &Path, census: &mut Census<'_>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let owner = entry.file_name().to_str().and_then(parse).map(|(owner, _)| owner);
        if !owner.is_some_and(|owner| census.is_dead(owner)) {
            continue;
        }
        let path = entry.path();
        // The entry may be gone, because another node that starts removes the same files.
        let Ok(kind) = entry.file_type() else { continue };
        let removed = if kind.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Ok(()) => {
                tracing::info!(path = %path.display(), "removed a leftover temporary file")
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "cannot remove a leftover temporary file"),
        }
    }
    Ok(())
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename the path no longer exists. A file that cannot be removed now is removed by
        // a later start.
        let _ = std::fs::remove_file(&self.path);
    }
}
