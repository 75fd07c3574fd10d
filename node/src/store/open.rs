//! The start and the clean shutdown of a store.

use super::capacity::Capacity;
use super::error::StoreError;
use super::folders::{Folders, make_way_for_file};
use super::frequency::{Frequency, RequestClock};
use super::in_flight::InFlight;
use super::index::{Entry, Index};
use super::inner::{Inner, Locks};
use super::looks::Looks;
use super::mark::Mark;
use super::memory::Memory;
use super::readers::Readers;
use super::recorder::Recorder;
use super::records::Records;
use super::scan::{self, Found};
use super::tag_cache::TagCache;
use crate::observe::Metrics;
use entrepot_config as config;
use entrepot_runtime::clock::Clock;
use parking_lot::Mutex;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

impl Inner {
    /// See [`super::Store::open`].
    pub(super) fn open(config: &config::Store, clock: Clock, metrics: Arc<Metrics>) -> Result<Inner, StoreError> {
        let folders = Folders::open(&config.path)?;
        let mark = Mark::take(&folders);
        scan::empty_fills(&folders);
        let root = File::open(folders.root()).map_err(StoreError::io("open", folders.root()))?;
        let bytes = config.capacity.map(config::ByteSize::get);
        let capacity = Capacity::new(root, bytes, config.low_free, config.target_free, Arc::clone(&metrics))
            .map_err(StoreError::io("read the free space of", folders.root()))?;
        let capacity = Arc::new(capacity);

        // Both steps walk over all stored content, one over the directories and one over the
        // statistics file.
        let path = folders.records();
        if let Err(error) = make_way_for_file(&path) {
            tracing::error!(%error, "continuing without access statistics; the eviction order is lost at a restart");
        }
        let (found, opened) = std::thread::scope(|scope| {
            let records = scope.spawn(|| Records::open(&path));
            (scan::content(&folders), records.join())
        });
        let (records, known) = opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).unzip();
        let known = known.unwrap_or_default();
        let requests = RequestClock::from_bits(known.requests);
        let shared = found.iter().filter(|found| found.shared).map(|found| found.digest).collect();
        capacity.found(found.iter().fold(0, |used, found| used.saturating_add(found.identity.size)));
        let index = indexed(&found, &mark, &requests);
        let inner = Inner {
            folders,
            clock,
            metrics,
            requests,
            index,
            in_flight: InFlight::default(),
            capacity,
            memory: Memory::new(),
            readers: Readers::default(),
            looks: Looks::new(),
            tags: TagCache::new(),
            recorder: Recorder::new(records),
            locks: Locks::new(),
            closed: AtomicBool::new(false),
            shared: Mutex::new(shared),
            round: Mutex::new(mark.round),
        };
        inner.restore(known);
        Ok(inner)
    }

    /// See [`super::Store::close`].
    pub(super) fn close(&self) -> Result<(), StoreError> {
        self.closed.store(true, SeqCst);
        // Waits for stores that started before `closed` was set; they are synced below.
        self.locks.wait_for_holders();
        self.write_records();
        let root = self.folders.root();
        // Downloads are stored without a sync. The mark says that they are on disk, so they must be
        // synced now.
        File::open(root)
            .and_then(|root| rustix::fs::syncfs(root).map_err(io::Error::from))
            .map_err(StoreError::io("sync", root))?;
        let sound = self.index.all().into_iter().filter_map(|(digest, entry)| Some((digest, entry.sound()?)));
        Mark::write(&self.folders, sound, self.round().reached())
    }
}

/// The index of the content that was found. The mark says which files are known to be verified.
fn indexed(found: &[Found], mark: &Mark, requests: &RequestClock) -> Index {
    let index = Index::default();
    for found in found {
        let verified = mark.sound(&found.digest, &found.identity);
        let entry = Entry::new(found.identity.size, verified, Arc::default());
        entry.restore(found.written, Frequency::NEVER.used(requests.now()));
        index.insert(found.digest, Arc::new(entry));
    }
    index
}
