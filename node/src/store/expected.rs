//! Content that is being added to the store. Links that are seen meanwhile are remembered with it.

use super::inner::Inner;
use entrepot_oci::Digest;
use std::sync::Arc;

/// Marks content as expected for as long as this value lives.
pub struct Expected {
    inner: Arc<Inner>,
    digest: Digest,
}

impl Expected {
    pub(super) fn new(inner: Arc<Inner>, digest: Digest) -> Expected {
        inner.in_flight.begin(digest);
        Expected { inner, digest }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.inner.in_flight.end(&self.digest);
    }
}
