//! The repositories that were seen to link some content, and when.

use entrepot_oci::Repository;
use entrepot_runtime::clock::Uptime;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What a link makes visible in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinkKind {
    /// A blob, by `_layers`.
    Layer,
    /// A manifest, by `_manifests/revisions`.
    Revision,
}

/// Limit of links remembered for one digest, so a base layer that a thousand repositories share
/// does not cost a thousand entries. Forgetting one costs one request to the bucket.
const MAX_LINKS: usize = 64;

/// A link that was seen in the bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkSeen {
    pub(super) repository: Repository,
    pub(super) kind: LinkKind,
    pub(super) seen: Uptime,
}

/// The links of one digest.
#[derive(Default)]
pub(super) struct LinkCache(RwLock<Vec<LinkSeen>>);

impl LinkCache {
    fn read(&self) -> RwLockReadGuard<'_, Vec<LinkSeen>> {
        self.0.read()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<LinkSeen>> {
        self.0.write()
    }

    /// Remembers a link. At the limit, the link with the oldest read is forgotten.
    pub(super) fn remember(&self, link: LinkSeen) {
        let mut links = self.write();
        links.retain(|known| known.kind != link.kind || known.repository != link.repository);
        if links.len() >= MAX_LINKS
            && let Some(oldest) = (0..links.len()).min_by_key(|index| links[*index].seen)
        {
            links.swap_remove(oldest);
        }
        links.push(link);
    }

    pub(super) fn seen(&self, repository: &Repository, kind: LinkKind) -> Option<Uptime> {
        let links = self.read();
        links.iter().find(|link| link.kind == kind && link.repository == *repository).map(|link| link.seen)
    }

    /// Forgets a link. Returns whether there was one.
    pub(super) fn forget(&self, repository: &Repository, kind: LinkKind) -> bool {
        let mut links = self.write();
        let before = links.len();
        links.retain(|link| link.kind != kind || link.repository != *repository);
        links.len() != before
    }

    pub(super) fn all(&self) -> Vec<LinkSeen> {
        self.read().clone()
    }
}
