//! Pins: content that must stay.

use super::inner::Inner;
use entrepot_oci::Digest;
use std::sync::Arc;

/// Protects content that is not yet durable from eviction, for as long as the pin lives. Content
/// may be pinned before it is stored.
pub struct Pin {
    inner: Arc<Inner>,
    digest: Digest,
}

impl Pin {
    pub(super) fn new(inner: Arc<Inner>, digest: Digest) -> Pin {
        inner.index.pin(digest);
        Pin { inner, digest }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        if self.inner.index.unpin(&self.digest) {
            self.inner.capacity.unpinned();
        }
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pin").field("digest", &self.digest).finish_non_exhaustive()
    }
}
