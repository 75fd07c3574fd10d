use crate::repository::layout::LinkKind;
use crate::repository::{Layout, Replicator};
use crate::testing::{Node, PART, Setup, counted, faulty, repository, sha256};
use bytes::Bytes;
use entrepot_bucket::Bucket;
use entrepot_bucket::fault::Fault;
use entrepot_bucket::{BucketErrorKind, Get, GetOptions, Operation, PutBody, PutMode, collect_small};
use entrepot_config::ReplicationMode;
use entrepot_oci::Digest;
use entrepot_runtime::testing::eventually;
use std::time::Duration;

async fn content(bucket: &dyn Bucket, digest: &Digest) -> Option<Bytes> {
    let key = Layout::new("").data(digest);
    match bucket.get(&key, GetOptions::default()).await.unwrap() {
        Get::Found(object) => Some(collect_small(&key, object, 1 << 20).await.unwrap().0),
        Get::NotModified | Get::Missing => None,
    }
}

fn large() -> Vec<u8> {
    (0..3 * PART + 7).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

#[tokio::test]
async fn a_large_blob_is_sent_in_parts_and_arrives_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (bucket, requests) = counted();
    let node = Node::start(folder.path(), Setup { bucket, ..Setup::default() });
    let digest = node.push(&repository("a"), &large()).await;
    assert_eq!((requests(Operation::MultipartPart), requests(Operation::MultipartComplete)), (4, 1));
    assert_eq!(content(&*node.bucket, &digest).await.unwrap(), large());
}

#[tokio::test]
async fn existing_data_is_not_sent_again_and_damaged_data_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (bucket, requests) = counted();
    let node = Node::start(folder.path(), Setup { bucket, ..Setup::default() });
    let digest = node.push(&repository("a"), b"layer").await;
    assert_eq!((requests(Operation::Head), requests(Operation::Put)), (1, 2), "check, data, link");
    node.push(&repository("b"), b"layer").await;
    assert_eq!(
        (requests(Operation::Head), requests(Operation::Put)),
        (3, 3),
        "check, the other repository's link, check"
    );
    let key = node.layout.data(&digest);
    node.bucket.put(&key, PutBody::Bytes(Bytes::from_static(b"lay")), PutMode::Overwrite).await.unwrap();
    node.push(&repository("a"), b"layer").await;
    assert_eq!(content(&*node.bucket, &digest).await.unwrap(), &b"layer"[..]);
}

#[tokio::test]
async fn a_part_that_fails_leaves_no_multipart_upload_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (bucket, faults) = faulty();
    let node = Node::start(folder.path(), Setup { bucket, mode: ReplicationMode::WriteBack, ..Setup::default() });
    faults.add(Fault::error(Operation::MultipartPart, BucketErrorKind::Server).times(1));
    let digest = node.push(&repository("a"), &large()).await;
    eventually("the blob is durable in the end", || node.metrics.pending.blobs.get() == 0).await;
    assert_eq!(content(&*node.bucket, &digest).await.unwrap(), large());
    assert_eq!(node.bucket.multipart_unfinished(&node.layout.data(&digest)).await.unwrap(), []);
}

#[tokio::test]
async fn a_blob_pending_at_a_stop_is_durable_after_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (bucket, faults) = faulty();
    let setup = || Setup { bucket: bucket.clone(), mode: ReplicationMode::WriteBack, ..Setup::default() };
    let node = Node::start(folder.path(), setup());
    // Completion and abort fail, so parts are left behind, as a killed node leaves them.
    faults.add(Fault::error(Operation::MultipartComplete, BucketErrorKind::Server));
    let aborts = faults.add(Fault::error(Operation::MultipartAbort, BucketErrorKind::Server));
    let digest = node.push(&repository("a"), &large()).await;
    eventually("parts are left behind", || faults.hits(aborts) > 0).await;
    let key = node.layout.data(&digest);
    node.stop().await;
    assert_ne!(bucket.multipart_unfinished(&key).await.unwrap(), []);

    faults.clear();
    let node = Node::start(folder.path(), setup());
    node.replicate.durable(&repository("a"), &digest).await.unwrap();
    assert_eq!(content(&*bucket, &digest).await.unwrap(), large());
    assert_eq!(bucket.multipart_unfinished(&key).await.unwrap(), []);
    eventually("the journal is empty", || std::fs::read_dir(node.store.dirs.pending()).unwrap().count() == 0).await;
}

