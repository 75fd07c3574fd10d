//! The repositories through which a fill was asked for.

use super::Shared;
use crate::oci::{Digest, Repository};
use crate::store::layout::LinkKind;
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The repositories through which a fill was asked for: that they link the content is remembered with the content,
/// and so not before it is stored.
pub(super) struct Linking {
    kind: LinkKind,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stored: bool,
    waiting: HashSet<Repository>,
}

impl Linking {
    pub(super) fn new(kind: LinkKind) -> Linking {
        Linking { kind, state: Mutex::default() }
    }

    pub(super) fn add(&self, shared: &Shared, repository: &Repository, digest: &Digest) {
        let mut state = self.state();
        if state.stored {
            shared.parts.store.remember_link(repository, self.kind, digest);
        } else {
            state.waiting.insert(repository.clone());
        }
    }

    pub(super) fn stored(&self, shared: &Shared, digest: &Digest) {
        let mut state = self.state();
        state.stored = true;
        for repository in state.waiting.drain() {
            shared.parts.store.remember_link(&repository, self.kind, digest);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
