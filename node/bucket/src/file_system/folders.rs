//! Directories of the bucket. A directory is created with its first object and removed with its
//! last. An object is durable only if every directory above it is.

use parking_lot::{Mutex, MutexGuard};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// How often a put creates its directories again because concurrent deletes removed them. Each try
/// loses to another delete, so more than a few in a row do not occur.
const TRIES: usize = 100;
/// Number of directories remembered as durable; they take about 10 MiB. The set only saves work, so
/// it is cleared when it is full.
const REMEMBERED: usize = 65_536;

/// The directories below the root.
pub(super) struct Folders {
    root: PathBuf,
    durable: Mutex<Durable>,
}

/// Directories whose entries, up to the root, are known to be durable.
///
/// A directory that another node removes and creates again remains in this set. That node syncs it
/// before it acknowledges its own object. Until then, an object that this node puts there may not
/// survive a power failure.
#[derive(Default)]
struct Durable {
    folders: HashSet<PathBuf>,
    changes: u64,
}

/// The state of the directories before an observation or a change. What is synced afterwards is
/// remembered only if no directory was created or removed since: the synced directory may be
/// another one of the same name.
#[derive(Clone, Copy)]
pub(super) struct Moment(u64);

impl Folders {
    pub(super) fn new(root: &Path) -> Folders {
        Folders { root: root.to_owned(), durable: Mutex::default() }
    }

    fn durable(&self) -> MutexGuard<'_, Durable> {
        self.durable.lock()
    }

    pub(super) fn now(&self) -> Moment {
        Moment(self.durable().changes)
    }

    /// Calls `name` to give a file the name `target`, creates the directories above it, and makes
    /// both durable. Does nothing more if `name` returns `false`.
    pub(super) fn within(&self, target: &Path, name: impl Fn() -> io::Result<bool>) -> io::Result<bool> {
        let folder = target.parent().unwrap_or(&self.root);
        for _ in 0..TRIES {
            let before = self.now();
            match name() {
                Ok(true) => return self.sync(target, before).map(|()| true),
                Ok(false) => return Ok(false),
                // The directory does not exist, or a concurrent delete removed it again.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            // A directory that is created now is not durable, even if an earlier one of this name
            // was.
            self.forget_missing(folder);
            match std::fs::create_dir_all(folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Err(io::Error::other("other writers keep removing the directory"))
    }

    /// Makes the entry of `target`, which was seen after `before`, and of every directory above it
    /// durable.
    pub(super) fn sync(&self, target: &Path, before: Moment) -> io::Result<()> {
        let Some(folder) = target.parent() else { return Ok(()) };
        sync_folder(folder)?;
        let mut synced = Vec::new();
        for folder in folder.ancestors().take_while(|folder| *folder != self.root) {
            if self.durable().folders.contains(folder) {
                break;
            }
            if let Some(parent) = folder.parent() {
                sync_folder(parent)?;
            }
            synced.push(folder.to_owned());
        }
        let mut durable = self.durable();
        if durable.changes == before.0 {
            if durable.folders.len() + synced.len() > REMEMBERED {
                durable.folders.clear();
            }
            durable.folders.extend(synced);
        }
        Ok(())
    }

    /// Forgets the missing directories among a directory and those above it, because they are about
    /// to be created. A directory that exists and is removed at this moment is forgotten by the
    /// code that removes it.
    fn forget_missing(&self, folder: &Path) {
        let missing = folder.ancestors().take_while(|folder| *folder != self.root && !folder.is_dir());
        let missing: Vec<_> = missing.collect();
        let mut durable = self.durable();
        durable.changes += 1;
        for folder in missing {
            durable.folders.remove(folder);
        }
    }

    /// Forgets a directory and those above it, because they may be created or removed now.
    fn forget(&self, folder: &Path) {
        let mut durable = self.durable();
        durable.changes += 1;
        for folder in folder.ancestors().take_while(|folder| *folder != self.root) {
            durable.folders.remove(folder);
        }
    }

    /// Called after `path` was removed: makes the removal durable, and removes the directories
    /// above it that are now empty.
    pub(super) fn removed(&self, path: &Path) -> io::Result<()> {
        let mut folder = path.parent();
        while let Some(empty) = folder.filter(|folder| *folder != self.root) {
            self.forget(empty);
            // Fails if the directory is not empty, and also if another delete removed it first.
            if std::fs::remove_dir(empty).is_err() {
                break;
            }
            folder = empty.parent();
        }
        folder.map_or(Ok(()), sync_folder)
    }
}

/// Makes the entries of a directory durable. Does nothing if the directory does not exist.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder) {
        // Some file systems cannot sync a directory and return EINVAL (FUSE, CIFS).
        Ok(folder) => match folder.sync_all() {
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
            synced => synced,
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
