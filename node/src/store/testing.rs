//! Shared helpers for tests of the store and of the cleaner.

use super::Store;
use crate::observe::Metrics;
use bytes::Bytes;
use entrepot_config::{self as config, ByteSize, Threshold};
use entrepot_oci::{Algorithm, Digest};
use entrepot_runtime::Clock;
use entrepot_runtime::clock::Timestamp;
use futures::TryStreamExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// A store in its own directory, with a clock that stands still.
pub(crate) struct Fixture {
    pub(crate) folder: TempDir,
    pub(crate) config: config::Store,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
}

impl Fixture {
    /// `capacity`, `low` and `target` in bytes.
    pub(crate) fn new(capacity: u64, low: u64, target: u64) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let config = config::Store {
            path: folder.path().join("store"),
            capacity: Some(ByteSize::bytes(capacity)),
            low_free: Threshold::Bytes(ByteSize::bytes(low)),
            target_free: Threshold::Bytes(ByteSize::bytes(target)),
            ..config::Store::default()
        };
        let clock = Clock::manual(Timestamp(1_770_000_000_000));
        Fixture { folder, config, clock, metrics: Arc::new(Metrics::new().unwrap()) }
    }

    /// A store with space for everything.
    pub(crate) fn roomy() -> Fixture {
        Fixture::new(1 << 30, 0, 0)
    }

    pub(crate) fn open(&self) -> Store {
        Store::open(&self.config, self.clock.clone(), Arc::clone(&self.metrics)).unwrap()
    }

    /// The path at which the store keeps content.
    pub(crate) fn file_of(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.config.path.join("blobs").join(digest.algorithm().name()).join(&hex[..2]).join(hex)
    }

    pub(crate) fn evictions(&self, reason: &str) -> u64 {
        self.metrics.store.evictions.with_label_values(&[reason]).get()
    }
}

/// Changes one byte of a file without changing its size. The times change too, as they do when time
/// passes between the writing of content and its damage: the kernel's time stamps are a few
/// milliseconds apart.
pub(crate) fn corrupt(file: &Path) {
    let open = std::fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    open.read_exact_at(&mut byte, 5).unwrap();
    open.write_all_at(&[byte[0] ^ 1], 5).unwrap();
    touch(file);
}

/// Sets other times on a file.
pub(crate) fn touch(file: &Path) {
    let open = std::fs::File::options().write(true).open(file).unwrap();
    let before = open.metadata().unwrap().modified().unwrap();
    open.set_modified(before + std::time::Duration::from_secs(1)).unwrap();
}

/// Content of a given size, different for each seed, and its digest.
pub(crate) fn content(seed: u64, size: usize) -> (Digest, Bytes) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes = (0..size).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    });
    let content = Bytes::from(bytes.collect::<Vec<u8>>());
    (Digest::of(Algorithm::Sha256, &content), content)
}

/// Stores content as a download does.
pub(crate) async fn store_content(store: &Store, digest: &Digest, content: &Bytes) -> Result<(), super::StoreError> {
    let mut reservation = store.room.reserve(size(content)).await?;
    let file = store.dirs.new_fill();
    std::fs::write(&file, content).unwrap();
    reservation.wrote(size(content));
    store.contents.adopt(digest, &file, reservation, false).await
}

/// The whole of stored content; `None` if it is not stored.
pub(crate) async fn read(store: &Store, digest: &Digest) -> Option<Vec<u8>> {
    let content = store.contents.open(digest).await.unwrap()?;
    let pieces: Vec<Bytes> = content.stream(0..content.size).try_collect().await.unwrap();
    Some(pieces.concat())
}

pub(crate) fn size(content: &Bytes) -> u64 {
    u64::try_from(content.len()).unwrap()
}

/// Number of files in a directory, without those in its subdirectories.
pub(crate) fn files_in(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}
