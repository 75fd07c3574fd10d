//! The running and the recent commits of sessions, for a client that repeats its last `PUT` because
//! it did not receive the answer to the first.
//!
//! They are in memory and bounded. A forgotten commit costs a request to the bucket, and nothing
//! else.

use entrepot_oci::{Digest, Repository, SessionId};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::watch;

/// Number of successful commits that are remembered; they take about 3 MiB. A client repeats a
/// request within minutes, and a node commits fewer blobs in that time.
const REMEMBERED: usize = 8192;

/// Progress of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Running,
    /// The store has the blob and the replicator sends it.
    Adopted,
}

/// A commit, as repeated requests see it.
pub(super) struct Known {
    pub repository: Repository,
    pub digest: Digest,
    progress: watch::Receiver<Progress>,
}

impl Known {
    /// Waits until the store has adopted the blob. `false`: the commit failed, and the session may still be there.
    pub async fn adopted(&self) -> bool {
        let mut progress = self.progress.clone();
        progress.wait_for(|progress| *progress == Progress::Adopted).await.is_ok()
    }
}

/// The commits of a node.
#[derive(Default)]
pub(super) struct Commits(Mutex<State>);

#[derive(Default)]
struct State {
    known: HashMap<SessionId, Arc<Known>>,
    /// The adopted commits, oldest first.
    adopted: VecDeque<SessionId>,
}

impl Commits {
    /// The commit of the session, if one is running or remembered.
    pub fn of(&self, id: &SessionId) -> Option<Arc<Known>> {
        self.state().known.get(id).cloned()
    }

    /// Registers a commit. A repeated request waits for it from now on.
    pub fn begin(self: &Arc<Self>, id: &SessionId, repository: &Repository, digest: &Digest) -> Commit {
        let (progress, watched) = watch::channel(Progress::Running);
        let known = Arc::new(Known { repository: repository.clone(), digest: *digest, progress: watched });
        self.state().known.insert(id.clone(), known.clone());
        Commit { commits: self.clone(), id: id.clone(), known, progress }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

/// A running commit. If it is dropped before the blob was adopted, it has failed.
pub(super) struct Commit {
    commits: Arc<Commits>,
    id: SessionId,
    known: Arc<Known>,
    progress: watch::Sender<Progress>,
}

impl Commit {
    /// The store has the blob, and the replicator sends it.
    pub fn adopted(self) {
        let mut state = self.commits.state();
        state.adopted.push_back(self.id.clone());
        if state.adopted.len() > REMEMBERED
            && let Some(oldest) = state.adopted.pop_front()
        {
            state.known.remove(&oldest);
        }
        drop(state);
        self.progress.send_replace(Progress::Adopted);
    }
}

impl Drop for Commit {
    fn drop(&mut self) {
        if *self.progress.borrow() == Progress::Adopted {
            return;
        }
        let mut state = self.commits.state();
        // A later commit of the same session may already run; keep that one.
        if state.known.get(&self.id).is_some_and(|known| Arc::ptr_eq(known, &self.known)) {
            state.known.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{repository, sha256};
    use entrepot_oci::NodeName;

    fn id() -> SessionId {
        SessionId::new(NodeName::parse("a").unwrap())
    }

    #[tokio::test]
    async fn a_request_during_a_commit_learns_its_outcome() {
        let (commits, id) = (Arc::new(Commits::default()), id());
        let commit = commits.begin(&id, &repository("a"), &sha256(b"x"));
        let known = commits.of(&id).unwrap();
        let (adopted, ()) = tokio::join!(known.adopted(), async { commit.adopted() });
        assert!(adopted && commits.of(&id).unwrap().adopted().await);

        let commit = commits.begin(&id, &repository("a"), &sha256(b"x"));
        let known = commits.of(&id).unwrap();
        let (adopted, ()) = tokio::join!(known.adopted(), async { drop(commit) });
        assert!(!adopted && commits.of(&id).is_none());
    }

    #[test]
    fn a_commit_that_failed_does_not_hide_the_next_one_of_its_session() {
        let (commits, id) = (Arc::new(Commits::default()), id());
        let first = commits.begin(&id, &repository("a"), &sha256(b"x"));
        let _second = commits.begin(&id, &repository("a"), &sha256(b"x"));
        drop(first);
        assert!(commits.of(&id).is_some());
    }

    #[test]
    fn the_oldest_commits_are_forgotten_and_running_ones_are_not() {
        let (commits, running) = (Arc::new(Commits::default()), id());
        let _commit = commits.begin(&running, &repository("a"), &sha256(b"x"));
        let ids: Vec<_> = (0..=REMEMBERED).map(|_| id()).collect();
        for id in &ids {
            commits.begin(id, &repository("a"), &sha256(b"x")).adopted();
        }
        assert!(commits.of(&ids[0]).is_none() && commits.of(&ids[1]).is_some());
        assert!(commits.of(&running).is_some());
        assert_eq!(commits.state().known.len(), REMEMBERED + 1);
    }
}