#[tokio::test]
async fn an_entry_whose_content_was_never_adopted_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), Setup::default());
    node.replicate.journal(&repository("a"), &sha256(b"never"), 5, true).await.unwrap();
    node.stop().await;
    let node = Node::start(folder.path(), Setup::default());
    eventually("the journal is empty", || std::fs::read_dir(node.store.dirs.pending()).unwrap().count() == 0).await;
    assert_eq!(content(&*node.bucket, &sha256(b"never")).await, None);
}

#[tokio::test]
async fn a_blob_whose_journal_entry_is_damaged_is_still_made_durable() {
    for damaged in [&b""[..], b"{\"rep", b"\xff\xff"] {
        let folder = tempfile::tempdir().unwrap();
        let (bucket, faults) = faulty();
        let setup = || Setup { bucket: bucket.clone(), mode: ReplicationMode::WriteBack, ..Setup::default() };
        let node = Node::start(folder.path(), setup());
        faults.add(Fault::error(Operation::Head, BucketErrorKind::Connection).on_key("/blobs/"));
        let digest = node.push(&repository("a/b"), b"layer").await;
        assert!(node.links.exists(&repository("a/b"), LinkKind::Layer, &digest).await.unwrap());
        let entry = std::fs::read_dir(node.store.dirs.pending()).unwrap().next().unwrap().unwrap().path();
        node.stop().await;
        std::fs::write(entry, damaged).unwrap();

        let node = Node::start(folder.path(), setup());
        assert_eq!(node.store.links.age(&repository("a/b"), LinkKind::Layer, &digest), None, "no link is trusted");
        assert_eq!(node.store.contents.remove(&digest).await.unwrap(), 0, "it may be the only copy");
        faults.clear();
        eventually("the blob is durable in the end", || node.metrics.pending.blobs.get() == 0).await;
        assert_eq!(content(&*bucket, &digest).await.unwrap(), &b"layer"[..]);
        assert!(node.links.exists(&repository("a/b"), LinkKind::Layer, &digest).await.unwrap());
        eventually("one file is left, the set-aside one", || {
            std::fs::read_dir(node.store.dirs.pending()).unwrap().count() == 1
        })
        .await;
        node.stop().await;
        let node = Node::start(folder.path(), setup());
        assert_eq!(node.metrics.pending.blobs.get(), 0);
    }
}

#[tokio::test]
async fn a_blob_whose_journal_entry_and_repository_are_lost_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (bucket, faults) = faulty();
    let setup = || Setup { bucket: bucket.clone(), mode: ReplicationMode::WriteBack, ..Setup::default() };
    let name = ["long"; 40].join("/");
    let node = Node::start(folder.path(), setup());
    faults.add(Fault::error(Operation::Head, BucketErrorKind::Connection).on_key("/blobs/"));
    let digest = node.push(&repository(&name), b"layer").await;
    let entry = std::fs::read_dir(node.store.dirs.pending()).unwrap().next().unwrap().unwrap().path();
    node.stop().await;
    std::fs::write(&entry, b"").unwrap();
    for _ in 0..2 {
        let node = Node::start(folder.path(), setup());
        assert_eq!(node.store.links.age(&repository(&name), LinkKind::Layer, &digest), None);
        assert_eq!(node.store.contents.remove(&digest).await.unwrap(), 0, "it may be the only copy");
        assert_eq!(node.metrics.pending.blobs.get(), 0);
        node.stop().await;
    }
}

#[tokio::test]
async fn pending_content_is_not_evicted_until_it_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let (bucket, faults) = faulty();
    let setup = Setup { bucket, mode: ReplicationMode::WriteBack, ..Setup::default() };
    let node = Node::start(folder.path(), setup);
    faults.add(Fault::error(Operation::Head, BucketErrorKind::Connection).on_key("/blobs/"));
    let digest = node.push(&repository("a"), b"layer").await;
    assert_eq!(node.store.contents.remove(&digest).await.unwrap(), 0);
    node.clock.advance(Duration::from_secs(7));
    assert_eq!(node.replicate.oldest(), Duration::from_secs(7));
    faults.clear();
    eventually("the blob is durable in the end", || node.metrics.pending.blobs.get() == 0).await;
    assert_eq!(node.replicate.oldest(), Duration::ZERO);
    eventually("the pin is released", || node.metrics.pending.bytes.get() == 0).await;
    assert_eq!(node.store.contents.remove(&digest).await.unwrap(), 5);
}
