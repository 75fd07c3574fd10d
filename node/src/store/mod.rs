//! This node's local disk store: content by digest, its metadata, and the accounting of free space.
//!
//! ```text
//! <store>/lock                           held while a node runs
//! <store>/clean                          written by a clean shutdown: the files that were verified
//! <store>/records.redb                   access statistics, links and tags seen; may be lost
//! <store>/blobs/<alg>/<aa>/<hex>         content, blobs and manifests alike
//! <store>/fills/<random>                 incomplete downloads; removed at the start
//! <store>/uploads/<session>/             sessions (`upload`)
//! <store>/pending/                       the journal (`replicate`)
//! ```
//!
//! The store knows nothing of buckets and HTTP. It never evicts content by itself: it reports when
//! space is short ([`Store::pressure`]), and the cleaner chooses. It removes damaged content as
//! soon as it notices the damage.
//!
//! It trusts none of these files. Whatever other programs do to them, a node starts, and it serves
//! no wrong byte of a file whose size or times show a change. The scrub finds files whose bytes
//! decay without a change of their times.
//!
//! | modules | subject |
//! |---|---|
//! | `open`, `mark`, `scan` | the start and the clean shutdown |
//! | `adopt` | how content enters the store |
//! | `content`, `pieces`, `memory`, `read` | how content is read |
//! | `identity`, `verify`, `scrub` | recognizing verified files, verifying others, verifying all again over time |
//! | `capacity`, `reservation`, `pressure` | the accounting of space |
//! | `index`, `records`, `recorder` | metadata in memory and on disk |
//! | `expected`, `links` | links of content |
//! | `inner` | the steps that keep all of these consistent |

mod adopt;
mod capacity;
mod content;
mod error;
mod expected;
mod folders;
mod frequency;
mod identity;
mod index;
mod inner;
mod links;
mod links_seen;
mod looks;
mod mark;
mod memory;
mod open;
pub(crate) mod pieces;
mod pin;
mod pressure;
mod read;
mod recorder;
mod records;
mod reservation;
mod scan;
mod scrub;
mod tags_seen;
mod usage;
mod verify;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use content::StoredContent;
pub use error::StoreError;
pub use expected::Expected;
pub(crate) use folders::make_folder;
pub use frequency::Frequency;
#[cfg(test)]
pub(crate) use frequency::RequestClock;
pub use index::Record;
pub use links_seen::LinkKind;
pub use looks::Look;
pub use pin::Pin;
pub use pressure::Pressure;
pub use reservation::Reservation;
pub use scrub::{Scrubbed, Scrubbing, Step};
pub use tags_seen::KnownTag;
pub use usage::Usage;

use crate::observe::Metrics;
use entrepot_bucket::ETag;
use entrepot_oci::{Digest, Repository, Tag};
use entrepot_runtime::Tasks;
use entrepot_runtime::clock::Clock;

