//! Folders come into being with the first object in them and go with the last, and an object is durable only with every
//! folder above it.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How often a put makes its folders anew because deletes beside it removed them. Each try loses to another delete, so
/// more than a few in a row do not happen.
const TRIES: usize = 100;
/// How many folders are remembered as durable; some 10 MiB of paths. The memory only spares work, so it starts anew
/// when it is full.
const REMEMBERED: usize = 65_536;

/// The folders below the root.
pub(super) struct Folders {
    root: PathBuf,
    durable: Mutex<Durable>,
}

/// Folders whose own entries, up to the root, are known to be durable.
///
/// A folder that another node removes and makes again is still in here; that node syncs it before it says that its own
/// object is durable, and this one's object is then in a folder that is nearly so.
#[derive(Default)]
struct Durable {
    folders: HashSet<PathBuf>,
    changes: u64,
}

/// A moment before something was seen or done in the folders. What was synced since is remembered only if no folder
/// came or went since: it may have been another folder of that name.
#[derive(Clone, Copy)]
pub(super) struct Moment(u64);

impl Folders {
    pub(super) fn new(root: &Path) -> Folders {
        Folders { root: root.to_owned(), durable: Mutex::default() }
    }

    fn durable(&self) -> MutexGuard<'_, Durable> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Moment {
        Moment(self.durable().changes)
    }

    /// Gives a file its name `target` by `name`, with the folders above it, and makes both durable, unless `name` says
    /// that it gave none.
    pub(super) fn within(&self, target: &Path, name: impl Fn() -> io::Result<bool>) -> io::Result<bool> {
        let folder = target.parent().unwrap_or(&self.root);
        for _ in 0..TRIES {
            let before = self.now();
            match name() {
                Ok(true) => return self.sync(target, before).map(|()| true),
                Ok(false) => return Ok(false),
                // The folder is not there, or a delete beside this put took it away again.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            // What is made now is not durable, whatever is remembered of an earlier folder of this name.
            self.forget_missing(folder);
            match std::fs::create_dir_all(folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Err(io::Error::other("the folder is removed again and again"))
    }

    /// Makes the entry of `target`, which was seen after `before`, and of every folder above it durable.
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

    /// A folder and those above it that are not there come now. One that is there and goes at this moment is forgotten
    /// by what removes it.
    fn forget_missing(&self, folder: &Path) {
        let missing = folder.ancestors().take_while(|folder| *folder != self.root && !folder.is_dir());
        let missing: Vec<_> = missing.collect();
        let mut durable = self.durable();
        durable.changes += 1;
        for folder in missing {
            durable.folders.remove(folder);
        }
    }

    /// A folder, and perhaps some above it, may come or go now.
    fn forget(&self, folder: &Path) {
        let mut durable = self.durable();
        durable.changes += 1;
        for folder in folder.ancestors().take_while(|folder| *folder != self.root) {
            durable.folders.remove(folder);
        }
    }

    /// After `path` was removed: makes that durable, and removes the folders above it that are now empty.
    pub(super) fn removed(&self, path: &Path) -> io::Result<()> {
        let mut folder = path.parent();
        while let Some(empty) = folder.filter(|folder| *folder != self.root) {
            self.forget(empty);
            // Refused when something is in it, and also when another delete was faster.
            if std::fs::remove_dir(empty).is_err() {
                break;
            }
            folder = empty.parent();
        }
        folder.map_or(Ok(()), sync_folder)
    }
}

/// Makes a folder's entries durable. One that is gone has none.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder) {
        // Some file systems cannot sync a folder, and say that it is no file for that (FUSE, CIFS).
        Ok(folder) => match folder.sync_all() {
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
            synced => synced,
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
