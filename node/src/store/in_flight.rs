//! The links of content that is being added to the store.

use super::link_cache::LinkCache;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use entrepot_oci::Digest;
use std::sync::Arc;

/// Links of expected content, by digest.
#[derive(Default)]
pub(super) struct InFlight(DashMap<Digest, Expectation>);

struct Expectation {
    holders: usize,
    /// Becomes the set of the new entry, so no link is lost in between.
    links: Arc<LinkCache>,
}

impl InFlight {
    pub(super) fn links(&self, digest: &Digest) -> Option<Arc<LinkCache>> {
        self.0.get(digest).map(|expectation| Arc::clone(&expectation.links))
    }

    pub(super) fn begin(&self, digest: Digest) {
        self.0.entry(digest).or_insert_with(|| Expectation { holders: 0, links: Arc::default() }).holders += 1;
    }

    pub(super) fn end(&self, digest: &Digest) {
        if let Slot::Occupied(mut expectation) = self.0.entry(*digest) {
            expectation.get_mut().holders -= 1;
            if expectation.get().holders == 0 {
                expectation.remove();
            }
        }
    }
}
