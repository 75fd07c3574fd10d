//! This node's local disk store: content by digest, what is known of it, and how much room is left.
//!
//! ```text
//! <store>/lock                           held while a node runs
//! <store>/clean                          of an orderly stop: which files were verified; others are before their first use
//! <store>/records.redb                   access records, links seen, last known tags: may be lost at any time
//! <store>/blobs/<alg>/<aa>/<hex>         content, blobs and manifests alike
//! <store>/fills/<random>                 fills under way; removed at start
//! <store>/uploads/<session>/             sessions (`upload`)
//! <store>/pending/                       the journal (`replicate`)
//! ```
//!
//! It knows no bucket and no HTTP. It never removes sound content by itself: it says when room is short
//! ([`Store::pressure`]), and the cleaner chooses. Content that is damaged it removes as soon as it notices.
//!
//! None of these files is relied on: whatever others do to them, a node starts, and serves no wrong byte of a file whose
//! size or times show that it was changed. A file whose bytes decay and whose times do not is found by the scrub.
//!
//! `open`, `mark` and `scan` are its start, `adopt` how content comes in, `content`, `pieces` and `memory` how it is
//! read, `identity` how a file that was verified is known again, `verify` what happens first to any other, `scrub` how
//! all of them are verified again in time, `capacity` the accounts of room, `index`, `records` and
//! `recorder` what is known in memory and on disk, `expected` and `links` what is remembered of links, `inner` the steps
//! that keep all these at one.

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
pub use looks::Look;
pub use pin::Pin;
pub use pressure::Pressure;
pub use reservation::Reservation;
pub use scrub::{Scrubbed, Scrubbing, Step};
pub use tags_seen::KnownTag;
pub use usage::Usage;

