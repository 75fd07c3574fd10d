//! The current value of a tag.

use super::*;
use entrepot_bucket::fault::{Effect, Fault};
use entrepot_bucket::{BucketErrorKind, Operation};

struct Tagged {
    setup: Setup,
    tag: Tag,
}

impl Tagged {
    async fn new() -> Tagged {
        let tagged = Tagged { setup: Setup::new(), tag: Tag::parse("latest").unwrap() };
        tagged.push("one").await;
        tagged
    }

    async fn push(&self, text: &str) {
        let key = self.setup.layout.tag_current(&self.setup.repository, &self.tag);
        self.setup.put(&key, link_content(&digest(text))).await;
    }

    async fn resolve(&self) -> Result<Resolved, FetchError> {
        self.setup.fetch.resolve(&self.setup.repository, &self.tag).await
    }

    fn requests(&self) -> usize {
        self.setup.gate.gets("/tags/")
    }
}

fn digest(text: &str) -> Digest {
    Digest::of(Algorithm::Sha256, text.as_bytes())
}

#[tokio::test]
async fn a_tag_is_requested_each_time_and_a_push_at_another_node_is_seen_at_once() {
    let tagged = Tagged::new().await;
    for text in ["one", "two", "two", "three"] {
        tagged.push(text).await;
        assert_eq!(tagged.resolve().await.unwrap(), Resolved { digest: digest(text), stale: false });
    }
    assert_eq!(tagged.requests(), 4);
}

#[tokio::test]
async fn a_tag_that_is_missing_or_has_an_invalid_link_is_not_found() {
    let tagged = Tagged::new().await;
    tagged.resolve().await.unwrap();
    let key = tagged.setup.layout.tag_current(&tagged.setup.repository, &tagged.tag);
    tagged.setup.put(&key, "sha256:nonsense").await;
    assert!(matches!(tagged.resolve().await, Err(FetchError::NotFound)));
    tagged.push("one").await;
    tagged.resolve().await.unwrap();
    tagged.setup.memory.delete(&key).await.unwrap();
    assert!(matches!(tagged.resolve().await, Err(FetchError::NotFound)));
    assert_eq!(tagged.setup.store.tags.get(&tagged.setup.repository, &tagged.tag), None);
}

#[tokio::test]
async fn a_fresh_tag_costs_no_request() {
    let mut tagged = Tagged::new().await;
    let parts = &mut Arc::get_mut(&mut tagged.setup.fetch.shared).unwrap().parts;
    Arc::make_mut(&mut parts.env.config).tags.fresh_for = config::Duration::from_secs(10);
    tagged.resolve().await.unwrap();
    tagged.push("two").await;
    assert_eq!(tagged.resolve().await.unwrap().digest, digest("one"));
    assert_eq!(tagged.requests(), 1);
    tagged.setup.clock.advance(Duration::from_secs(10));
    assert_eq!(tagged.resolve().await.unwrap().digest, digest("two"));
    assert_eq!(tagged.requests(), 2);
}

#[tokio::test]
async fn a_known_tag_is_served_stale_for_a_limited_time_while_the_bucket_fails() {
    let tagged = Tagged::new().await;
    tagged.resolve().await.unwrap();
    tagged.setup.faults.add(Fault::error(Operation::Get, BucketErrorKind::Connection));
    assert_eq!(tagged.resolve().await.unwrap(), Resolved { digest: digest("one"), stale: true });
    let before = tagged.requests();
    for _ in 0..10 {
        assert!(tagged.resolve().await.unwrap().stale);
    }
    assert_eq!(tagged.requests(), before, "the recent failure is remembered");
    assert_eq!(tagged.setup.metrics.stale_tags.get(), 11);

    tagged.setup.clock.advance(Duration::from_secs(3601));
    assert!(matches!(tagged.resolve().await, Err(FetchError::Bucket(_))));
}

#[tokio::test(start_paused = true)]
async fn a_known_tag_does_not_wait_for_a_bucket_that_does_not_respond() {
    let tagged = Tagged::new().await;
    tagged.resolve().await.unwrap();
    tagged.setup.faults.add(Fault::new(Operation::Get, Effect::Hang));
    for _ in 0..3 {
        assert_eq!(tagged.resolve().await.unwrap(), Resolved { digest: digest("one"), stale: true });
    }
    assert_eq!(tagged.requests(), 2, "the recent timeout is remembered");
}

#[tokio::test]
async fn one_probe_detects_that_the_bucket_works_again() {
    let tagged = Tagged::new().await;
    tagged.resolve().await.unwrap();
    tagged.setup.faults.add(Fault::error(Operation::Get, BucketErrorKind::Denied));
    assert!(tagged.resolve().await.unwrap().stale);
    tagged.setup.faults.clear();
    tagged.push("two").await;
    tagged.setup.clock.advance(Duration::from_secs(1));
    let before = tagged.requests();
    assert!(tagged.resolve().await.unwrap().stale, "the request does not wait for the probe");
    eventually("probed", || tagged.requests() == before + 1).await;
    let known = || tagged.setup.store.tags.get(&tagged.setup.repository, &tagged.tag).map(|known| known.digest);
    eventually("remembered", || known() == Some(digest("two"))).await;
    assert_eq!(tagged.resolve().await.unwrap(), Resolved { digest: digest("two"), stale: false });
}

#[tokio::test]
async fn an_unknown_tag_is_an_error_while_the_bucket_fails() {
    let tagged = Tagged::new().await;
    tagged.setup.faults.add(Fault::error(Operation::Get, BucketErrorKind::SlowDown));
    let answer = tagged.resolve().await;
    assert!(matches!(answer, Err(FetchError::Bucket(error)) if error.kind == BucketErrorKind::SlowDown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pulling_a_stored_image_by_tag_costs_one_conditional_request() {
    let tagged = Tagged::new().await;
    let setup = &tagged.setup;
    let manifest = digest("one");
    setup.put(&setup.layout.data(&manifest), "one").await;
    setup.link(LinkKind::Revision, &manifest).await;
    let (layer, _) = setup.blob(100_000).await;
    let pull = || async {
        let resolved = tagged.resolve().await.unwrap();
        setup.fetch.manifest(&setup.repository, &resolved.digest).await.unwrap();
        setup.read(&layer).await;
    };
    pull().await;
    setup.stored(&layer).await;
    let before = setup.gate.gets("");
    pull().await;
    assert_eq!(setup.gate.gets("") - before, 1);
}
