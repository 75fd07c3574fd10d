//! Content that is being added to the store. Links that are seen meanwhile are remembered with it.

use super::inner::Inner;
use super::links_seen::LinksSeen;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use entrepot_oci::Digest;
use std::sync::Arc;

/// Links of expected content, by digest.
#[derive(Default)]
pub(super) struct Expectations(DashMap<Digest, Expectation>);

struct Expectation {
    holders: usize,
    /// Becomes the set of the new entry, so no link is lost in between.
    links: Arc<LinksSeen>,
}

impl Expectations {
    pub(super) fn links(&self, digest: &Digest) -> Option<Arc<LinksSeen>> {
        self.0.get(digest).map(|expectation| Arc::clone(&expectation.links))
    }

    fn begin(&self, digest: Digest) {
        self.0.entry(digest).or_insert_with(|| Expectation { holders: 0, links: Arc::default() }).holders += 1;
    }

    fn end(&self, digest: &Digest) {
        if let Slot::Occupied(mut expectation) = self.0.entry(*digest) {
            expectation.get_mut().holders -= 1;
            if expectation.get().holders == 0 {
                expectation.remove();
            }
        }
    }
}

/// Marks content as expected for as long as this value lives.
pub struct Expected {
    inner: Arc<Inner>,
    digest: Digest,
}

impl Expected {
    pub(super) fn new(inner: Arc<Inner>, digest: Digest) -> Expected {
        inner.expectations.begin(digest);
        Expected { inner, digest }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.inner.expectations.end(&self.digest);
    }
}