use crate::observe::Metrics;
use crate::oci::{Digest, Repository, Tag};
use crate::run::Tasks;
use crate::run::clock::Clock;
use crate::store::bucket::ETag;
use crate::store::layout::LinkKind;
use bytes::Bytes;
use entrepot_config as config;
use index::Verdict;
use inner::{Inner, Removal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The local disk store. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl Store {
    /// Opens or makes the store, locks it, finds what is stored and forgets unfinished fills. Blocking.
    ///
    /// # Errors
    /// When another process holds it, or its folder cannot be made or locked. Nothing that lies in it is a reason.
    pub fn open(config: &config::Store, clock: Clock, metrics: Arc<Metrics>) -> Result<Store, StoreError> {
        Ok(Store { inner: Arc::new(Inner::open(config, clock, metrics)?) })
    }

    /// Writes records down and marks the store as closed in order. Nothing is stored after it. Blocking.
    ///
    /// # Errors
    /// When the mark cannot be written; records that cannot be written are logged and lost.
    pub fn close(&self) -> Result<(), StoreError> {
        self.inner.close()
    }

    /// Writes records down every now and then, in the background.
    pub fn start_recording(&self, tasks: &Tasks) {
        self.inner.keep_recording(tasks);
    }

    /// Size of stored content in bytes; `None` for what is not verified yet, which may have another. No I/O, and not
    /// counted as a use.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        self.inner.index.get(digest)?.sound().map(|identity| identity.size)
    }

    /// Whether content is stored, perhaps still to be verified: whether opening it is worth trying. No I/O, and not
    /// counted as a use.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.inner.index.get(digest).is_some_and(|entry| entry.verdict.get() != Some(&Verdict::Damaged))
    }

    /// Opens stored content for reading, and counts a use. A file that is not known to be the one that was verified is
    /// verified first. What does not match its digest or cannot be read is removed and `None`.
    ///
    /// # Errors
    /// When the disk fails; a caller may then fetch from the bucket instead.
    pub async fn open_content(&self, digest: &Digest) -> Result<Option<StoredContent>, StoreError> {
        self.inner.open_content(digest).await
    }

    /// The file of content may be damaged: it is verified before its next use.
    pub fn doubt(&self, digest: &Digest) {
        if let Some(entry) = self.inner.index.get(digest) {
            self.inner.doubt(digest, &entry);
        }
    }

    /// Whether content is stored and its file is what its digest says; a file that changed since it was verified is
    /// verified now. Counts no use.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn is_sound(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.inner.open_sound(digest).await?.is_some())
    }

    /// The whole of small stored content (a manifest), kept in memory; counts a use.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn read_small(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        self.inner.read_small(digest).await
    }

    /// Sets room aside, in bytes, and waits for the cleaner when there is not enough.
    ///
    /// # Errors
    /// `NoRoom` when cleaning cannot make that much, or nobody cleans.
    pub async fn reserve(&self, bytes: u64) -> Result<Reservation, StoreError> {
        self.inner.capacity.reserve(bytes).await
    }

    /// Accounts for bytes that are on disk already: sessions found at the start. Never refused.
    pub fn readmit(&self, bytes: u64) -> Reservation {
        self.inner.capacity.readmit(bytes)
    }

    /// Where stored content lies, for sending it to the bucket. Pin it first, so that it stays there, and open it
    /// ([`Store::open_content`]) before each attempt: that verifies a file that others have changed.
    pub fn content_path(&self, digest: &Digest) -> PathBuf {
        self.inner.folders.content(digest)
    }

    /// Moves a complete file, which was verified just now, into the store under its digest; in the place of the file of
    /// content that is stored already, because that may be damaged. The reservation becomes its size. `sync`: on disk,
    /// name and all, before this returns.
    ///
    /// # Errors
    /// When the disk fails; the file is then still at `file`, or in place.
    pub async fn adopt(
        &self,
        digest: &Digest,
        file: &Path,
        reservation: Reservation,
        sync: bool,
    ) -> Result<(), StoreError> {
        self.inner.adopt(*digest, file.to_owned(), reservation, sync).await
    }

    /// Stores content that is in memory and verified, as [`Store::adopt`] does. Not synced: the bucket has it.
    ///
    /// # Errors
    /// When there is no room or the disk fails.
    pub async fn insert(&self, digest: &Digest, content: Bytes) -> Result<(), StoreError> {
        self.inner.insert(*digest, content).await
    }

    /// The same for small content (a manifest), which is kept in memory as well.
    ///
    /// # Errors
    /// As [`Store::insert`].
    pub async fn insert_small(&self, digest: &Digest, content: Bytes) -> Result<(), StoreError> {
        self.inner.insert_small(*digest, content).await
    }

    /// Keeps content from being a victim.
    pub fn pin(&self, digest: &Digest) -> Pin {
        Pin::new(Arc::clone(&self.inner), *digest)
    }

    /// Removes content, unless it is pinned. Returns the bytes freed. Those who have it open go on reading.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn remove(&self, digest: &Digest) -> Result<u64, StoreError> {
        let Some(entry) = self.inner.index.get(digest) else { return Ok(0) };
        let digest = *digest;
        let removed = self.inner.run(move |inner| inner.remove(&digest, &entry, Removal::Asked)).await?;
        Ok(removed.unwrap_or_default())
    }

    /// Lets go of content whose file the bucket took as its object ([`crate::store::bucket::Capabilities`]): of one file
    /// two copies cannot be kept, and one that is damaged would be both. Not while it is pinned.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn let_go_if_shared(&self, digest: &Digest) -> Result<(), StoreError> {
        let digest = *digest;
        self.inner.run(move |inner| inner.let_go_if_shared(&digest)).await
    }

    /// The same for all that a start found so. Blocking.
    pub fn let_go_of_shared(&self) {
        self.inner.let_go_of_shared();
    }

    /// Begins to read stored content only to see whether it is sound, which is no use of it. `None` when it is not
    /// stored. Blocking.
    pub fn scrub(&self, digest: &Digest) -> Option<Box<Scrubbing>> {
        self.inner.scrub(digest)
    }

    /// The next contents to scrub, at most so many, in the order of digests after the last one that was scrubbed.
    pub fn to_scrub(&self, most: usize) -> Vec<Digest> {
        self.inner.to_scrub(most)
    }

    /// Remembers that this content was scrubbed, over an orderly stop too.
    pub fn scrubbed(&self, digest: &Digest) {
        self.inner.scrubbed(*digest);
    }

    /// Ends a round, and begins the next at the first content. Whether it was a whole one.
    pub fn end_round(&self) -> bool {
        self.inner.end_round()
    }

    /// How many contents are stored.
    pub fn count(&self) -> usize {
        self.inner.index.count()
    }

    /// What the cleaner chooses victims from: all that is stored.
    pub fn records(&self) -> Vec<Record> {
        self.inner.index.records()
    }

    /// Begins to remember the links of content that is about to be stored; what is not stored in the end is forgotten.
    pub fn expect(&self, digest: &Digest) -> Expected {
        Expected::new(Arc::clone(&self.inner), *digest)
    }

    /// Begins a read of the links of some content; to be called before the bucket is asked.
    pub fn look(&self, digest: &Digest) -> Look {
        self.inner.looks.begin(digest, &self.inner.clock)
    }

    /// Remembers that the repository links content that is stored or expected; nothing for what is neither, nor when a
    /// removal was seen since the look began.
    pub fn remember_link(&self, look: &Look, repository: &Repository, kind: LinkKind, digest: &Digest) {
        self.inner.remember_link(look, repository, kind, digest);
    }

    /// How long ago that was remembered.
    pub fn link_age(&self, repository: &Repository, kind: LinkKind, digest: &Digest) -> Option<Duration> {
        self.inner.link_age(repository, kind, digest)
    }

    /// Forgets all links of stored content: nothing is to rely on the bucket having it.
    pub fn forget_links(&self, digest: &Digest) {
        self.inner.forget_links(digest);
    }

    pub fn forget_link(&self, repository: &Repository, kind: LinkKind, digest: &Digest) {
        self.inner.forget_link(repository, kind, digest);
    }

    /// Begins a read or a write of a tag; to be called before the bucket is asked.
    pub fn look_at_tag(&self, repository: &Repository, tag: &Tag) -> Look {
        self.inner.tags.look(&(repository.clone(), tag.clone()), &self.inner.clock)
    }

    /// Remembers what the bucket said of a tag, unless a different value was remembered or the tag was forgotten since
    /// the look began.
    /// Returns whether it is remembered.
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

    /// Others had filled the disk when it was last asked, and have made room since.
    #[cfg(test)]
    pub(crate) fn saw_a_full_disk(&self) {
        self.inner.capacity.saw_a_full_disk();
    }

    /// Changes the thresholds of cleaning while the node runs.
    pub fn set_thresholds(&self, low_free: config::Threshold, target_free: config::Threshold) {
        self.inner.capacity.set_thresholds(low_free, target_free);
    }

    /// The seat of the cleaner. While somebody holds it, reservations without room wait for it; else they are refused.
    pub fn pressure(&self) -> Pressure {
        Pressure::new(Arc::clone(&self.inner.capacity))
    }

    /// A path for a new fill, at which nothing is. Should its folder be gone, `make_folder` makes it again.
    pub fn new_fill(&self) -> PathBuf {
        self.inner.new_fill()
    }

    /// The folder of upload sessions; it is there, made again should somebody have removed it.
    pub fn uploads_dir(&self) -> PathBuf {
        let folder = self.inner.folders.uploads();
        if !folder.is_dir()
            && let Err(error) = make_folder(&folder)
        {
            tracing::error!(%error, "the folder of upload sessions cannot be made");
        }
        folder
    }

    /// The folder of the journal. It is there, unless somebody removes it: `make_folder` makes it again.
    pub fn pending_dir(&self) -> PathBuf {
        self.inner.folders.pending()
    }
}
