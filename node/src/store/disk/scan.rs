//! What a start finds: stored content, and what an earlier run left unfinished.
//!
//! Nothing that it finds, or cannot read, keeps a node from starting: content that cannot be looked at is not stored.

use super::StoreError;
use super::folders::{Folders, remove_file};
use super::identity::Identity;
use crate::oci::{Algorithm, Digest};
use crate::run::clock::Timestamp;
use std::fs::{self, DirEntry};
use std::io;
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
    pub(super) identity: Identity,
    /// When it was written: the best guess at its last use, should there be no record.
    pub(super) written: Timestamp,
    /// The file has another name, in the bucket: a crash came before the store let go of it.
    pub(super) shared: bool,
}

/// Walks the content, by several threads.
pub(super) fn content(folders: &Folders) -> Vec<Found> {
    let mut shelves = Vec::new();
    for algorithm in Algorithm::ALL {
        for shelf in list(&folders.algorithm(algorithm)) {
            // Not the entry's own kind: a shelf may be a link to a folder.
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

/// Content, or `None` for what was removed because it is none, or left alone because it is a folder.
fn identify(algorithm: Algorithm, shelf: &Path, file: &DirEntry) -> Option<Found> {
    let path = || file.path();
    let metadata = match file.metadata() {
        Ok(metadata) => metadata,
        Err(error) => {
            tracing::error!(path = %path().display(), %error, "a file of the store cannot be looked at");
            return None;
        }
    };
    if metadata.is_dir() {
        // Never made by a node, so it is somebody else's: a bucket's folder that was configured as the store by
        // mistake has its data in such folders.
        tracing::warn!(folder = %path().display(), "leaving alone a folder that is not the store's");
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

/// Forgets the fills that an earlier run had under way.
pub(super) fn empty_fills(folders: &Folders) {
    for fill in list(&folders.fills()) {
        if fill.file_type().is_ok_and(|kind| kind.is_dir()) {
            tracing::warn!(folder = %fill.path().display(), "leaving alone a folder that is not the store's");
        } else if let Err(error) = remove_file(&fill.path()) {
            tracing::error!(%error, "an unfinished fill of an earlier run stays");
        }
    }
}

fn remove_unknown(path: &Path) {
    tracing::warn!(file = %path.display(), "removing a file that is not stored content");
    if let Err(error) = remove_file(path) {
        tracing::error!(%error, "a file that is not stored content stays");
    }
}

/// What is in a folder, as far as the disk tells it.
fn list(folder: &Path) -> Vec<DirEntry> {
    let path: PathBuf = folder.to_owned();
    let listed: Result<Vec<_>, io::Error> = fs::read_dir(folder).and_then(Iterator::collect);
    listed.map_err(StoreError::io("list", &path)).unwrap_or_else(|error| {
        tracing::error!(%error, "what a folder of the store holds is taken to be lost");
        Vec::new()
    })
}
