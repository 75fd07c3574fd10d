//! The folders and files of a store, and what keeps two nodes from using one store.

use super::StoreError;
use crate::oci::{Algorithm, Digest};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Where everything lies.
pub(super) struct Folders {
    root: PathBuf,
    /// Locked for as long as the file is open.
    _lock: File,
}

impl Folders {
    /// Makes what is missing, and locks the store.
    pub(super) fn open(root: &Path) -> Result<Folders, StoreError> {
        fs::create_dir_all(root).map_err(StoreError::io("make", root))?;
        let path = root.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(root.to_owned())),
            Err(TryLockError::Error(source)) => return Err(StoreError::io("lock", &path)(source)),
        }
        let folders = Folders { root: root.to_owned(), _lock: lock };
        folders.make()?;
        Ok(folders)
    }

    /// All folders are made now and synced, so that storing content never has to make one, or to think about
    /// whether one that another made is on disk yet.
    fn make(&self) -> Result<(), StoreError> {
        for folder in [self.fills(), self.uploads(), self.pending()] {
            make_folder(&folder)?;
        }
        let mut made = make_folder(&self.blobs())?;
        for algorithm in Algorithm::ALL {
            let folder = self.algorithm(algorithm);
            let mut shelves = make_folder(&folder)?;
            for first in 0..=u8::MAX {
                shelves |= make_folder(&folder.join(hex::encode([first])))?;
            }
            if shelves {
                sync_folder(&folder)?;
            }
            made |= shelves;
        }
        if made {
            sync_folder(&self.blobs())?;
            sync_folder(&self.root)?;
        }
        Ok(())
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(super) fn algorithm(&self, algorithm: Algorithm) -> PathBuf {
        self.blobs().join(algorithm.name())
    }

    /// The folder of content whose digest begins alike.
    pub(super) fn shelf(&self, digest: &Digest) -> PathBuf {
        self.algorithm(digest.algorithm()).join(&digest.hex()[..2])
    }

    /// The file of content.
    pub(super) fn content(&self, digest: &Digest) -> PathBuf {
        self.shelf(digest).join(digest.hex())
    }

    pub(super) fn fills(&self) -> PathBuf {
        self.root.join("fills")
    }

    pub(super) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    pub(super) fn pending(&self) -> PathBuf {
        self.root.join("pending")
    }

    pub(super) fn records(&self) -> PathBuf {
        self.root.join("records.redb")
    }

    /// The mark of an orderly stop.
    pub(super) fn clean(&self) -> PathBuf {
        self.root.join("clean")
    }
}

/// Whether it was not there before.
fn make_folder(folder: &Path) -> Result<bool, StoreError> {
    match fs::create_dir(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(StoreError::io("make", folder)(error)),
    }
}

/// Makes names in a folder last.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync", folder))
}

/// Removes a file; one that is not there is removed already.
pub(super) fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(error)),
        _ => Ok(()),
    }
}
