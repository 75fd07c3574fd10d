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
//! space is short ([`Room::cleaner`]), and the cleaner chooses. It removes damaged content as
//! soon as it notices the damage.
//!
//! It trusts none of these files. Whatever other programs do to them, a node starts, and it serves
//! no wrong byte of a file whose size or times show a change. The scrub finds files whose bytes
//! decay without a change of their times.
//!
//! | modules | subject |
//! |---|---|
//! | `open`, `mark`, `scan` | the start and the clean shutdown |
//! | `contents`, `room`, `known_links`, `known_tags`, `dirs`, `scrub` | what other modules use: a handle for each subject |
//! | `cleaner_handle`, `unused_sessions` | what the cleaner uses in addition |
//! | `adopt` | how content enters the store |
//! | `content`, `pieces`, `readers`, `memory`, `read` | how content is read |
//! | `identity`, `verify`, `round` | recognizing verified files, verifying others, the progress of the scrub |
//! | `capacity`, `usage` | the accounting of space |
//! | `index`, `frequency`, `pin` | metadata in memory |
//! | `records`, `recorder`, `recording` | metadata on disk |
//! | `expected`, `in_flight`, `link_cache`, `tag_cache`, `looks` | links and tags that were seen |
//! | `inner`, `folders` | the steps that keep all of these consistent, and the files |

mod adopt;
mod capacity;
mod cleaner_handle;
mod content;
mod contents;
mod dirs;
mod error;
mod expected;
mod folders;
mod frequency;
mod identity;
mod in_flight;
mod index;
mod inner;
mod known_links;
mod known_tags;
mod link_cache;
mod looks;
mod mark;
mod memory;
mod open;
pub(crate) mod pieces;
mod pin;
mod read;
mod readers;
mod recorder;
mod recording;
mod records;
mod room;
mod round;
mod scan;
mod scrub;
mod tag_cache;
mod unused_sessions;
mod usage;
mod verify;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use capacity::Reservation;
pub use cleaner_handle::CleanerHandle;
pub use content::StoredContent;
pub use contents::Contents;
pub use dirs::Dirs;
pub use error::StoreError;
pub use expected::Expected;
pub(crate) use folders::make_folder;
pub use frequency::Frequency;
#[cfg(test)]
pub(crate) use frequency::RequestClock;
pub use index::Record;
pub use known_links::KnownLinks;
pub use known_tags::KnownTags;
pub use link_cache::LinkKind;
pub use looks::Look;
pub use pin::Pin;
pub use room::Room;
pub use scrub::{Scrub, Scrubbed, Scrubbing, Step};
pub use tag_cache::KnownTag;
pub use unused_sessions::UnusedSessions;
pub use usage::Usage;

use crate::observe::Metrics;
use entrepot_config as config;
use entrepot_runtime::Tasks;
use entrepot_runtime::clock::Clock;
use inner::Inner;
use std::sync::Arc;

/// The local disk store, by subject. Clones share the state.
#[derive(Clone)]
pub struct Store {
    /// Content by digest.
    pub contents: Contents,
    /// Reservations of space.
    pub room: Room,
    /// Links that were seen in the bucket.
    pub links: KnownLinks,
    /// Tags as last read from the bucket.
    pub tags: KnownTags,
    /// Directories of the flows.
    pub dirs: Dirs,
    /// Verifies stored content again.
    pub scrub: Scrub,
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
        let inner = Arc::new(Inner::open(config, clock, metrics)?);
        let shared = || Arc::clone(&inner);
        Ok(Store {
            contents: Contents { inner: shared() },
            room: Room { inner: shared() },
            links: KnownLinks { inner: shared() },
            tags: KnownTags { inner: shared() },
            dirs: Dirs { inner: shared() },
            scrub: Scrub { inner: shared() },
            inner,
        })
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
}
