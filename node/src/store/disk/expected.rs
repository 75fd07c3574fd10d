//! Content on its way into the store: a link of it that is seen meanwhile is remembered with it.

use super::inner::Inner;
use super::links_seen::LinksSeen;
use crate::oci::Digest;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use std::sync::Arc;

/// Links of what is expected, by digest.
#[derive(Default)]
pub(super) struct Expectations(DashMap<Digest, Expectation>);

struct Expectation {
    holders: usize,
    /// Becomes that of the entry, so that no link is lost between the two.
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

/// That content is expected, for as long as this lives.
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
