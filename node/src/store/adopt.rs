//! Content enters the store complete and verified, by a rename.

use super::StoreError;
use super::capacity::Reservation;
use super::contents::Contents;
use super::folders::{make_folder, remove_file, sync_folder};
use super::identity::Identity;
use super::index::Entry;
use super::inner::Inner;
use super::memory::Kept;
use bytes::Bytes;
use entrepot_oci::Digest;
use entrepot_runtime::tasks::blocking;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Contents {
    /// Moves a complete file that was just verified into the store under its digest. It replaces
    /// the file of content that is already stored, because that file may be damaged. The
    /// reservation becomes the size of the content. `sync`: the file and its name are on disk when
    /// this returns.
    ///
    /// # Errors
    /// If the disk fails. The file is then still at `file`, or in place.
    pub async fn adopt(
        &self,
        digest: &Digest,
        file: &Path,
        mut reservation: Reservation,
        sync: bool,
    ) -> Result<(), StoreError> {
        let (digest, file) = (*digest, file.to_owned());
        let looked_at = StoreError::io("stat", &file);
        let path = file.clone();
        let size = blocking(move || fs::metadata(path)).await.flatten().map_err(looked_at)?.len();
        if size > reservation.bytes() {
            reservation.grow(size - reservation.bytes()).await?;
        }
        self.inner.run(move |inner| inner.adopt_now(&digest, &file, reservation, sync)).await
    }

    /// Stores verified content from memory, as [`Contents::adopt`] does. Not synced, because the
    /// bucket has the content.
    ///
    /// # Errors
    /// If there is not enough space, or the disk fails.
    pub async fn insert(&self, digest: &Digest, content: Bytes) -> Result<(), StoreError> {
        let digest = *digest;
        let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
        let reservation = Arc::clone(&self.inner.capacity).reserve(size).await?;
        self.inner
            .run(move |inner| {
                let file = inner.new_fill();
                let stored = write(&file, &content)
                    .map_err(StoreError::io("write", &file))
                    .and_then(|()| inner.adopt_now(&digest, &file, reservation, false));
                if stored.is_err() {
                    // Best effort: the next start removes what is left in the directory of incomplete
                    // downloads.
                    let _ = remove_file(&file);
                }
                stored
            })
            .await
    }

    /// The same for small content (a manifest), which is also kept in memory.
    ///
    /// # Errors
    /// As [`Contents::insert`].
    pub async fn insert_small(&self, digest: &Digest, content: Bytes) -> Result<(), StoreError> {
        self.insert(digest, content.clone()).await?;
        if let Some(entry) = self.inner.index.get(digest) {
            self.inner.memory.keep(*digest, Kept { content, entry });
        }
        Ok(())
    }
}

impl Inner {
    /// A path for a new incomplete download.
    pub(super) fn new_fill(&self) -> PathBuf {
        self.folders.fills().join(uuid::Uuid::new_v4().simple().to_string())
    }

    /// Runs work on a blocking thread. The work continues to its end if the caller is dropped.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Inner>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(self);
        let failed = StoreError::io("access", self.folders.root());
        blocking(move || work(&inner)).await.map_err(failed)?
    }

    fn adopt_now(&self, digest: &Digest, file: &Path, reservation: Reservation, sync: bool) -> Result<(), StoreError> {
        let _lock = self.locks.lock(digest);
        let target = self.folders.content(digest);
        if self.is_closed() {
            return Err(StoreError::io("store", &target)(io::Error::other("the store is closed")));
        }
        if sync {
            File::open(file).and_then(|open| open.sync_all()).map_err(StoreError::io("sync", file))?;
        }
        // An existing file is replaced, because the new one was just verified and the old one may
        // be damaged.
        self.folders.place(file, digest)?;
        // Read after the rename, because the rename changes the change time of the file.
        let placed = fs::metadata(&target).map_err(StoreError::io("stat", &target));
        let stored = placed.map(|placed| self.replace_entry(digest, Identity::of(&placed), reservation));
        if stored.is_err() {
            self.forget_replaced(digest);
        }
        stored?;
        if sync { sync_folder(&self.folders.shelf(digest)) } else { Ok(()) }
    }

    /// Updates the index: the file is in place, perhaps instead of another one. Keeps the access
    /// statistics and the known links of the content.
    fn replace_entry(&self, digest: &Digest, placed: Identity, reservation: Reservation) {
        let before = self.index.get(digest);
        let links = self.in_flight.links(digest);
        let links = links.or_else(|| before.as_ref().map(|before| Arc::clone(&before.links))).unwrap_or_default();
        let entry = match &before {
            Some(before) => before.renewed(placed.size, Some(placed), links),
            None => Entry::new(placed.size, Some(placed), links),
        };
        let entry = Arc::new(entry);
        self.touch(&entry);
        self.index.insert(*digest, entry);
        if let Some(before) = before {
            before.mark_gone();
            self.capacity.removed(before.size);
        }
        reservation.become_content(placed.size);
    }

    /// Marks the entry of a replaced file as unverified, because it no longer describes the file in
    /// place.
    fn forget_replaced(&self, digest: &Digest) {
        if let Some(before) = self.index.get(digest) {
            self.doubt(digest, &before);
        }
    }
}

/// Writes content to a file among the incomplete downloads. Creates their directory again if it was
/// removed.
fn write(file: &Path, content: &[u8]) -> io::Result<()> {
    fs::write(file, content).or_else(|error| match file.parent() {
        Some(folder) if make_folder(folder).is_ok_and(|made| made) => fs::write(file, content),
        _ => Err(error),
    })
}
