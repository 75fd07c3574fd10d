//! The shared knowledge of a run's clients: what was pushed and deleted, and so which images must
//! be complete.

use super::record::Recorder;
use super::violations::Violations;
use crate::Content;
use crate::push::Image;
use entrepot_oci::Digest;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An attempt to push a manifest.
#[derive(Clone, Debug)]
pub struct Pushed {
    pub repository: String,
    pub image: Arc<Image>,
    pub subject: Option<Digest>,
    /// When the manifest was sent and acknowledged.
    pub call: u64,
    pub acknowledged: Option<u64>,
    pub epoch: u64,
}

/// An attempt to delete a manifest or a blob from a repository.
#[derive(Clone, Debug)]
struct Deletion {
    repository: String,
    digest: Digest,
    /// When its definite response came; `None` while it may still take effect.
    ended: Option<u64>,
}

/// What all clients share.
pub struct Model {
    pub recorder: Recorder,
    pub violations: Violations,
    /// Whether bytes from the bucket are changed on the way: ranges of content that is not stored
    /// are not verified.
    pub corrupting: AtomicBool,
    /// Nodes that clients want killed, by place.
    kills: Mutex<Vec<usize>>,
    /// Faults that clients caused since they were last taken.
    faults: Mutex<BTreeMap<&'static str, u64>>,
    state: Mutex<State>,
}

/// The shared facts.
#[derive(Default)]
pub struct State {
    pushed: Vec<Pushed>,
    deletions: Vec<Deletion>,
    /// Every manifest that was ever sent.
    manifests: HashMap<Digest, Arc<Image>>,
    /// Blobs that a repository had according to a response.
    blobs: HashMap<String, Vec<Content>>,
    /// Blobs that were deleted from some repository.
    deleted: Vec<Content>,
    damaged: HashSet<String>,
}

impl Model {
    pub fn new(recorder: Recorder) -> Model {
        let (violations, corrupting) = (Violations::default(), AtomicBool::new(false));
        Model {
            recorder,
            violations,
            corrupting,
            kills: Mutex::default(),
            faults: Mutex::default(),
            state: Mutex::default(),
        }
    }

    /// Asks for a node to be killed and started again, while faults still happen in this epoch.
    pub fn kill(&self, node: usize) {
        lock(&self.kills).push(node);
    }

    /// The nodes that clients want killed.
    pub fn take_kills(&self) -> Vec<usize> {
        std::mem::take(&mut lock(&self.kills))
    }

    /// Counts a fault that a client caused.
    pub fn count_fault(&self, name: &'static str) {
        *lock(&self.faults).entry(name).or_default() += 1;
    }

