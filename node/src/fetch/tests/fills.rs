//! One download for all requests of a digest.

use super::*;
use futures::future::join_all;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_readers_share_one_download_and_read_before_it_ends() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(1 << 20).await;
    setup.gate.hold_before(u64::MAX);
    setup.gate.let_pass(1);
    let contents = join_all((0..64).map(|_| setup.open(&digest))).await;
    let mut readers: Vec<_> = contents.into_iter().map(|content| content.read(0..1 << 20)).collect();
    let firsts = join_all(readers.iter_mut().map(StreamExt::next)).await;
    assert_eq!(setup.metrics.fills_running.get(), 1);
    assert_eq!(setup.store.contents.size(&digest), None);
    setup.gate.open();
    for (first, rest) in firsts.into_iter().zip(readers) {
        let mut all = first.unwrap().unwrap().to_vec();
        all.extend(rest.try_collect::<Vec<Bytes>>().await.unwrap().concat());
        assert!(all == bytes);
    }
    assert_eq!((setup.fills("stored"), setup.fetches("fill"), setup.fetches("joined")), (1, 1, 63));
    assert_eq!(setup.gate.gets("/data"), 16, "each range is requested once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missed_blob_costs_link_and_range_requests_and_a_stored_one_none() {
    let setup = Setup::new();
    for (size, ranges) in [(1, 1), (RANGE as usize, 1), (RANGE as usize + 1, 2), (10 * RANGE as usize, 10)] {
        let (digest, bytes) = setup.blob(size).await;
        let before = setup.gate.gets("");
        assert!(setup.read(&digest).await == bytes);
        assert_eq!(setup.gate.gets("") - before, 1 + ranges, "{size}");
        setup.stored(&digest).await;
        assert!(setup.read(&digest).await == bytes);
        assert_eq!(setup.gate.gets("") - before, 1 + ranges, "the stored blob, its link remembered: {size}");
    }
    assert_eq!(setup.gate.heads.load(Ordering::SeqCst), 0);
    assert_eq!(setup.fetches("hit"), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_follows_the_first_range_is_read_through_the_background_handle() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(10 * RANGE as usize).await;
    assert!(setup.read(&digest).await == bytes);
    setup.stored(&digest).await;
    assert_eq!(setup.gate.gets("/data"), 10);
    assert_eq!(setup.background_requests.requests.with_label_values(&["get", "ok"]).get(), 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_without_parallel_ranges_is_read_in_one_request() {
    let setup = Setup::on(Fixture::roomy(), false);
    let (digest, bytes) = setup.blob(1 << 20).await;
    assert!(setup.read(&digest).await == bytes);
    assert_eq!(setup.gate.gets("/data"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_blob_is_stored_and_served() {
    for parallel in [true, false] {
        let setup = Setup::on(Fixture::roomy(), parallel);
        let (digest, _) = setup.blob(0).await;
        let content = setup.open(&digest).await;
        assert_eq!(content.size, 0);
        assert!(collect(content, 0..0).await.unwrap().is_empty());
        setup.stored(&digest).await;
        assert!(setup.read(&digest).await.is_empty());
        assert_eq!(setup.fetches("hit"), 1);
        assert_eq!(setup.gate.gets(""), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_continues_when_its_readers_leave() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(500_000).await;
    setup.gate.hold_before(u64::MAX);
    let mut reader = setup.open(&digest).await.read(0..500_000);
    setup.gate.let_pass(1);
    reader.next().await.unwrap().unwrap();
    drop(reader);
    setup.gate.open();
    setup.stored(&digest).await;
    assert!(setup.read(&digest).await == bytes);
    assert_eq!((setup.fills("stored"), setup.fetches("hit")), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_node_cancels_a_download_without_readers_and_finishes_others() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(300_000).await;
    let (unread, _) = setup.blob(200_000).await;
    setup.gate.hold_before(u64::MAX);
    let reader = setup.open(&digest).await.read(0..300_000);
    drop(setup.open(&unread).await);
    let (ended, all) = tokio::join!(setup.tasks.stop(PATIENCE), async {
        eventually("cancelled", || setup.metrics.fills_running.get() == 1).await;
        setup.gate.open();
        reader.try_collect::<Vec<Bytes>>().await.unwrap().concat()
    });
    assert!(ended && all == bytes);
    assert_eq!((setup.store.contents.size(&unread), setup.store.contents.size(&digest)), (None, Some(300_000)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_further_range_is_requested_while_every_thread_is_busy() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(4 * RANGE as usize).await;
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let mut busy = Vec::new();
    while setup.background.has_idle_thread() {
        let released = released.clone();
        let mut work = Box::pin(setup.background.run(move || released.lock().recv()));
        assert!(futures::poll!(work.as_mut()).is_pending());
        busy.push(work);
    }
    let (read, ()) = tokio::join!(setup.read(&digest), async {
        eventually("arrived bytes wait", || setup.background.waiting() == 1).await;
        assert_eq!(setup.gate.gets("/data"), 1);
        drop(release);
    });
    assert!(read == bytes);
    assert_eq!(setup.gate.gets("/data"), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_algorithms_are_verified() {
    let setup = Setup::new();
    let bytes = content(5, 200_000).1;
    let digest = Digest::of(Algorithm::Sha512, &bytes);
    setup.put(&setup.layout.data(&digest), bytes.clone()).await;
    setup.link(LinkKind::Layer, &digest).await;
    assert!(setup.read(&digest).await == bytes);
    setup.stored(&digest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_without_a_link_is_not_found_even_if_it_is_stored() {
    let setup = Setup::new();
    let (digest, _) = setup.blob(10).await;
    setup.read(&digest).await;
    setup.stored(&digest).await;
    let other = Repository::parse("other").unwrap();
    assert!(matches!(setup.fetch.blob(&other, &digest).await, Err(FetchError::NotFound)));
    assert!(matches!(setup.fetch.blob_size(&other, &digest).await, Err(FetchError::NotFound)));
    // A removed link is trusted for a while, and then no longer.
    setup.memory.delete(&setup.layout.link(&setup.repository, LinkKind::Layer, &digest)).await.unwrap();
    setup.read(&digest).await;
    setup.clock.advance(Duration::from_secs(601));
    assert!(matches!(setup.fetch.blob(&setup.repository, &digest).await, Err(FetchError::NotFound)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_repository_that_joined_a_download_is_remembered_with_its_content() {
    let setup = Setup::new();
    let (digest, _) = setup.blob(200_000).await;
    let other = Repository::parse("other").unwrap();
    setup.put(&setup.layout.link(&other, LinkKind::Layer, &digest), link_content(&digest)).await;
    setup.gate.hold_before(u64::MAX);
    setup.gate.let_pass(2);
    setup.open(&digest).await;
    setup.fetch.blob(&other, &digest).await.unwrap();
    setup.gate.open();
    setup.stored(&digest).await;
    let before = setup.gate.gets("");
    setup.read(&digest).await;
    setup.fetch.blob(&other, &digest).await.unwrap();
    assert_eq!(setup.gate.gets(""), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_size_is_known_without_a_download() {
    let setup = Setup::new();
    let (digest, _) = setup.blob(300_000).await;
    let size = || setup.fetch.blob_size(&setup.repository, &digest);
    assert_eq!(size().await.unwrap(), 300_000);
    assert_eq!((setup.gate.heads.load(Ordering::SeqCst), setup.gate.gets("/data")), (1, 0));
    // The bucket is asked each time, because a client does not push a blob that it finds.
    setup.gate.hold_before(u64::MAX);
    setup.gate.let_pass(1);
    let _content = setup.open(&digest).await;
    assert_eq!(size().await.unwrap(), 300_000);
    setup.gate.open();
    setup.stored(&digest).await;
    assert_eq!(size().await.unwrap(), 300_000);
    assert_eq!(setup.gate.heads.load(Ordering::SeqCst), 3);
}
