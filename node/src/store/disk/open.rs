//! The start and the orderly end of a store.

use super::capacity::Capacity;
use super::error::StoreError;
use super::expected::Expectations;
use super::folders::{Folders, remove_file, sync_folder};
use super::frequency::{Frequency, RequestClock};
use super::index::{Entry, Index};
use super::inner::{Inner, Locks};
use super::looks::Looks;
use super::memory::Memory;
use super::recorder::Recorder;
use super::records::Records;
use super::scan;
use super::tags_seen::TagsSeen;
use crate::observe::Metrics;
use crate::oci::Digest;
use crate::run::clock::Clock;
use entrepot_config as config;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// What the mark of an orderly stop says.
enum Stop {
    /// All files are what their digests say, but for these, which nobody has used since an earlier unclean stop.
    Orderly {
        unverified: HashSet<Digest>,
    },
    Unclean,
}

impl Stop {
    fn verified(&self, digest: &Digest) -> bool {
        match self {
            Stop::Orderly { unverified } => !unverified.contains(digest),
            Stop::Unclean => false,
        }
    }
}

impl Inner {
    /// See `Store::open`.
    pub(super) fn open(config: &config::Store, clock: Clock, metrics: Arc<Metrics>) -> Result<Inner, StoreError> {
        let folders = Folders::open(&config.path)?;
        let stop = take_mark(&folders)?;
        scan::empty_fills(&folders)?;
        let root = File::open(folders.root()).map_err(StoreError::io("open", folders.root()))?;
        let bytes = config.capacity.map(config::ByteSize::get);
        let capacity = Capacity::new(root, bytes, config.low_free, config.target_free, Arc::clone(&metrics))
            .map_err(StoreError::io("ask for the free space of", folders.root()))?;
        let capacity = Arc::new(capacity);

        // Both are a walk over all that is stored, one over folders and one over the records' file.
        let path = folders.records();
        let (found, opened) = std::thread::scope(|scope| {
            let records = scope.spawn(|| Records::open(&path));
            (scan::content(&folders), records.join())
        });
        let (records, known) = opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).unzip();
        let known = known.unwrap_or_default();
        let requests = RequestClock::from_bits(known.requests);
        let index = Index::default();
        let (mut used, mut shared) = (0u64, Vec::new());
        for found in found? {
            let entry = Entry::new(found.size, stop.verified(&found.digest), Arc::default());
            entry.restore(found.written, Frequency::NEVER.used(requests.now()));
            used = used.saturating_add(found.size);
            if found.shared {
                shared.push(found.digest);
            }
            index.insert(found.digest, Arc::new(entry));
        }
        capacity.found(used);
        let inner = Inner {
            folders,
            clock,
            metrics,
            requests,
            index,
            expectations: Expectations::default(),
            capacity,
            memory: Memory::new(),
            looks: Looks::new(),
            tags: TagsSeen::new(),
            recorder: Recorder::new(records),
            locks: Locks::new(),
            closed: AtomicBool::new(false),
            shared: Mutex::new(shared),
        };
        inner.restore(known);
        Ok(inner)
    }

    /// See `Store::close`.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        self.closed.store(true, SeqCst);
        // Whoever began to store something before that is done after this; it is synced below.
        self.locks.pass_all();
        self.write_records();
        let root = self.folders.root();
        // Fills are stored without a sync. The mark says that they are on disk, so now they have to be.
        File::open(root)
            .and_then(|root| rustix::fs::syncfs(root).map_err(io::Error::from))
            .map_err(StoreError::io("sync", root))?;
        let unverified = self.index.all().into_iter().filter(|(_, entry)| entry.verified.get() != Some(&true));
        let text: String = unverified.map(|(digest, _)| format!("{digest}\n")).collect();
        write_mark(&self.folders.clean(), &text)?;
        sync_folder(root)
    }
}

/// Reads the mark and removes it: from now on a stop is unclean, until `close` says otherwise.
fn take_mark(folders: &Folders) -> Result<Stop, StoreError> {
    let path = folders.clean();
    let stop = match fs::read_to_string(&path) {
        Ok(text) => match text.lines().map(Digest::parse).collect() {
            Ok(unverified) => Stop::Orderly { unverified },
            Err(_) => Stop::Unclean,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Stop::Unclean,
        Err(error) => return Err(StoreError::io("read", &path)(error)),
    };
    remove_file(&path)?;
    sync_folder(folders.root())?;
    Ok(stop)
}

fn write_mark(path: &Path, text: &str) -> Result<(), StoreError> {
    File::create(path)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(StoreError::io("write", path))
}
