//! The links that are remembered with stored or expected content.

use super::inner::Inner;
use super::links_seen::LinkKind;
use super::links_seen::LinkSeen;
use super::looks::Look;
use entrepot_oci::{Digest, Repository};
use std::time::Duration;

impl Inner {
    /// See `Store::remember_link`.
    pub(super) fn remember_link(&self, look: &Look, repository: &Repository, kind: LinkKind, digest: &Digest) {
        if !self.looks.is_current(look) {
            return;
        }
        let link = LinkSeen { repository: repository.clone(), kind, seen: look.at };
        // Expected content first: if it is stored in between, the index below has it.
        if let Some(links) = self.expectations.links(digest) {
            links.remember(link.clone());
        }
        if let Some(entry) = self.index.get(digest) {
            entry.links.remember(link);
            entry.mark_dirty();
        }
        // A removal between the first check and the insertion found nothing to forget, so forget it
        // here.
        if !self.looks.is_current(look) {
            self.drop_link(repository, kind, digest);
        }
    }

    /// See `Store::link_age`.
    pub(super) fn link_age(&self, repository: &Repository, kind: LinkKind, digest: &Digest) -> Option<Duration> {
        let stored = || self.index.get(digest)?.links.seen(repository, kind);
        let expected = || self.expectations.links(digest)?.seen(repository, kind);
        Some(self.clock.uptime().since(stored().or_else(expected)?))
    }

    /// See `Store::forget_link`.
    pub(super) fn forget_link(&self, repository: &Repository, kind: LinkKind, digest: &Digest) {
        self.looks.changed(digest);
        self.drop_link(repository, kind, digest);
    }

    fn drop_link(&self, repository: &Repository, kind: LinkKind, digest: &Digest) {
        let expected = self.expectations.links(digest).is_some_and(|links| links.forget(repository, kind));
        if let Some(entry) = self.index.get(digest)
            && (entry.links.forget(repository, kind) || expected)
        {
            entry.mark_dirty();
        }
    }
}
