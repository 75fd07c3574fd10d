//! The statistics file of a store, and what waits to be deleted from it.

use super::records::Records;
use entrepot_oci::Digest;
use parking_lot::Mutex;

/// The statistics file, if there is one, and the digests to delete from it.
pub(super) struct Recorder {
    /// Held while a batch is written, so batches stay in order.
    pub(super) records: Mutex<Option<Records>>,
    removed: Mutex<Vec<Digest>>,
}

impl Recorder {
    pub(super) fn new(records: Option<Records>) -> Recorder {
        Recorder { records: Mutex::new(records), removed: Mutex::default() }
    }

    /// Records that content was removed, so its statistics are deleted too.
    pub(super) fn removed(&self, digest: Digest) {
        self.removed.lock().push(digest);
    }

    pub(super) fn take_removed(&self) -> Vec<Digest> {
        std::mem::take(&mut *self.removed.lock())
    }
}
