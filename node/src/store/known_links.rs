//! The links that are remembered with stored or expected content.

use super::inner::Inner;
use super::link_cache::LinkKind;
use super::link_cache::LinkSeen;
use super::looks::Look;
use entrepot_oci::{Digest, Repository};
use std::sync::Arc;
use std::time::Duration;

/// The links that are remembered with stored or expected content. Clones share the state.
#[derive(Clone)]
pub struct KnownLinks {
    pub(super) inner: Arc<Inner>,
}

impl KnownLinks {
    /// Starts a read of the links of some content. Call it before asking the bucket.
    pub fn look(&self, digest: &Digest) -> Look {
        self.inner.looks.begin(digest, &self.inner.clock)
    }

    /// Remembers that the repository links content that is stored or expected. Does nothing for
    /// other content, or if a removal was seen since the look started.
    pub fn remember(&self, look: &Look, repository: &Repository, kind: LinkKind, digest: &Digest) {
        if !self.inner.looks.is_current(look) {
            return;
        }
        let link = LinkSeen { repository: repository.clone(), kind, seen: look.at };
        // Expected content first: if it is stored in between, the index below has it.
        if let Some(links) = self.inner.in_flight.links(digest) {
            links.remember(link.clone());
        }
        if let Some(entry) = self.inner.index.get(digest) {
            entry.links.remember(link);
            entry.mark_dirty();
        }
        // A removal between the first check and the insertion found nothing to forget, so forget it
        // here.
        if !self.inner.looks.is_current(look) {
            self.drop_link(repository, kind, digest);
        }
    }

    /// Time since that link was last seen.
    pub fn age(&self, repository: &Repository, kind: LinkKind, digest: &Digest) -> Option<Duration> {
        let stored = || self.inner.index.get(digest)?.links.seen(repository, kind);
        let expected = || self.inner.in_flight.links(digest)?.seen(repository, kind);
        Some(self.inner.clock.uptime().since(stored().or_else(expected)?))
    }

    /// Forgets a link, because it was removed.
    pub fn forget(&self, repository: &Repository, kind: LinkKind, digest: &Digest) {
        self.inner.looks.changed(digest);
        self.drop_link(repository, kind, digest);
    }

    fn drop_link(&self, repository: &Repository, kind: LinkKind, digest: &Digest) {
        let expected = self.inner.in_flight.links(digest).is_some_and(|links| links.forget(repository, kind));
        if let Some(entry) = self.inner.index.get(digest)
            && (entry.links.forget(repository, kind) || expected)
        {
            entry.mark_dirty();
        }
    }

    /// Forgets all links of stored content, so nothing assumes that the bucket has it.
    pub fn forget_all(&self, digest: &Digest) {
        if let Some(entry) = self.inner.index.get(digest) {
            let renewed = Arc::new(entry.renewed(entry.size, entry.sound(), Arc::default()));
            if self.inner.index.replace(digest, &entry, renewed) {
                entry.mark_gone();
            }
        }
    }
}
