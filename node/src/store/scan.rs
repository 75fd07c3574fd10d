//! The scan at the start: stored content, and what an earlier run left unfinished.
//!
//! Nothing that it finds or cannot read prevents the node from starting. Content that cannot be
//! examined counts as not stored.

use super::StoreError;
use super::folders::{Folders, remove_file};
use super::identity::Identity;
use entrepot_oci::{Algorithm, Digest};
use entrepot_runtime::clock::Timestamp;
use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::UNIX_EPOCH;

/// Threads that walk the directories. With a warm cache the walk consists of system calls and uses
/// the available cores. With a cold cache it waits for the disk, which is fastest with a few
/// concurrent requests.
const THREADS: usize = 4;

/// Stored content, as found on disk.
pub(super) struct Found {
    pub(super) digest: Digest,
    pub(super) identity: Identity,
    /// Modification time, used as the last use if there are no statistics.
    pub(super) written: Timestamp,
    /// The file has another hard link, in the bucket: a crash came before the store removed its
    /// own.
    pub(super) shared: bool,
}

/// Walks all content, with several threads.
pub(super) fn content(folders: &Folders) -> Vec<Found> {
    let mut shelves = Vec::new();
    for algorithm in Algorithm::ALL {
        for shelf in list(&folders.algorithm(algorithm)) {
            // `file_type` is not used here, because this directory may be a symbolic link.
            if fs::metadata(shelf.path()).is_ok_and(|found| found.is_dir()) {
                shelves.push((algorithm, shelf.path()));
            } else {
                remove_unknown(&shelf.path());
            }
        }
    }
    let next = AtomicUsize::new(0);
    let walk = || {
        let mut found = Vec::new();
        while let Some((algorithm, shelf)) = shelves.get(next.fetch_add(1, Relaxed)) {
            found.extend(list(shelf).iter().filter_map(|file| identify(*algorithm, shelf, file)));
        }
        found
    };
    std::thread::scope(|scope| {
        let walkers: Vec<_> = (0..THREADS).map(|_| scope.spawn(walk)).collect();
        let walked = walkers.into_iter().map(|walker| walker.join());
        walked.flat_map(|found| found.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// Returns content, or `None` if the file was removed because it is not content, or ignored because
/// it is a directory.
fn identify(algorithm: Algorithm, shelf: &Path, file: &DirEntry) -> Option<Found> {
    let path = || file.path();
    let metadata = match file.metadata() {
        Ok(metadata) => metadata,
        Err(error) => {
            tracing::error!(path = %path().display(), %error,
                "cannot stat a file of the store; treating it as not stored");
            return None;
        }
    };
    if metadata.is_dir() {
        // No node creates directories here, so it belongs to something else. For example, if the
        // directory of a bucket was configured as the store by mistake, its data is in such
        // directories.
        tracing::warn!(folder = %path().display(), "ignoring an unknown directory in the store");
        return None;
    }
    let digest = file.file_name().to_str().and_then(|name| Digest::from_hex(algorithm, name).ok());
    let Some(digest) = digest.filter(|digest| metadata.is_file() && shelf.ends_with(&digest.hex()[..2])) else {
        remove_unknown(&path());
        return None;
    };
    let written = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let written = Timestamp(u64::try_from(written.as_millis()).unwrap_or(u64::MAX));
    Some(Found { digest, identity: Identity::of(&metadata), written, shared: metadata.nlink() > 1 })
}

/// Removes the incomplete downloads of an earlier run.
pub(super) fn empty_fills(folders: &Folders) {
    for fill in list(&folders.fills()) {
        if fill.file_type().is_ok_and(|kind| kind.is_dir()) {
            tracing::warn!(folder = %fill.path().display(), "ignoring an unknown directory in the store");
        } else if let Err(error) = remove_file(&fill.path()) {
            tracing::error!(%error,
                "cannot remove an incomplete download of an earlier run; it will be removed at the next start");
        }
    }
}

fn remove_unknown(path: &Path) {
    tracing::warn!(file = %path.display(), "removing a file that is not stored content");
    if let Err(error) = remove_file(path) {
        tracing::error!(%error, "cannot remove a file that is not stored content");
    }
}

/// The entries of a directory, as far as the disk can list them.
fn list(folder: &Path) -> Vec<DirEntry> {
    let path: PathBuf = folder.to_owned();
    let listed: Result<Vec<_>, io::Error> = fs::read_dir(folder).and_then(Iterator::collect);
    listed.map_err(StoreError::io("list", &path)).unwrap_or_else(|error| {
        tracing::error!(%error, "cannot list a directory of the store; treating its content as not stored");
        Vec::new()
    })
}
