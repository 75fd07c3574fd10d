//! The file of a fill.

use crate::run::tasks;
use bytes::Bytes;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
}

/// A file of known size that is written in any order and read meanwhile.
#[derive(Clone, Debug)]
pub(in crate::fetch) struct FillFile {
    path: PathBuf,
    file: Arc<File>,
}

impl FillFile {
    /// Makes the file with all its room on disk, so that a full disk is found before the first byte is served.
    ///
    /// # Errors
    /// When the disk is full or fails; nothing is left behind then.
    pub(in crate::fetch) async fn create(path: PathBuf, size: u64) -> io::Result<FillFile> {
        tasks::blocking(move || {
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
            let file = FillFile { path, file: Arc::new(file) };
            file.preallocate(size).inspect_err(|_| file.unlink())?;
            Ok(file)
        })
        .await?
    }

    /// A fill into a file that a test chose.
    #[cfg(test)]
    pub(in crate::fetch) fn over(path: PathBuf, file: File) -> FillFile {
        FillFile { path, file: Arc::new(file) }
    }

    pub(in crate::fetch) fn path(&self) -> &Path {
        &self.path
    }

    pub(in crate::fetch) fn file(&self) -> &Arc<File> {
        &self.file
    }

    fn preallocate(&self, size: u64) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, size) {
            // Without it a full disk is found when it is written to, and readers go on without the disk.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.file.set_len(size),
            done => Ok(done?),
        }
    }

    /// Removes the file; open readers keep it.
    pub(in crate::fetch) async fn remove(&self) {
        let file = self.clone();
        if let Err(error) = tasks::blocking(move || file.unlink()).await {
            tracing::warn!(path = %self.path.display(), %error, "an unfinished fill stays until the next start");
        }
    }

    fn unlink(&self) {
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "an unfinished fill stays until the next start");
        }
    }

    /// Writes a batch where it belongs, without copying it together. Blocks.
    pub(super) fn write(&self, batch: &Batch) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = batch.pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut left = slices.as_mut_slice();
        let mut at = batch.at;
        while !left.is_empty() {
            match rustix::io::pwritev(&self.file, left, at) {
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
