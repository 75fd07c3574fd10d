//! The folders and files of a store, and what keeps two nodes from using one store.
//!
//! Whatever others did to them, a start makes them again, and so does whoever finds one missing while the node runs.

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
        make_way_for_file(&path)?;
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
        if let Err(error) = folders.make() {
            tracing::error!(%error, "a folder of the store cannot be made; it is tried again when it is used");
        }
        Ok(folders)
    }

    /// All folders are made now and synced, so that storing content rarely has to make one, or to think about
    /// whether one that another made is on disk yet.
    fn make(&self) -> Result<(), StoreError> {
        fs::create_dir_all(&self.root).map_err(StoreError::io("make", &self.root))?;
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

    /// Puts a file in the place of content. What others did to the folders meanwhile is repaired first.
    pub(super) fn place(&self, file: &Path, digest: &Digest) -> Result<(), StoreError> {
        let target = self.content(digest);
        if fs::rename(file, &target).is_ok() {
            return Ok(());
        }
        self.make()?;
        make_way_for_file(&target)?;
        fs::rename(file, &target).map_err(StoreError::io("store", &target))
    }
}

/// Makes a folder that is not there, in the place of whatever is no folder. Whether it made one.
///
/// # Errors
/// When the folder above is not there, or the disk fails.
pub(crate) fn make_folder(folder: &Path) -> Result<bool, StoreError> {
    match fs::create_dir(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // A link to a folder is the operator's way to keep it elsewhere.
            if fs::metadata(folder).is_ok_and(|found| found.is_dir()) {
                return Ok(false);
            }
            tracing::error!(path = %folder.display(), "what is no folder lies in the place of a folder of the store; removing it");
            remove_file(folder)?;
            fs::create_dir(folder).map(|()| true).map_err(StoreError::io("make", folder))
        }
        Err(error) => Err(StoreError::io("make", folder)(error)),
    }
}

/// Removes what is no file from the place of one. A folder that has something in it is not removed but renamed, because
/// no node makes such a folder: what it holds is somebody else's.
pub(super) fn make_way_for_file(path: &Path) -> Result<(), StoreError> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if found.is_file() {
        return Ok(());
    }
    tracing::error!(path = %path.display(), "what is no file lies in the place of a file of the store");
    if !found.is_dir() {
        return remove_file(path);
    }
    if fs::remove_dir(path).is_ok() {
        return Ok(());
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".set-aside-{}", uuid::Uuid::new_v4().simple()));
    tracing::error!(path = %path.display(), aside = %Path::new(&aside).display(), "setting a folder aside");
    fs::rename(path, &aside).map_err(StoreError::io("set aside", path))
}

/// Makes names in a folder last.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync", folder))
}

/// Removes a file; one that is not there is removed already.
pub(super) fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        // What lies in the place of its folder is not the file either.
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(StoreError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
