//! Missing content is requested in parallel with its link, and is not available before the link is
//! confirmed.

use super::*;
use entrepot_bucket::fault::{Effect, Fault};
use entrepot_bucket::{BucketErrorKind, Operation};

impl Setup {
    /// From now on link requests get no response.
    fn hold_links(&self) {
        self.faults.add(Fault::new(Operation::Get, Effect::Hang).on_key("/link"));
    }

    fn has_begun_a_fill(&self) -> bool {
        let results = ["stored", "failed", "mismatch", "no_room"];
        let files = std::fs::read_dir(self.disk.config.path.join("fills")).unwrap().count();
        files > 0 || self.metrics.fills_running.get() > 0 || results.iter().any(|result| self.fills(result) > 0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_and_its_link_are_requested_in_parallel() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(1000).await;
    setup.hold_links();
    let answered = async {
        eventually("requested", || setup.gate.gets("/data") == 1 && setup.gate.gets("/link") == 1).await;
        assert!(!setup.has_begun_a_fill());
        setup.faults.clear();
    };
    let (content, ()) = tokio::join!(setup.open(&digest), answered);
    assert!(collect(content, 0..1000).await.unwrap() == bytes);
    setup.stored(&digest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_that_turns_out_not_to_be_linked_is_neither_served_nor_stored() {
    let setup = Setup::new();
    let (digest, bytes) = content(1, 1000);
    setup.put(&setup.layout.data(&digest), bytes.clone()).await;
    setup.hold_links();
    let answered = async {
        eventually("requested", || setup.gate.gets("/data") == 2).await;
        setup.faults.clear();
    };
    let (blob, manifest) =
        (setup.fetch.blob(&setup.repository, &digest), setup.fetch.manifest(&setup.repository, &digest));
    let (blob, manifest, ()) = tokio::join!(blob, manifest, answered);
    assert!(matches!(blob, Err(FetchError::NotFound)));
    assert!(matches!(manifest, Err(FetchError::NotFound)));
    eventually("dropped", || setup.gate.bodies() == 0).await;
    assert!(!setup.has_begun_a_fill());
    assert_eq!(setup.store.contents.size(&digest), None);
    // The next request starts again.
    setup.link(LinkKind::Layer, &digest).await;
    assert!(setup.read(&digest).await == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_that_no_request_waits_for_is_cancelled() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(1000).await;
    setup.link(LinkKind::Revision, &digest).await;
    // The client disconnects before either has a response.
    let links = setup.faults.add(Fault::new(Operation::Get, Effect::Hang).on_key("/link"));
    setup.faults.add(Fault::new(Operation::Get, Effect::Hang).on_key("/data"));
    let leaves = async {
        eventually("requested", || setup.gate.gets("/data") == 2 && setup.faults.hits(links) == 2).await;
    };
    let (blob, manifest) =
        (setup.fetch.blob(&setup.repository, &digest), setup.fetch.manifest(&setup.repository, &digest));
    tokio::select! {
        _ = blob => panic!("there must be no response"),
        _ = manifest => panic!("there must be no response"),
        () = leaves => {}
    }
    let nothing_runs = || setup.fetch.shared.fills.is_empty() && setup.fetch.shared.manifests.is_empty();
    eventually("cancelled", nothing_runs).await;
    setup.faults.clear();
    assert!(!setup.has_begun_a_fill());
    assert!(setup.read(&digest).await == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_with_the_link_is_served_in_parallel_with_one_without() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(1000).await;
    let other = Repository::parse("other").unwrap();
    setup.hold_links();
    let answered = async {
        eventually("requested", || setup.gate.gets("/link") == 2 && setup.gate.gets("/data") == 1).await;
        setup.faults.clear();
    };
    let (refused, served, ()) = tokio::join!(setup.fetch.blob(&other, &digest), setup.open(&digest), answered);
    assert!(matches!(refused, Err(FetchError::NotFound)));
    assert!(collect(served, 0..1000).await.unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_response_is_dropped_while_the_link_check_is_slow() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(100_000).await;
    setup.hold_links();
    let answered = async {
        eventually("requested", || setup.gate.bodies() == 1).await;
        eventually("dropped", || setup.gate.bodies() == 0).await;
        setup.faults.clear();
    };
    let (content, ()) = tokio::join!(setup.open(&digest), answered);
    assert!(collect(content, 0..100_000).await.unwrap() == bytes);
    assert_eq!(setup.gate.gets("/data"), 3, "the first range is requested again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_and_its_link_are_requested_in_parallel() {
    let setup = Setup::new();
    let (digest, bytes) = content(1, 1000);
    setup.put(&setup.layout.data(&digest), bytes.clone()).await;
    setup.link(LinkKind::Revision, &digest).await;
    setup.hold_links();
    let answered = async {
        eventually("requested", || setup.gate.gets("/data") == 1).await;
        assert_eq!(setup.store.contents.size(&digest), None);
        setup.faults.clear();
    };
    let (manifest, ()) = tokio::join!(setup.fetch.manifest(&setup.repository, &digest), answered);
    assert!(manifest.unwrap() == bytes);
    setup.stored(&digest).await;
    assert_eq!(setup.gate.gets("/data"), 1);
}

/// Even with the minimum of concurrent requests, content requests leave a slot for link checks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_wait_for_each_other_do_not_deadlock() {
    let setup = Setup::limited_to(2);
    let mut blobs = Vec::new();
    for size in 1..40 {
        blobs.push(setup.blob(size * 1000).await);
    }
    let all = blobs.iter().map(|(digest, bytes)| async { assert!(setup.read(digest).await == *bytes) });
    tokio::time::timeout(PATIENCE, futures::future::join_all(all)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_is_requested_once_while_its_content_is_downloaded() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(1 << 20).await;
    setup.gate.hold_before(u64::MAX);
    let first = setup.open(&digest).await;
    let again = setup.open(&digest).await;
    assert_eq!(setup.gate.gets("/link"), 1);
    let other = Repository::parse("other").unwrap();
    assert!(matches!(setup.fetch.blob(&other, &digest).await, Err(FetchError::NotFound)));
    setup.gate.open();
    let (first, again) = tokio::join!(collect(first, 0..1 << 20), collect(again, 0..1 << 20));
    assert!(first.unwrap() == bytes && again.unwrap() == bytes);
    assert!(setup.read(&digest).await == bytes);
    assert_eq!(setup.gate.gets("/link"), 2, "only the link of the other repository");
}

/// Content in memory is served before it is stored. A client that got it can get it again, even if
/// the bucket is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_content_is_served_again_before_it_is_stored() {
    let setup = Setup::on(Fixture::new(1500, 0, 0), true);
    let _room = setup.store.room.reserve(1000).await.unwrap();
    let (digest, bytes) = setup.blob(1000).await;
    setup.link(LinkKind::Revision, &digest).await;
    // Storing waits for an eviction.
    let cleaner = setup.store.room.cleaner();
    let manifest = || setup.fetch.manifest(&setup.repository, &digest);
    assert!(setup.read(&digest).await == bytes && manifest().await.unwrap() == bytes);
    let before = setup.gate.gets("");
    for operation in [Operation::Get, Operation::Head] {
        setup.faults.add(Fault::new(operation, Effect::Error(BucketErrorKind::Denied)));
    }
    assert!(setup.read(&digest).await == bytes && manifest().await.unwrap() == bytes);
    assert_eq!(setup.gate.gets(""), before);
    assert_eq!((setup.store.contents.size(&digest), setup.metrics.fills_running.get()), (None, 2));
    drop(cleaner);
    eventually("cancelled", || setup.fills("no_room") == 2).await;
    let forgotten = |kind| setup.store.links.age(&setup.repository, kind, &digest).is_none();
    eventually("forgotten", || forgotten(LinkKind::Layer) && forgotten(LinkKind::Revision)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_removed_during_a_download_does_not_return() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(1 << 20).await;
    setup.gate.hold_before(u64::MAX);
    let content = setup.open(&digest).await;
    setup.fetch.shared.parts.env.links.remove(&setup.repository, LinkKind::Layer, &digest).await.unwrap();
    setup.gate.open();
    assert!(collect(content, 0..1 << 20).await.unwrap() == bytes);
    setup.stored(&digest).await;
    assert!(matches!(setup.fetch.blob(&setup.repository, &digest).await, Err(FetchError::NotFound)));
}
