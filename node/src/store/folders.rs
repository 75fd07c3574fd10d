//! The directories and files of a store, and the lock that keeps two nodes from using one store.
//!
//! A start creates missing directories again, and so does code that finds one missing while the
//! node runs.

use super::StoreError;
use entrepot_oci::{Algorithm, Digest};
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The paths of the store.
pub(super) struct Folders {
    root: PathBuf,
    /// Locked for as long as the file is open.
    _lock: File,
}

impl Folders {
    /// Creates missing directories, and locks the store.
    pub(super) fn open(root: &Path) -> Result<Folders, StoreError> {
        fs::create_dir_all(root).map_err(StoreError::io("create", root))?;
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
            tracing::error!(%error, "cannot create a directory of the store; retrying when it is used");
        }
        Ok(folders)
    }

    /// Creates and syncs all directories now. Storing content then rarely has to create one, and
    /// need not check whether one created by another task is on disk.
    fn make(&self) -> Result<(), StoreError> {
        fs::create_dir_all(&self.root).map_err(StoreError::io("create", &self.root))?;
        for folder in [self.fills(), self.uploads(), self.pending()] {
            make_folder(&folder)?;
        }
        let mut made = make_folder(&self.blobs())?;
        for folder in [self.fills(), self.uploads(), self.pending(), self.blobs()] {
            close(&folder);
        }
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

    /// The directory of all content whose digest starts with the same two digits.
    pub(super) fn shelf(&self, digest: &Digest) -> PathBuf {
        self.algorithm(digest.algorithm()).join(&digest.hex()[..2])
    }

    /// The file of stored content.
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

    /// The file that marks a clean shutdown.
    pub(super) fn clean(&self) -> PathBuf {
        self.root.join("clean")
    }

    /// Moves a file to the place of its content. If that fails, repairs the directories and tries
    /// again.
    pub(super) fn place(&self, file: &Path, digest: &Digest) -> Result<(), StoreError> {
        let target = self.content(digest);
        if fs::rename(file, &target).is_ok() {
            return Ok(());
        }
        self.make()?;
        make_way_for_file(&target)?;
        fs::rename(file, &target).map_err(StoreError::io("move a file to", &target))
    }
}

/// Creates a directory if it does not exist, replacing anything that is not a directory. Returns
/// whether it created one.
///
/// # Errors
/// If the parent directory does not exist, or the disk fails.
pub(crate) fn make_folder(folder: &Path) -> Result<bool, StoreError> {
    match fs::create_dir(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // A symbolic link to a directory is a valid way for an administrator to store it
            // elsewhere.
            if fs::metadata(folder).is_ok_and(|found| found.is_dir()) {
                return Ok(false);
            }
            tracing::error!(path = %folder.display(),
                "expected a directory of the store, found something else; removing it");
            remove_file(folder)?;
            fs::create_dir(folder).map(|()| true).map_err(StoreError::io("create", folder))
        }
        Err(error) => Err(StoreError::io("create", folder)(error)),
    }
}

/// Takes the access of other users away from a directory that an earlier version, or somebody else,
/// created with it. The files in it need no change: nobody else reaches them any more. The root of
/// the store keeps its permissions, because in Kubernetes they are those of the volume, which the
/// kubelet compares with its own (`fsGroupChangePolicy`).
fn close(folder: &Path) {
    let open = |found: &fs::Metadata| found.permissions().mode() & 0o077 != 0;
    if !fs::metadata(folder).is_ok_and(|found| open(&found)) {
        return;
    }
    if let Err(error) = fs::set_permissions(folder, Permissions::from_mode(0o700)) {
        tracing::warn!(folder = %folder.display(), %error,
            "cannot set the mode of a directory of the store to 0700; other users of this machine may read its content");
    }
}

/// Removes anything that is not a file from the path of a file. A directory with content is renamed
/// instead, because no node creates such a directory and so its content belongs to something else.
pub(super) fn make_way_for_file(path: &Path) -> Result<(), StoreError> {
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(()) };
    if found.is_file() {
        return Ok(());
    }
    tracing::error!(path = %path.display(),
        "expected a file of the store, found something else; removing or renaming it");
    if !found.is_dir() {
        return remove_file(path);
    }
    if fs::remove_dir(path).is_ok() {
        return Ok(());
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".set-aside-{}", uuid::Uuid::new_v4().simple()));
    tracing::error!(path = %path.display(), aside = %Path::new(&aside).display(),
        "renaming a directory with unknown content");
    fs::rename(path, &aside).map_err(StoreError::io("rename", path))
}

/// Makes the entries of a directory durable.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(StoreError::io("sync", folder))
}

/// Removes a file. Succeeds if it does not exist.
pub(super) fn remove_file(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        // If something else is in the place of its directory, the file does not exist either.
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(StoreError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}
