use super::*;
use crate::observe::Metrics;
use crate::repository::layout::link_content;
use crate::testing::empty_bucket;
use bytes::Bytes;
use entrepot_bucket::fault::{Effect, Fault, FaultId, Faults, Faulty};
use entrepot_bucket::memory::Memory;
use entrepot_bucket::{BucketErrorKind, Capabilities, Operation, Put, PutBody, PutMode};
use entrepot_config as config;
use entrepot_oci::Algorithm;
use entrepot_runtime::Clock;
use entrepot_runtime::clock::Timestamp;
use entrepot_runtime::testing::eventually;

/// Two nodes that share the tags of one bucket. Requests of the first node meet faults.
struct Two {
    first: Tags,
    second: Tags,
    bucket: Arc<dyn Bucket>,
    faults: Faults,
    layout: Layout,
    repository: Repository,
    tag: Tag,
    _folder: tempfile::TempDir,
}

impl Two {
    fn new() -> Two {
        Two::over(empty_bucket())
    }

    fn ignoring_conditions() -> Two {
        let capabilities = Memory::default().capabilities();
        Two::over(Arc::new(Memory::with_capabilities(Capabilities {
            conditional_put: false,
            conditional_delete: false,
            ..capabilities
        })))
    }

    fn over(bucket: Arc<dyn Bucket>) -> Two {
        let folder = tempfile::tempdir().unwrap();
        let (faults, layout) = (Faults::default(), Layout::new(""));
        let tags = |name: &str, bucket: Arc<dyn Bucket>| {
            let config = config::Store { path: folder.path().join(name), ..config::Store::default() };
            let clock = Clock::manual(Timestamp(1_000_000));
            let store = Store::open(&config, clock, Arc::new(Metrics::new().unwrap())).unwrap();
            let immutable = config::TagPatterns::new(vec!["fixed-*".into()]).unwrap();
            Tags::new(bucket, layout.clone(), store, immutable, Duration::from_secs(5))
        };
        let first = tags("a", Arc::new(Faulty::new(bucket.clone(), &faults)));
        let second = tags("b", bucket.clone());
        let (repository, tag) = (Repository::parse("library/app").unwrap(), Tag::parse("v1").unwrap());
        Two { first, second, bucket, faults, layout, repository, tag, _folder: folder }
    }

    async fn push(&self, tags: &Tags, digest: &Digest) -> Result<(), TagError> {
        let current = tags.current(&self.repository, &self.tag).await.unwrap();
        tags.set(&self.repository, &self.tag, digest, current, &Conditions::default()).await.map(drop)
    }

    async fn value(&self) -> Option<Digest> {
        self.second.current(&self.repository, &self.tag).await.unwrap().digest
    }

    /// Whether a listing of the repository's tags contains the tag.
    async fn listed(&self) -> bool {
        !self.second.keys(self.layout.tag(&self.repository, &self.tag)).await.unwrap().is_empty()
    }

    /// Holds the next request of the first node for the tag's current link until the faults are
    /// cleared.
    fn hold(&self, operation: Operation) -> FaultId {
        self.faults.add(Fault::new(operation, Effect::Hang).on_key("/current/").times(1))
    }

    async fn held(&self, fault: FaultId) {
        eventually("the request is held", || self.faults.hits(fault) == 1).await;
    }
}

fn digest(text: &str) -> Digest {
    Digest::of(Algorithm::Sha256, text.as_bytes())
}

#[tokio::test]
async fn the_last_of_two_concurrent_pushes_wins_and_both_are_acknowledged() {
    let two = Two::new();
    two.push(&two.second, &digest("old")).await.unwrap();
    let held = two.hold(Operation::Put);
    let a = digest("a");
    let (first, ()) = tokio::join!(two.push(&two.first, &a), async {
        two.held(held).await;
        two.push(&two.second, &digest("b")).await.unwrap();
        two.faults.clear();
    });
    first.unwrap();
    assert_eq!(two.value().await, Some(a));
}

#[tokio::test]
async fn an_attempt_that_arrives_late_loses() {
    let two = Two::new();
    two.push(&two.second, &digest("old")).await.unwrap();
    let key = two.layout.tag_current(&two.repository, &two.tag);
    let before = two.second.current(&two.repository, &two.tag).await.unwrap();
    // The answer of the first attempt is lost; the second is acknowledged, and another node pushes
    // afterwards.
    two.push(&two.first, &digest("a")).await.unwrap();
    two.push(&two.second, &digest("b")).await.unwrap();
    let link = PutBody::Bytes(Bytes::from(link_content(&digest("a"))));
    let late = two.bucket.put(&key, link, PutMode::IfMatch(before.version)).await.unwrap();
    assert_eq!((late, two.value().await), (Put::Changed, Some(digest("b"))));
}

