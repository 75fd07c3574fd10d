//! Blobs that this node has acknowledged and not yet made durable, by repository. Their links are
//! not in the bucket yet, but this node serves them.

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use entrepot_oci::{Digest, Repository};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

type Name = (Repository, Digest);

/// The pending blobs of this node. Clones share the state.
#[derive(Clone, Default)]
pub struct PendingHere(Arc<Blobs>);

#[derive(Default)]
struct Blobs {
    counts: DashMap<Name, usize>,
    /// Number of marks. It is usually 0, and then the map is not read.
    marks: AtomicUsize,
}

/// Marks a blob as pending for as long as this value lives.
pub struct PendingMark {
    pending: PendingHere,
    name: Name,
}

impl PendingHere {
    /// Marks a blob as pending. One blob may be marked several times.
    pub fn mark(&self, repository: &Repository, digest: &Digest) -> PendingMark {
        let name = (repository.clone(), *digest);
        *self.0.counts.entry(name.clone()).or_default() += 1;
        self.0.marks.fetch_add(1, SeqCst);
        PendingMark { pending: self.clone(), name }
    }

    /// Whether the blob is pending.
    pub fn contains(&self, repository: &Repository, digest: &Digest) -> bool {
        self.0.marks.load(SeqCst) > 0 && self.0.counts.contains_key(&(repository.clone(), *digest))
    }
}

impl Drop for PendingMark {
    fn drop(&mut self) {
        let blobs = &self.pending.0;
        if let Entry::Occupied(mut count) = blobs.counts.entry(self.name.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        blobs.marks.fetch_sub(1, SeqCst);
    }
}
