//! Content comes into the store: complete and verified, by a rename.

use super::StoreError;
use super::folders::{remove_file, sync_folder};
use super::index::Entry;
use super::inner::Inner;
use super::memory::Kept;
use super::reservation::Reservation;
use crate::oci::Digest;
use crate::run::tasks::blocking;
use bytes::Bytes;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Inner {
    /// See `Store::adopt`.
    pub(super) async fn adopt(
        self: &Arc<Self>,
        digest: Digest,
        file: PathBuf,
        mut reservation: Reservation,
        sync: bool,
    ) -> Result<(), StoreError> {
        let looked_at = StoreError::io("look at", &file);
        let path = file.clone();
        let size = blocking(move || fs::metadata(path)).await.flatten().map_err(looked_at)?.len();
        if size > reservation.bytes() {
            reservation.grow(size - reservation.bytes()).await?;
        }
        self.run(move |inner| inner.adopt_now(&digest, &file, size, reservation, sync)).await
    }

    /// See `Store::insert`.
    pub(super) async fn insert(self: &Arc<Self>, digest: Digest, content: Bytes) -> Result<(), StoreError> {
        if self.index.get(&digest).is_some() {
            return Ok(());
        }
        let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
        let reservation = Arc::clone(&self.capacity).reserve(size).await?;
        self.run(move |inner| {
            let file = inner.new_fill();
            let stored = fs::write(&file, &content)
                .map_err(StoreError::io("write", &file))
                .and_then(|()| inner.adopt_now(&digest, &file, size, reservation, false));
            if stored.is_err() {
                // Best effort: what is left in the folder of fills is removed at the next start.
                let _ = remove_file(&file);
            }
            stored
        })
        .await
    }

    /// See `Store::insert_small`.
    pub(super) async fn insert_small(self: &Arc<Self>, digest: Digest, content: Bytes) -> Result<(), StoreError> {
        self.insert(digest, content.clone()).await?;
        if let Some(entry) = self.index.get(&digest) {
            self.memory.keep(digest, Kept { content, entry });
        }
        Ok(())
    }

    /// A path for a new fill.
    pub(super) fn new_fill(&self) -> PathBuf {
        self.folders.fills().join(uuid::Uuid::new_v4().simple().to_string())
    }

    /// Work on a blocking thread, which goes on to its end when the caller goes away.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Inner>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(self);
        let failed = StoreError::io("work in", self.folders.root());
        blocking(move || work(&inner)).await.map_err(failed)?
    }

    fn adopt_now(
        &self,
        digest: &Digest,
        file: &Path,
        size: u64,
        reservation: Reservation,
        sync: bool,
    ) -> Result<(), StoreError> {
        let _lock = self.locks.lock(digest);
        let target = self.folders.content(digest);
        if self.is_closed() {
            return Err(StoreError::io("store", &target)(io::Error::other("the store is closed")));
        }
        if let Some(entry) = self.index.get(digest)
            && entry.verified.get() == Some(&true)
        {
            // Stored already, though perhaps by a fill that did not sync it.
            if sync {
                sync_content(&target, &self.folders.shelf(digest))?;
            }
            return remove_file(file);
        }
        if sync {
            File::open(file).and_then(|open| open.sync_all()).map_err(StoreError::io("sync", file))?;
        }
        fs::rename(file, &target).map_err(StoreError::io("store", &target))?;
        self.replace_entry(digest, size, reservation);
        if sync { sync_folder(&self.folders.shelf(digest)) } else { Ok(()) }
    }

    /// The file is in place, perhaps instead of one that was not verified yet.
    fn replace_entry(&self, digest: &Digest, size: u64, reservation: Reservation) {
        let links = self.expectations.links(digest).unwrap_or_default();
        let entry = Arc::new(Entry::new(size, true, links));
        self.touch(&entry);
        if let Some(before) = self.index.get(digest) {
            before.mark_gone();
            self.capacity.removed(before.size);
        }
        self.index.insert(*digest, entry);
        reservation.become_content(size);
    }
}

/// Content and its name, on disk.
fn sync_content(file: &Path, shelf: &Path) -> Result<(), StoreError> {
    File::open(file).and_then(|open| open.sync_all()).map_err(StoreError::io("sync", file))?;
    sync_folder(shelf)
}
