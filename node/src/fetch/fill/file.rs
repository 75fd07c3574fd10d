//! The file that a download is written to.

use crate::store::make_folder;
use bytes::Bytes;
use entrepot_runtime::tasks;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Bytes as they arrived, to be written at one offset. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) at: u64,
    pub(super) pieces: Arc<[Bytes]>,
}

impl Batch {
    pub(super) fn len(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    /// The beginning of a range, up to the end of one piece. `None` if the range does not begin in
    /// this batch.
    pub(super) fn get(&self, range: &Range<u64>) -> Option<Bytes> {
        let mut next = self.at;
        self.pieces.iter().find_map(|piece| {
            let at = next;
            next += piece.len() as u64;
            part(piece, at, range)
        })
    }
}

/// The beginning of a range, as far as it is in a piece at offset `at`.
pub(super) fn part(piece: &Bytes, at: u64, range: &Range<u64>) -> Option<Bytes> {
    let from = usize::try_from(range.start.checked_sub(at)?).ok().filter(|from| *from < piece.len())?;
    let to = usize::try_from(range.end - at).map_or(piece.len(), |to| to.min(piece.len()));
    Some(piece.slice(from..to))
}

/// A file of known size that is written in any order and read at the same time.
#[derive(Debug)]
pub(in crate::fetch) struct FillFile {
    path: PathBuf,
    size: u64,
    file: OnceLock<File>,
    /// The file was removed and must not exist, even if it is still being created.
    gone: AtomicBool,
}

impl FillFile {
    /// A file that is not created yet.
    pub(in crate::fetch) fn new(path: PathBuf, size: u64) -> FillFile {
        FillFile { path, size, file: OnceLock::new(), gone: AtomicBool::new(false) }
    }

    /// A file that a test created.
    #[cfg(test)]
    pub(in crate::fetch) fn over(path: PathBuf, size: u64, file: File) -> FillFile {
        FillFile { path, size, file: file.into(), gone: AtomicBool::new(false) }
    }

    pub(in crate::fetch) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the file and allocates its space on disk, so that a full disk is noticed before much
    /// is received. Blocks.
    ///
    /// # Errors
    /// If the disk is full or fails.
    pub(super) fn create(&self) -> io::Result<()> {
        let make = || OpenOptions::new().read(true).write(true).create_new(true).open(&self.path);
        let file = make().or_else(|error| match self.path.parent() {
            // The directory may have been deleted while the node runs.
            Some(folder) if make_folder(folder).is_ok_and(|made| made) => make(),
            _ => Err(error),
        })?;
        // `remove` may have run before the file existed and found nothing.
        if self.gone.load(Ordering::SeqCst) {
            unlink(&self.path);
        }
        self.preallocate(&file)?;
        self.file.get_or_init(|| file);
        Ok(())
    }

    /// # Errors
    /// If it was not created.
    pub(in crate::fetch) fn opened(&self) -> io::Result<&File> {
        self.file.get().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn preallocate(&self, file: &File) -> io::Result<()> {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, self.size) {
            // Without preallocation a full disk is noticed on a write, and readers continue from
            // the bucket.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(self.size),
            done => Ok(done?),
        }
    }

    /// Removes the file, whether or not it was created. Readers that have it open keep it.
    pub(in crate::fetch) async fn remove(&self) {
        self.gone.store(true, Ordering::SeqCst);
        let path = self.path.clone();
        if let Err(error) = tasks::blocking(move || unlink(&path)).await {
            warn_left_behind(&self.path, &error);
        }
    }

    /// Writes a batch at its offset, without joining its pieces in memory. Blocks.
    pub(super) fn write(&self, batch: &Batch) -> io::Result<()> {
        let file = self.opened()?;
        let mut slices: Vec<IoSlice<'_>> = batch.pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut left = slices.as_mut_slice();
        let mut at = batch.at;
        while !left.is_empty() {
            match rustix::io::pwritev(file, left, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    at += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn unlink(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn_left_behind(path, &error);
    }
}

fn warn_left_behind(path: &Path, error: &io::Error) {
    let path = path.display();
    tracing::warn!(%path, %error, "cannot remove an incomplete download; it will be removed at the next start");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node that shuts down cancels a download whose file a thread is still creating.
    #[tokio::test]
    async fn a_file_that_is_removed_before_it_is_created_does_not_remain() {
        let folder = tempfile::tempdir().unwrap();
        let file = FillFile::new(folder.path().join("fill"), 4096);
        file.remove().await;
        file.create().unwrap();
        assert!(!file.path().exists());
        assert!(file.opened().is_ok(), "later writes still succeed");
    }
}