#[tokio::test]
async fn a_write_with_a_lost_answer_is_found_and_not_repeated() {
    let two = Two::new();
    for _ in 0..2 {
        two.faults.add(Fault::new(Operation::Put, Effect::LoseAnswer).on_key("/current/").times(1));
        two.push(&two.first, &digest("a")).await.unwrap();
        assert_eq!(two.value().await, Some(digest("a")));
        two.push(&two.second, &digest("b")).await.unwrap();
    }
}

#[tokio::test]
async fn an_unanswered_write_that_was_overwritten_is_not_acknowledged() {
    let two = Two::new();
    for effect in [Effect::LoseAnswer, Effect::Error(BucketErrorKind::Connection)] {
        two.faults.clear();
        two.push(&two.second, &digest("old")).await.unwrap();
        let current = two.first.current(&two.repository, &two.tag).await.unwrap();
        two.faults.add(Fault::new(Operation::Put, effect).on_key("/current/").times(1));
        let held = two.hold(Operation::Get);
        let (a, conditions) = (digest("a"), Conditions::default());
        let push = two.first.set(&two.repository, &two.tag, &a, current, &conditions);
        let (first, ()) = tokio::join!(push, async {
            two.held(held).await;
            two.push(&two.second, &digest("b")).await.unwrap();
            two.faults.clear();
        });
        // If it were written again, the tag would have been a, b and a.
        assert!(matches!(first, Err(TagError::OutcomeUnknown)), "{first:?}");
        assert_eq!(two.value().await, Some(digest("b")));
    }
}

#[tokio::test]
async fn a_change_that_timed_out_is_not_repeated() {
    let two = Two::new();
    two.push(&two.second, &digest("old")).await.unwrap();
    for (operation, key) in [(Operation::Put, "/current/"), (Operation::Delete, "/current/")] {
        let hung = two.faults.add(Fault::error(operation, BucketErrorKind::Timeout).on_key(key));
        let failed = match operation {
            Operation::Put => two.push(&two.first, &digest("a")).await,
            _ => two.first.remove(&two.repository, &two.tag).await.map(drop),
        };
        assert!(matches!(failed, Err(TagError::Bucket(_))), "{failed:?}");
        assert_eq!((two.faults.hits(hung), two.value().await), (1, Some(digest("old"))));
    }
}

#[tokio::test]
async fn a_tag_that_moved_meanwhile_is_not_removed_with_its_earlier_manifest() {
    let two = Two::new();
    let old = digest("old");
    two.push(&two.second, &old).await.unwrap();
    let held = two.hold(Operation::Delete);
    let mut left = EXAMINED;
    let (ended, ()) = tokio::join!(two.first.remove_pointing(&two.repository, &old, &mut left), async {
        two.held(held).await;
        two.push(&two.second, &digest("new")).await.unwrap();
        two.faults.clear();
    });
    ended.unwrap();
    assert_eq!(two.value().await, Some(digest("new")));
}

#[tokio::test]
async fn a_removal_with_a_lost_answer_does_not_remove_a_later_push() {
    let two = Two::new();
    two.push(&two.second, &digest("old")).await.unwrap();
    two.faults.add(Fault::new(Operation::Delete, Effect::LoseAnswer).on_key("/current/").times(1));
    // The first read of the removal passes; the one after the lost answer is held.
    let (passed, held) = (
        two.faults.add(Fault::new(Operation::Get, Effect::Stall { after: 1000 }).on_key("/current/").times(1)),
        two.hold(Operation::Get),
    );
    let (removed, ()) = tokio::join!(two.first.remove(&two.repository, &two.tag), async {
        two.held(held).await;
        two.push(&two.second, &digest("new")).await.unwrap();
        two.faults.clear();
    });
    removed.unwrap();
    assert_eq!(two.faults.hits(passed), 1);
    assert_eq!(two.value().await, Some(digest("new")));
}

#[tokio::test]
async fn a_deletion_that_fails_at_any_step_leaves_no_listed_tag_without_a_value() {
    for key in ["/index/", "/current/"] {
        let two = Two::new();
        two.push(&two.second, &digest("old")).await.unwrap();
        let index = two.layout.tag_index(&two.repository, &two.tag, &digest("old"));
        let link = PutBody::Bytes(Bytes::from(link_content(&digest("old"))));
        two.bucket.put(&index, link, PutMode::Overwrite).await.unwrap();
        two.faults.add(Fault::error(Operation::Delete, BucketErrorKind::Denied).on_key(key).times(1));
        assert!(two.first.remove(&two.repository, &two.tag).await.is_err());
        assert_eq!(two.value().await, Some(digest("old")), "{key}");
        two.first.remove(&two.repository, &two.tag).await.unwrap();
        assert_eq!((two.value().await, two.listed().await), (None, false));
    }
}

