//! Damaged objects of the bucket, and content that the store lost.

use super::*;
use entrepot_bucket::Operation;
use entrepot_bucket::fault::Fault;

impl Setup {
    /// Large content whose object is damaged, after a mismatch was detected.
    async fn seen_damaged(&self, size: usize) -> Digest {
        let digest = self.damaged_blob(size).await;
        self.fails(&digest).await;
        digest
    }

    /// Reads the whole content, which ends early.
    async fn fails(&self, digest: &Digest) {
        let content = self.open(digest).await;
        let size = content.size;
        assert!(collect(content, 0..size).await.is_err());
        eventually("settled", || self.metrics.fills_running.get() == 0).await;
    }

    async fn is_refused(&self, digest: &Digest) -> bool {
        let get = self.fetch.blob(&self.repository, digest).await;
        matches!(get, Err(FetchError::Mismatch(of)) if of == *digest)
    }

    async fn repair(&self, digest: &Digest, size: usize) -> Bytes {
        let (of, bytes) = content(size as u64, size);
        assert_eq!(of, *digest);
        self.put(&self.layout.data(digest), bytes.clone()).await;
        bytes
    }
}

const SIZE: usize = 5 * RANGE as usize;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_did_not_match_is_not_served_until_it_is_replaced() {
    let setup = Setup::new();
    let digest = setup.seen_damaged(SIZE).await;
    assert!(setup.damaged.is_damaged(&digest));
    for _ in 0..3 {
        assert!(setup.is_refused(&digest).await);
        let size = setup.fetch.blob_size(&setup.repository, &digest).await;
        assert!(matches!(size, Err(FetchError::Mismatch(_))), "{size:?}");
    }
    let bytes = setup.repair(&digest, SIZE).await;
    setup.clock.advance(Duration::from_secs(6));
    assert!(setup.read(&digest).await == bytes);
    assert!(!setup.damaged.is_damaged(&digest));
    assert_eq!(setup.fetch.blob_size(&setup.repository, &digest).await.unwrap(), SIZE as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_that_was_on_the_way_is_over_with_the_next_request() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(SIZE).await;
    setup.damaged.mark(&digest, setup.memory.head(&setup.layout.data(&digest)).await.unwrap());
    let content = setup.open(&digest).await;
    assert!(collect(content, 7..1000).await.unwrap() == bytes[7..1000]);
    assert!(!setup.damaged.is_damaged(&digest));
    setup.stored(&digest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_object_that_is_requested_often_is_rarely_read() {
    let setup = Setup::new();
    let digest = setup.seen_damaged(SIZE).await;
    // The next request reads it again, because it may have been damaged on the way.
    assert!(setup.is_refused(&digest).await);
    let (gets, heads) = (setup.gate.gets("/data"), setup.gate.heads.load(Ordering::SeqCst));
    for _ in 0..50 {
        assert!(setup.is_refused(&digest).await);
    }
    assert_eq!(setup.gate.gets("/data"), gets);
    assert!(setup.gate.heads.load(Ordering::SeqCst) <= heads + 1);
    setup.clock.advance(Duration::from_secs(11));
    assert!(setup.is_refused(&digest).await);
    assert!(setup.gate.gets("/data") > gets);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_replaced_it_ends_the_refusal_at_once() {
    let setup = Setup::new();
    let digest = setup.seen_damaged(SIZE).await;
    assert!(setup.is_refused(&digest).await);
    let bytes = setup.repair(&digest, SIZE).await;
    setup.damaged.repaired(&digest);
    assert!(setup.read(&digest).await == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stored_copy_is_served_even_if_the_object_is_damaged() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(SIZE).await;
    assert!(setup.read(&digest).await == bytes);
    setup.stored(&digest).await;
    setup.damaged.mark(&digest, None);
    assert!(setup.read(&digest).await == bytes);
    assert_eq!(setup.fetch.blob_size(&setup.repository, &digest).await.unwrap(), SIZE as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_space_a_damaged_object_is_read_to_its_end_before_it_is_served() {
    let setup = Setup::on(Fixture::new(1000, 0, 0), true);
    let digest = setup.seen_damaged(SIZE).await;
    assert!(setup.damaged.is_damaged(&digest), "a mismatch is also detected in pass-through content");
    assert!(setup.is_refused(&digest).await);
    let bytes = setup.repair(&digest, SIZE).await;
    setup.clock.advance(Duration::from_secs(60));
    assert!(setup.read(&digest).await == bytes);

    let (digest, bytes) = setup.blob(SIZE + 1).await;
    setup.damaged.mark(&digest, None);
    assert!(setup.read(&digest).await == bytes);
    assert!(!setup.damaged.is_damaged(&digest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_that_the_store_lost_is_downloaded_again_without_a_reader() {
    let setup = Setup::new();
    for size in [1000, SIZE] {
        let (digest, _) = setup.blob(size).await;
        setup.fetch.refill(&digest);
        setup.stored(&digest).await;
        let gets = setup.gate.gets("/data");
        setup.fetch.refill(&digest);
        assert_eq!(setup.gate.gets("/data"), gets, "it is stored");
        assert_eq!(setup.fetches("fill"), 0);
    }
    let (digest, _) = content(3, 3);
    setup.fetch.refill(&digest);
    eventually("the object is missing", || setup.fills("failed") == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_replaces_a_damaged_stored_copy_from_the_bucket() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(SIZE).await;
    assert!(setup.read(&digest).await == bytes);
    setup.stored(&digest).await;
    crate::store::testing::corrupt(&setup.disk.file_of(&digest));
    assert!(setup.read(&digest).await == bytes);
    setup.stored(&digest).await;
    assert!(std::fs::read(setup.disk.file_of(&digest)).unwrap() == bytes);
    assert_eq!(setup.metrics.mismatches.with_label_values(&["store"]).get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_download_directory_is_recreated() {
    let setup = Setup::new();
    std::fs::remove_dir(setup.disk.config.path.join("fills")).unwrap();
    for size in [1000, SIZE] {
        let (digest, bytes) = setup.blob(size).await;
        assert!(setup.read(&digest).await == bytes);
        setup.stored(&digest).await;
        std::fs::remove_dir(setup.disk.config.path.join("fills")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_object_is_a_bucket_error_while_the_bucket_is_unreachable() {
    let setup = Setup::new();
    let digest = setup.seen_damaged(SIZE).await;
    setup.faults.add(Fault::error(Operation::Head, entrepot_bucket::BucketErrorKind::Denied).on_key("/data"));
    let refused = setup.fetch.blob(&setup.repository, &digest).await;
    assert!(matches!(refused, Err(FetchError::Bucket(_))));
}
