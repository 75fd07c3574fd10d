//! Answers within the patience of a proxy: a request that needs a blob which is pending at this
//! node waits for `upload.answerWithin` and no longer.

use super::{folder, image, put};
use crate::testing::{Node, Setup, body, faulty, repository, sha256};
use crate::upload::UploadError;
use entrepot_bucket::Operation;
use entrepot_bucket::fault::{Effect, Fault, Faults};
use entrepot_config::{self as config, ReplicationMode};
use entrepot_oci::{Digest, Reference};
use entrepot_runtime::testing::eventually;
use std::future::Future;
use std::time::Duration;
use tempfile::TempDir;

/// Much longer than `upload.answerWithin` in these tests. A request that waits for the bucket would
/// never end.
async fn answered<T>(request: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), request).await.expect("the request is answered")
}

/// A node whose bucket answers no put of data, and a blob of the repository `a` that is pending
/// there.
async fn late(mode: ReplicationMode) -> (TempDir, Node, Faults, Digest) {
    let (folder, (bucket, faults), digest) = (folder(), faulty(), sha256(b"layer"));
    let answer_within = config::Duration::from_millis(50);
    let node = Node::start(folder.path(), Setup { bucket, mode, answer_within, ..Setup::default() });
    faults.add(Fault::new(Operation::Put, Effect::Hang).on_key("/blobs/"));
    let name = repository("a");
    let id = node.open(&name).await;
    let finished = node.uploads.finish(&name, &id, &digest, None, body(&[b"layer"])).await;
    match mode {
        ReplicationMode::WriteBack => finished.unwrap(),
        ReplicationMode::WriteThrough => assert!(matches!(finished, Err(UploadError::Unfinished)), "{finished:?}"),
    }
    (folder, node, faults, digest)
}

async fn arrived(node: &Node, faults: &Faults) {
    faults.clear();
    eventually("the blob has arrived", || node.metrics.pending.blobs.get() == 0).await;
}

#[tokio::test]
async fn a_manifest_that_waits_too_long_for_its_blobs_changes_nothing_and_can_be_repeated() {
    for mode in [ReplicationMode::WriteThrough, ReplicationMode::WriteBack] {
        let (_folder, node, faults, layer) = late(mode).await;
        let (name, content) = (repository("a"), image(&[layer]));
        for _ in 0..2 {
            let refused = answered(put(&node, "a", "v1", &content)).await;
            assert!(matches!(refused, Err(UploadError::Unfinished)), "{refused:?}");
        }
        arrived(&node, &faults).await;
        // The rejected pushes do not continue in the background: another push may have set the tag
        // meanwhile.
        let Reference::Tag(tag) = Reference::parse("v1").unwrap() else { unreachable!("v1 is a tag") };
        assert!(node.tags.current(&name, &tag).await.unwrap().is_absent(), "{mode:?}");
        put(&node, "a", "v1", &content).await.unwrap();
    }
}

#[tokio::test]
async fn a_blob_that_cannot_be_mounted_in_time_must_be_uploaded() {
    let (_folder, node, faults, digest) = late(ReplicationMode::WriteThrough).await;
    let (from, to) = (repository("a"), repository("b"));
    assert!(!answered(node.uploads.mount(&to, &digest, &from)).await.unwrap());
    arrived(&node, &faults).await;
    assert!(node.uploads.mount(&to, &digest, &from).await.unwrap());
}

#[tokio::test]
async fn an_unacknowledged_blob_is_found_only_when_the_bucket_has_it() {
    let (_folder, node, faults, digest) = late(ReplicationMode::WriteThrough).await;
    let name = repository("a");
    assert!(!answered(node.uploads.may_be_found(&name, &digest)).await.unwrap());
    arrived(&node, &faults).await;
    assert!(node.uploads.may_be_found(&name, &digest).await.unwrap());
    // Under WriteBack the blob is acknowledged before, and other nodes wait for it.
    let (_folder, node, _faults, digest) = late(ReplicationMode::WriteBack).await;
    assert!(node.uploads.may_be_found(&name, &digest).await.unwrap());
}