#[tokio::test]
async fn every_listed_tag_has_a_value_even_if_conditions_are_ignored() {
    let two = Two::ignoring_conditions();
    two.push(&two.second, &digest("old")).await.unwrap();
    let held = two.hold(Operation::Delete);
    let (removed, ()) = tokio::join!(two.first.remove(&two.repository, &two.tag), async {
        two.held(held).await;
        two.push(&two.second, &digest("new")).await.unwrap();
        two.faults.clear();
    });
    removed.unwrap();
    assert_eq!((two.value().await, two.listed().await), (None, false));
}

#[tokio::test]
async fn remains_of_a_tag_can_be_deleted() {
    let two = Two::new();
    // CNCF Distribution writes the history first.
    let index = two.layout.tag_index(&two.repository, &two.tag, &digest("x"));
    let link = || PutBody::Bytes(Bytes::from(link_content(&digest("x"))));
    two.bucket.put(&index, link(), PutMode::Overwrite).await.unwrap();
    assert!(two.listed().await);
    two.first.remove(&two.repository, &two.tag).await.unwrap();
    assert!(!two.listed().await);
    assert!(matches!(two.first.remove(&two.repository, &two.tag).await, Err(TagError::NotFound)));
    // A damaged link points to no manifest.
    let current = two.layout.tag_current(&two.repository, &two.tag);
    for content in [&b""[..], b"sha256:cut"] {
        two.bucket.put(&current, PutBody::Bytes(Bytes::from(content)), PutMode::Overwrite).await.unwrap();
        two.first.remove(&two.repository, &two.tag).await.unwrap();
        assert!(!two.listed().await);
        two.bucket.put(&current, PutBody::Bytes(Bytes::from(content)), PutMode::Overwrite).await.unwrap();
        two.push(&two.first, &digest("new")).await.unwrap();
        assert_eq!(two.value().await, Some(digest("new")));
    }
}

#[tokio::test]
async fn a_push_concurrent_with_a_deletion_creates_the_tag_again() {
    let two = Two::new();
    two.push(&two.second, &digest("old")).await.unwrap();
    let held = two.hold(Operation::Put);
    let a = digest("a");
    let (pushed, ()) = tokio::join!(two.push(&two.first, &a), async {
        two.held(held).await;
        two.second.remove(&two.repository, &two.tag).await.unwrap();
        two.faults.clear();
    });
    pushed.unwrap();
    assert_eq!(two.value().await, Some(a));
}

#[tokio::test]
async fn a_condition_is_checked_again_when_the_tag_is_written() {
    let two = Two::new();
    let held = two.hold(Operation::Put);
    let (a, absent) = (digest("a"), Conditions(vec![Condition::Absent]));
    let current = two.first.current(&two.repository, &two.tag).await.unwrap();
    let push = two.first.set(&two.repository, &two.tag, &a, current, &absent);
    let (pushed, ()) = tokio::join!(push, async {
        two.held(held).await;
        two.push(&two.second, &digest("b")).await.unwrap();
        two.faults.clear();
    });
    assert!(matches!(pushed, Err(TagError::Precondition)), "{pushed:?}");
    assert_eq!(two.value().await, Some(digest("b")));
}

#[test]
fn conditions_are_those_of_http() {
    let (a, b) = (digest("a"), digest("b"));
    for (condition, none, of_a) in [
        (Condition::Exists, false, true),
        (Condition::Absent, true, false),
        (Condition::OneOf(vec![a]), false, true),
        (Condition::OneOf(vec![b]), false, false),
        (Condition::OneOf(vec![]), false, false),
        (Condition::NoneOf(vec![a]), true, false),
        (Condition::NoneOf(vec![b]), true, true),
    ] {
        let conditions = Conditions(vec![condition.clone()]);
        assert_eq!((conditions.hold(None), conditions.hold(Some(&a))), (none, of_a), "{condition:?}");
    }
    assert!(Conditions::default().hold(None) && Conditions::default().hold(Some(&a)));
}

#[tokio::test]
async fn the_result_of_a_read_is_not_remembered_after_a_later_change() {
    let two = Two::new();
    let store = &two.first.store;
    let look = store.tags.look(&two.repository, &two.tag);
    two.push(&two.first, &digest("new")).await.unwrap();
    assert!(!store.tags.remember(&look, &two.repository, &two.tag, digest("old"), ETag("old".into())));
    assert_eq!(store.tags.get(&two.repository, &two.tag).unwrap().digest, digest("new"));
    let look = store.tags.look(&two.repository, &two.tag);
    two.first.remove(&two.repository, &two.tag).await.unwrap();
    assert!(!store.tags.remember(&look, &two.repository, &two.tag, digest("new"), ETag("new".into())));
    assert_eq!(store.tags.get(&two.repository, &two.tag), None);
}