use bytes::Bytes;
use entrepot_config as config;
use index::Verdict;
use inner::{Inner, Removal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The local disk store. Clones share the state.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl Store {
    /// Opens or creates the store, locks it, finds the stored content and removes incomplete
    /// downloads. Blocking.
    ///
    /// # Errors
    /// If another process uses the store, or its directory cannot be created or locked. No content
    /// of the directory causes an error.
    pub fn open(config: &config::Store, clock: Clock, metrics: Arc<Metrics>) -> Result<Store, StoreError> {
        Ok(Store { inner: Arc::new(Inner::open(config, clock, metrics)?) })
    }

    /// Writes the access statistics and marks the store as closed cleanly. Nothing is stored
    /// afterwards. Blocking.
    ///
    /// # Errors
    /// If the mark cannot be written. Statistics that cannot be written are logged and lost.
    pub fn close(&self) -> Result<(), StoreError> {
        self.inner.close()
    }

    /// Writes the access statistics periodically, in the background.
    pub fn start_recording(&self, tasks: &Tasks) {
        self.inner.keep_recording(tasks);
    }

    /// Size of stored content in bytes; `None` if the content is not verified yet, because its size
    /// may be different. No I/O, and not counted as a use.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        self.inner.index.get(digest)?.sound().map(|identity| identity.size)
    }

    /// Whether content is stored, even if it is not verified yet. Tells whether opening it is worth
    /// trying. No I/O, and not counted as a use.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.inner.index.get(digest).is_some_and(|entry| entry.verdict.get() != Some(&Verdict::Damaged))
    }

    /// Opens stored content for reading, and counts a use. A file that is not known to be verified
    /// is verified first. Content that does not match its digest or cannot be read is removed, and
    /// the result is `None`.
    ///
    /// # Errors
    /// If the disk fails. The caller may then read from the bucket instead.
    pub async fn open_content(&self, digest: &Digest) -> Result<Option<StoredContent>, StoreError> {
        self.inner.open_content(digest).await
    }

    /// Marks the file of content as possibly damaged, so it is verified before its next use.
    pub fn doubt(&self, digest: &Digest) {
        if let Some(entry) = self.inner.index.get(digest) {
            self.inner.doubt(digest, &entry);
        }
    }

    /// Whether content is stored and its file matches its digest. A file that changed since it was
    /// verified is verified now. Counts no use.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn is_sound(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.inner.open_sound(digest).await?.is_some())
    }

    /// Returns the whole of small stored content (a manifest), and keeps it in memory. Counts a
    /// use.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn read_small(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        self.inner.read_small(digest).await
    }

    /// Reserves space in bytes, and waits for the cleaner if there is not enough.
    ///
    /// # Errors
    /// `NoRoom` if eviction cannot free that much, or if no cleaner runs.
    pub async fn reserve(&self, bytes: u64) -> Result<Reservation, StoreError> {
        self.inner.capacity.reserve(bytes).await
    }

    /// Reserves bytes that are on disk already, for sessions found at the start. Never fails.
    pub fn readmit(&self, bytes: u64) -> Reservation {
        self.inner.capacity.readmit(bytes)
    }

    /// The path of stored content, for sending it to the bucket. Pin the content first, so that it
    /// stays there, and open it ([`Store::open_content`]) before each attempt, which verifies a
    /// file that another program has changed.
    pub fn content_path(&self, digest: &Digest) -> PathBuf {
        self.inner.folders.content(digest)
    }

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
        reservation: Reservation,
        sync: bool,
    ) -> Result<(), StoreError> {
        self.inner.adopt(*digest, file.to_owned(), reservation, sync).await
    }

    /// Stores verified content from memory, as [`Store::adopt`] does. Not synced, because the
    /// bucket has the content.
    ///
    /// # Errors
    /// If there is not enough space, or the disk fails.
    pub async fn insert(&self, digest: &Digest, content: Bytes) -> Result<(), StoreError> {
        self.inner.insert(*digest, content).await
    }

    /// The same for small content (a manifest), which is also kept in memory.
    ///
    /// # Errors
    /// As [`Store::insert`].
    pub async fn insert_small(&self, digest: &Digest, content: Bytes) -> Result<(), StoreError> {
        self.inner.insert_small(*digest, content).await
    }

    /// Protects content from eviction while the pin lives.
    pub fn pin(&self, digest: &Digest) -> Pin {
        Pin::new(Arc::clone(&self.inner), *digest)
    }

    /// Removes content, unless it is pinned. Returns the bytes freed. Open readers continue to
    /// read.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn remove(&self, digest: &Digest) -> Result<u64, StoreError> {
        let Some(entry) = self.inner.index.get(digest) else { return Ok(0) };
        let digest = *digest;
        let removed = self.inner.run(move |inner| inner.remove(&digest, &entry, Removal::Asked)).await?;
        Ok(removed.unwrap_or_default())
    }

    /// Removes content whose file has become the object in the bucket
    /// ([`entrepot_bucket::Capabilities`]): one file is not two copies, and damage to it would
    /// affect both. Not while the content is pinned.
    ///
    /// # Errors
    /// If the disk fails.
    pub async fn let_go_if_shared(&self, digest: &Digest) -> Result<(), StoreError> {
        let digest = *digest;
        self.inner.run(move |inner| inner.let_go_if_shared(&digest)).await
    }

    /// Does the same for all such content that was found at the start. Blocking.
    pub fn let_go_of_shared(&self) {
        self.inner.let_go_of_shared();
    }

    /// Starts to read stored content only to check it, which counts no use. `None` if it is not
    /// stored. Blocking.
    pub fn scrub(&self, digest: &Digest) -> Option<Box<Scrubbing>> {
        self.inner.scrub(digest)
    }

    /// The next digests to scrub, at most `most`, in ascending order after the last one scrubbed.
    pub fn to_scrub(&self, most: usize) -> Vec<Digest> {
        self.inner.to_scrub(most)
    }

    /// Records that this content was scrubbed. A clean shutdown keeps this.
    pub fn scrubbed(&self, digest: &Digest) {
        self.inner.scrubbed(*digest);
    }

    /// Ends a round; the next one starts at the first digest. Returns whether the round covered all
    /// content.
    pub fn end_round(&self) -> bool {
        self.inner.end_round()
    }

    /// The number of stored items.
    pub fn count(&self) -> usize {
        self.inner.index.count()
    }

    /// All stored content with its access statistics: the input of the eviction order.
    pub fn records(&self) -> Vec<Record> {
        self.inner.index.records()
    }

    /// Starts to remember the links of content that is about to be stored. They are forgotten if
    /// the content is not stored in the end.
    pub fn expect(&self, digest: &Digest) -> Expected {
        Expected::new(Arc::clone(&self.inner), *digest)
    }

    /// Starts a read of the links of some content. Call it before asking the bucket.
    pub fn look(&self, digest: &Digest) -> Look {
        self.inner.looks.begin(digest, &self.inner.clock)
    }

    /// Remembers that the repository links content that is stored or expected. Does nothing for
    /// other content, or if a removal was seen since the look started.
    pub fn remember_link(&self, look: &Look, repository: &Repository, kind: LinkKind, digest: &Digest) {
        self.inner.remember_link(look, repository, kind, digest);
    }

    /// Time since that link was last seen.
    pub fn link_age(&self, repository: &Repository, kind: LinkKind, digest: &Digest) -> Option<Duration> {
        self.inner.link_age(repository, kind, digest)
    }

    /// Forgets all links of stored content, so nothing assumes that the bucket has it.
    pub fn forget_links(&self, digest: &Digest) {
        self.inner.forget_links(digest);
    }

    pub fn forget_link(&self, repository: &Repository, kind: LinkKind, digest: &Digest) {
        self.inner.forget_link(repository, kind, digest);
    }

    /// Starts a read or a write of a tag. Call it before asking the bucket.
    pub fn look_at_tag(&self, repository: &Repository, tag: &Tag) -> Look {
        self.inner.tags.look(&(repository.clone(), tag.clone()), &self.inner.clock)
    }

    /// Remembers the bucket's value of a tag, unless a different value was remembered or the tag
    /// was forgotten since the look started. Returns whether it is remembered.
    pub fn remember_tag(&self, look: &Look, repository: &Repository, tag: &Tag, digest: Digest, etag: ETag) -> bool {
        self.inner.tags.remember(look, (repository.clone(), tag.clone()), KnownTag { digest, etag, seen: look.at })
    }

    pub fn known_tag(&self, repository: &Repository, tag: &Tag) -> Option<KnownTag> {
        self.inner.tags.get(repository, tag)
    }

    pub fn forget_tag(&self, repository: &Repository, tag: &Tag) {
        self.inner.tags.forget((repository.clone(), tag.clone()));
    }

    pub fn usage(&self) -> Usage {
        self.inner.capacity.usage()
    }

    /// Pretends that the disk was full when it was last checked, and that other programs have freed
    /// space since.
    #[cfg(test)]
    pub(crate) fn saw_a_full_disk(&self) {
        self.inner.capacity.saw_a_full_disk();
    }

    /// Changes the thresholds of eviction while the node runs.
    pub fn set_thresholds(&self, low_free: config::Threshold, target_free: config::Threshold) {
        self.inner.capacity.set_thresholds(low_free, target_free);
    }

    /// The cleaner's handle. While it exists, reservations that do not fit wait for the cleaner;
    /// otherwise they fail.
    pub fn pressure(&self) -> Pressure {
        Pressure::new(Arc::clone(&self.inner.capacity))
    }

    /// An unused path for a new download. If its directory was removed, `make_folder` creates it
    /// again.
    pub fn new_fill(&self) -> PathBuf {
        self.inner.new_fill()
    }

    /// The directory of upload sessions. It is created again if it was removed.
    pub fn uploads_dir(&self) -> PathBuf {
        let folder = self.inner.folders.uploads();
        if !folder.is_dir()
            && let Err(error) = make_folder(&folder)
        {
            tracing::error!(%error, "cannot create the directory of upload sessions");
        }
        folder
    }

    /// The directory of the journal. If it was removed, `make_folder` creates it again.
    pub fn pending_dir(&self) -> PathBuf {
        self.inner.folders.pending()
    }
}