    /// The faults that clients caused since the last call.
    pub fn take_faults(&self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut lock(&self.faults))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Whether an unverified range may have wrong bytes.
    pub fn may_be_wrong(&self, digest: &Digest) -> bool {
        self.corrupting.load(Ordering::SeqCst) || self.state().damaged.contains(&digest.hex())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Records an attempt to push; returns its index for [`State::acknowledge`].
    pub fn push(&mut self, attempt: Pushed) -> usize {
        self.manifests.insert(attempt.image.digest, attempt.image.clone());
        self.pushed.push(attempt);
        self.pushed.len() - 1
    }

    pub fn acknowledge(&mut self, place: usize, at: u64) {
        self.pushed[place].acknowledged = Some(at);
    }

    /// Records an attempt to delete; returns its index for [`State::end_deletion`].
    pub fn delete(&mut self, repository: &str, digest: Digest) -> usize {
        self.deletions.push(Deletion { repository: repository.to_owned(), digest, ended: None });
        self.deletions.len() - 1
    }

    pub fn end_deletion(&mut self, place: usize, at: u64) {
        self.deletions[place].ended = Some(at);
    }

    /// Whether no deletion of this content from the repository can have taken effect at or after
    /// that time.
    pub fn untouched_since(&self, repository: &str, digest: &Digest, time: u64) -> bool {
        let touching = |deletion: &&Deletion| deletion.repository == repository && deletion.digest == *digest;
        self.deletions.iter().filter(touching).all(|deletion| deletion.ended.is_some_and(|ended| ended < time))
    }

    /// Whether the image must be complete: its push was acknowledged, and nothing of it was deleted
    /// since it was sent.
    pub fn must_be_whole(&self, pushed: &Pushed) -> bool {
        let untouched = |digest: &Digest| self.untouched_since(&pushed.repository, digest, pushed.call);
        pushed.acknowledged.is_some()
            && untouched(&pushed.image.digest)
            && pushed.image.blobs().all(|blob| untouched(&blob.digest))
    }

    /// The images that must be complete.
    pub fn whole(&self) -> Vec<Pushed> {
        self.pushed.iter().filter(|pushed| self.must_be_whole(pushed)).cloned().collect()
    }

    /// All attempts to push since this epoch.
    pub fn pushed_since(&self, epoch: u64) -> Vec<Pushed> {
        self.pushed.iter().filter(|pushed| pushed.epoch >= epoch).cloned().collect()
    }

    pub fn manifest(&self, digest: &Digest) -> Option<Arc<Image>> {
        self.manifests.get(digest).cloned()
    }

    /// Records that a repository has a blob.
    pub fn has(&mut self, repository: &str, content: Content) {
        let known = self.blobs.entry(repository.to_owned()).or_default();
        if !known.contains(&content) {
            known.push(content);
        }
    }

    /// Records that a blob may be gone from a repository.
    pub fn lost(&mut self, repository: &str, content: Content) {
        if let Some(known) = self.blobs.get_mut(repository) {
            known.retain(|other| *other != content);
        }
        self.deleted.push(content);
    }

    pub fn blobs(&self, repository: &str) -> &[Content] {
        self.blobs.get(repository).map_or(&[], Vec::as_slice)
    }

    pub fn deleted(&self) -> &[Content] {
        &self.deleted
    }

    /// Repositories with blobs, in a stable order.
    pub fn repositories(&self) -> Vec<String> {
        let mut names: Vec<_> = self.blobs.keys().cloned().collect();
        names.sort();
        names
    }

    /// Records that bytes of the content with the hex digest `hex` were changed on purpose.
    pub fn damage(&mut self, hex: &str) {
        self.damaged.insert(hex.to_owned());
    }

    /// Drops everything older than this epoch except `kept` images that must be complete. No client
    /// may push meanwhile.
    pub fn forget_before(&mut self, epoch: u64, kept: usize) {
        let old: Vec<_> =
            self.whole().into_iter().filter(|pushed| pushed.epoch < epoch).map(|pushed| pushed.image.digest).collect();
        // Evenly spread, so that images of every age are checked.
        let step = old.len().div_ceil(kept.max(1)).max(1);
        let chosen: HashSet<_> = old.into_iter().step_by(step).collect();
        self.pushed.retain(|pushed| pushed.epoch >= epoch || chosen.contains(&pushed.image.digest));
        let repositories: HashSet<_> = self.pushed.iter().map(|pushed| pushed.repository.clone()).collect();
        self.deletions.retain(|deletion| repositories.contains(&deletion.repository));
        let manifests: HashSet<_> = self.pushed.iter().map(|pushed| pushed.image.digest).collect();
        self.manifests.retain(|digest, _| manifests.contains(digest));
        let recent: HashSet<_> =
            self.pushed.iter().filter(|pushed| pushed.epoch >= epoch).map(|pushed| pushed.repository.clone()).collect();
        self.blobs.retain(|repository, _| recent.contains(repository));
        let excess = self.deleted.len().saturating_sub(100);
        self.deleted.drain(..excess);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledged(state: &mut State, call: u64, returned: u64) -> Pushed {
        let image = Arc::new(Image::fresh(&[10]));
        let repository = "a".to_owned();
        let attempt = Pushed { repository, image, subject: None, call, acknowledged: None, epoch: 0 };
        let place = state.push(attempt);
        state.acknowledge(place, returned);
        state.pushed[place].clone()
    }

    #[test]
    fn an_image_must_be_complete_unless_a_deletion_may_have_come_after_it() {
        let mut state = State::default();
        let image = acknowledged(&mut state, 10, 20);
        let layer = image.image.layers[0].digest;
        assert!(state.must_be_whole(&image));
        let before = state.delete("a", layer);
        assert!(!state.must_be_whole(&image), "a pending deletion may take effect");
        state.end_deletion(before, 9);
        assert!(state.must_be_whole(&image), "the deletion ended before the manifest was sent");
        state.delete("b", layer);
        assert!(state.must_be_whole(&image), "a deletion in another repository does not count");
        let after = state.delete("a", image.image.digest);
        state.end_deletion(after, 15);
        assert!(!state.must_be_whole(&image), "the deletion ended while the manifest was being sent");
    }

    #[test]
    fn an_image_without_an_acknowledgement_promises_nothing() {
        let mut state = State::default();
        let image = Arc::new(Image::fresh(&[10]));
        state.push(Pushed { repository: "a".into(), image, subject: None, call: 1, acknowledged: None, epoch: 0 });
        assert!(state.whole().is_empty());
    }

    #[test]
    fn old_epochs_are_dropped_except_for_a_sample() {
        let mut state = State::default();
        for call in 0..10 {
            acknowledged(&mut state, call, call + 1);
        }
        state.forget_before(1, 5);
        assert_eq!(state.whole().len(), 5);
    }
}
