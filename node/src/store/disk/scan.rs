//! What a start finds: stored content, and what an earlier run left unfinished.

use super::StoreError;
use super::folders::{Folders, remove_file};
use crate::oci::{Algorithm, Digest};
use crate::run::clock::Timestamp;
use std::fs::{self, DirEntry};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::UNIX_EPOCH;

/// Threads that walk the folders. On a warm cache the walk is system calls and gains what cores there are; on a cold
/// disk it is waiting, and a few requests at a time are what a disk answers fastest.
const THREADS: usize = 4;

/// Stored content as found on disk.
pub(super) struct Found {
    pub(super) digest: Digest,
    /// Size in bytes.
    pub(super) size: u64,
    /// When it was written: the best guess at its last use, should there be no record.
    pub(super) written: Timestamp,
    /// The file has another name, in the bucket: a crash came before the store let go of it.
    pub(super) shared: bool,
}

/// Walks the content, by several threads.
pub(super) fn content(folders: &Folders) -> Result<Vec<Found>, StoreError> {
    let mut shelves = Vec::new();
    for algorithm in Algorithm::ALL {
        for shelf in list(&folders.algorithm(algorithm))? {
            if shelf.file_type().is_ok_and(|kind| kind.is_dir()) {
                shelves.push((algorithm, shelf.path()));
            } else {
                remove_unknown(&shelf.path())?;
            }
        }
    }
    let next = AtomicUsize::new(0);
    let walk = || {
        let mut found = Vec::new();
        while let Some((algorithm, shelf)) = shelves.get(next.fetch_add(1, Relaxed)) {
            for file in list(shelf)? {
                found.extend(identify(*algorithm, shelf, &file)?);
            }
        }
        Ok(found)
    };
    let parts: Vec<Result<Vec<Found>, StoreError>> = std::thread::scope(|scope| {
        let walkers: Vec<_> = (0..THREADS).map(|_| scope.spawn(walk)).collect();
        walkers
            .into_iter()
            .map(|walker| walker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut found = Vec::new();
    for part in parts {
        found.extend(part?);
    }
    Ok(found)
}

/// Content, or `None` for what was removed because it is none, or left alone because it is a folder.
fn identify(algorithm: Algorithm, shelf: &Path, file: &DirEntry) -> Result<Option<Found>, StoreError> {
    let path = || file.path();
    let metadata = file.metadata().map_err(|error| StoreError::io("look at", &path())(error))?;
    if metadata.is_dir() {
        // Never made by a node, so it is somebody else's: a bucket's folder that was configured as the store by
        // mistake has its data in such folders.
        tracing::warn!(folder = %path().display(), "leaving alone a folder that is not the store's");
        return Ok(None);
    }
    let digest = file.file_name().to_str().and_then(|name| Digest::from_hex(algorithm, name).ok());
    let Some(digest) = digest.filter(|digest| metadata.is_file() && shelf.ends_with(&digest.hex()[..2])) else {
        remove_unknown(&path())?;
        return Ok(None);
    };
    let written = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let written = Timestamp(u64::try_from(written.as_millis()).unwrap_or(u64::MAX));
    Ok(Some(Found { digest, size: metadata.len(), written, shared: metadata.nlink() > 1 }))
}

/// Forgets the fills that an earlier run had under way.
pub(super) fn empty_fills(folders: &Folders) -> Result<(), StoreError> {
    for fill in list(&folders.fills())? {
        remove_file(&fill.path())?;
    }
    Ok(())
}

fn remove_unknown(path: &Path) -> Result<(), StoreError> {
    tracing::warn!(file = %path.display(), "removing a file that is not stored content");
    remove_file(path)
}

fn list(folder: &Path) -> Result<Vec<DirEntry>, StoreError> {
    let path: PathBuf = folder.to_owned();
    fs::read_dir(folder).and_then(Iterator::collect).map_err(StoreError::io("list", &path))
}
