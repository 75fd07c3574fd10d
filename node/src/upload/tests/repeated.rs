//! Repeated requests, because the first one was interrupted or its answer was lost.

use super::{folder, in_bucket, linked, range, write_back};
use crate::repository::layout::LinkKind;
use crate::testing::{Node, Setup, body, broken_body, faulty, repository, sha256};
use crate::upload::{Place, UploadError};
use bytes::Bytes;
use entrepot_bucket::fault::{Effect, Fault};
use entrepot_bucket::{BucketErrorKind, Operation};
use entrepot_config as config;
use entrepot_oci::{Digest, Repository, SessionId};
use entrepot_runtime::testing::eventually;
use futures::{FutureExt, StreamExt, stream};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::io;
use tokio::sync::mpsc;

#[allow(clippy::unnecessary_wraps)]
fn at(offset: u64) -> Option<Place> {
    Some(Place::Offset(offset))
}

/// A body that is received as it is sent by the test; it breaks when the sender is dropped.
fn slow_body() -> (mpsc::UnboundedSender<Bytes>, impl futures::Stream<Item = io::Result<Bytes>> + Send + Unpin) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        let piece: Option<Bytes> = receiver.recv().await;
        Some((piece.ok_or_else(|| io::ErrorKind::ConnectionReset.into()), receiver))
    });
    (sender, Box::pin(pieces))
}

/// A client that repeats each request until it is answered, over a connection that breaks half of
/// the time, to a node that is restarted from time to time.
#[tokio::test]
async fn a_client_that_repeats_interrupted_requests_pushes_its_content() {
    let name = repository("a");
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let content: Vec<u8> = (0..random.random_range(1..20_000)).map(|_| random.random()).collect();
        let (folder, bucket) = (folder(), Setup::default().bucket);
        let start = || Node::start(folder.path(), Setup { bucket: bucket.clone(), ..Setup::default() });
        let mut node = start();
        let (id, mut location) = (node.open(&name).await, 0);
        let digest = sha256(&content);
        for _ in 0..1000 {
            if random.random_ratio(1, 12) {
                node.stop().await;
                node = start();
            }
            if random.random_ratio(1, 8) {
                // A client that resumes requests the progress of the session.
                location = usize::try_from(node.uploads.status(&name, &id).await.unwrap().offset).unwrap();
            }
            let end = random.random_range(location..=content.len());
            let breaks = random.random_ratio(1, 2).then(|| random.random_range(location..=end));
            let last = end == content.len();
            if let Some(broken) = breaks {
                let broken = broken_body(&content[location..broken]);
                let result = node.uploads.append(&name, &id, at(location as u64), broken).await.map(|_| ());
                assert!(matches!(result, Err(UploadError::Body(_))), "{seed}: {result:?}");
            } else if last {
                let whole = body(&[&content[location..]]);
                node.uploads.finish(&name, &id, &digest, at(location as u64), whole).await.unwrap();
                // Sends the same again, because its answer was lost.
                let whole = body(&[&content[location..]]);
                node.uploads.finish(&name, &id, &digest, at(location as u64), whole).await.unwrap();
                break;
            } else {
                let chunk = body(&[&content[location..end]]);
                let status = node.uploads.append(&name, &id, at(location as u64), chunk).await.unwrap();
                // An empty chunk acknowledges the interrupted bytes before it.
                assert!(status.offset >= end as u64);
                location = usize::try_from(status.offset).unwrap();
            }
        }
        assert!(in_bucket(&node, &digest).await, "{seed}");
        eventually("nothing is reserved", || node.store.room.usage().reserved == 0).await;
    }
}

#[tokio::test]
async fn acknowledged_bytes_are_not_replaced_and_the_client_learns_the_offset() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let name = repository("a");
    let id = node.open(&name).await;
    node.uploads.append(&name, &id, at(0), body(&[b"lay"])).await.unwrap();
    for place in [at(0), at(2), at(4), range("0-2")] {
        let refused = node.uploads.append(&name, &id, place, body(&[b"lay"])).await;
        assert!(matches!(refused, Err(UploadError::OutOfOrder { offset: 3 })), "{place:?} {refused:?}");
    }
    node.uploads.finish(&name, &id, &sha256(b"layer"), at(3), body(&[b"er"])).await.unwrap();
}

#[tokio::test]
async fn an_interrupted_range_is_replaced_too() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let name = repository("a");
    let id = node.open(&name).await;
    assert!(node.uploads.append(&name, &id, range("0-2"), broken_body(b"la")).await.is_err());
    assert_eq!(node.uploads.append(&name, &id, range("0-2"), body(&[b"lay"])).await.unwrap().offset, 3);
    // From the middle of the interrupted bytes, as a client that requested its progress sends it.
    assert!(node.uploads.append(&name, &id, range("3-9"), broken_body(b"erxx")).await.is_err());
    node.uploads.finish(&name, &id, &sha256(b"layers"), range("5-5"), body(&[b"s"])).await.unwrap();
}

#[tokio::test]
async fn replaced_bytes_are_reserved_once() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let name = repository("a");
    let id = node.open(&name).await;
    for _ in 0..3 {
        assert!(node.uploads.append(&name, &id, at(0), broken_body(&[7; 5000])).await.is_err());
        assert_eq!(node.store.room.usage().reserved, 5000);
    }
    node.uploads.append(&name, &id, at(0), body(&[&[7; 100]])).await.unwrap();
    assert_eq!(node.store.room.usage().reserved, 100);
    assert_eq!(node.uploads.status(&name, &id).await.unwrap().offset, 100);
}

#[tokio::test]
async fn a_request_without_a_body_is_accepted_at_any_offset() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let name = repository("a");
    let id = node.open(&name).await;
    node.uploads.append(&name, &id, at(0), body(&[b"lay"])).await.unwrap();
    assert!(node.uploads.append(&name, &id, at(3), broken_body(b"er")).await.is_err());
    // The same whether the client announces it or the body turns out to be empty.
    for empty in [&[] as &[&[u8]], &[b"", b""]] {
        for offset in [0, 3, 4, 5] {
            assert_eq!(node.uploads.append(&name, &id, at(offset), body(empty)).await.unwrap().offset, 5);
        }
    }
    node.uploads.finish(&name, &id, &sha256(b"layer"), at(0), body(&[])).await.unwrap();
}

#[tokio::test]
async fn a_repetition_waits_for_the_first_request_and_never_mixes_with_it() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let name = repository("a");
    let id = node.open(&name).await;
    let (sender, first) = slow_body();
    let mut first = std::pin::pin!(node.uploads.append(&name, &id, at(0), first));
    sender.send(Bytes::from_static(b"xx")).unwrap();
    assert!(futures::poll!(&mut first).is_pending());
    let mut second = std::pin::pin!(node.uploads.append(&name, &id, at(0), body(&[b"lay"])));
    assert!(futures::poll!(&mut second).is_pending());
    sender.send(Bytes::from_static(b"xx")).unwrap();
    drop(sender);
    let (first, second) = futures::join!(first, second);
    assert!(matches!(first, Err(UploadError::Body(_))), "{first:?}");
    assert_eq!(second.unwrap().offset, 3);
    node.uploads.finish(&name, &id, &sha256(b"lay"), None, body(&[])).await.unwrap();
}

async fn finish(node: &Node, name: &Repository, id: &SessionId, digest: &Digest) -> Result<(), UploadError> {
    node.uploads.finish(name, id, digest, at(0), body(&[b"layer"])).await
}

#[tokio::test]
async fn a_put_repeated_after_its_commit_succeeds_and_no_other_does() {
    let folder = folder();
    let bucket = Setup::default().bucket;
    let node = Node::start(folder.path(), Setup { bucket: bucket.clone(), ..Setup::default() });
    let (name, digest) = (repository("a"), sha256(b"layer"));
    let other = node.push(&name, b"other").await;
    let id = node.open(&name).await;
    finish(&node, &name, &id, &digest).await.unwrap();
    finish(&node, &name, &id, &digest).await.unwrap();
    for (name, digest) in [(&name, &other), (&repository("b"), &digest)] {
        let refused = finish(&node, name, &id, digest).await;
        assert!(matches!(refused, Err(UploadError::UnknownSession)), "{refused:?}");
    }
    node.stop().await;

    // Nothing is remembered any more: the bucket answers.
    let node = Node::start(folder.path(), Setup { bucket, ..Setup::default() });
    finish(&node, &name, &id, &digest).await.unwrap();
    node.uploads.finished(&name, &digest).await.unwrap();
    let refused = finish(&node, &repository("b"), &id, &digest).await;
    assert!(matches!(refused, Err(UploadError::UnknownSession)), "{refused:?}");
    assert!(!linked(&node, "b", &digest).await, "a repetition links nothing");
}

#[tokio::test]
async fn a_repeated_put_relies_only_on_the_bucket() {
    for lost in ["link", "data"] {
        let folder = folder();
        let node = Node::start(folder.path(), Setup::default());
        let (name, digest) = (repository("a"), sha256(b"layer"));
        let id = node.open(&name).await;
        finish(&node, &name, &id, &digest).await.unwrap();
        let link = node.layout.link(&name, LinkKind::Layer, &digest);
        let key = if lost == "link" { link } else { node.layout.data(&digest) };
        node.bucket.delete(&key).await.unwrap();
        let refused = finish(&node, &name, &id, &digest).await;
        assert!(matches!(refused, Err(UploadError::UnknownSession)), "{lost}: {refused:?}");
        assert!(node.bucket.head(&key).await.unwrap().is_none(), "{lost}");
    }
}

#[tokio::test]
async fn a_put_repeated_during_the_first_commit_has_the_same_result() {
    let folder = folder();
    let (bucket, faults) = faulty();
    let node = Node::start(folder.path(), Setup { bucket, ..Setup::default() });
    let (name, digest) = (repository("a"), sha256(b"layer"));
    let hanging = faults.add(Fault::new(Operation::Put, Effect::Hang).on_key("/blobs/"));
    let id = node.open(&name).await;
    let mut first = Box::pin(finish(&node, &name, &id, &digest));
    let waiting = eventually("the bucket hangs", || {
        assert!(first.as_mut().now_or_never().is_none());
        faults.hits(hanging) == 1
    });
    waiting.await;
    let mut second = Box::pin(finish(&node, &name, &id, &digest));
    assert!(futures::poll!(&mut second).is_pending());
    // The first client disconnects; its commit continues.
    drop(first);
    assert!(futures::poll!(&mut second).is_pending());
    faults.clear();
    second.await.unwrap();
    assert!(in_bucket(&node, &digest).await && linked(&node, "a", &digest).await);
}

#[tokio::test]
async fn a_put_that_takes_too_long_can_be_repeated_to_get_its_result() {
    let folder = folder();
    let (bucket, faults) = faulty();
    let answer_within = config::Duration::from_millis(50);
    let node = Node::start(folder.path(), Setup { bucket, answer_within, ..Setup::default() });
    let (name, digest) = (repository("a"), sha256(b"layer"));
    faults.add(Fault::new(Operation::Put, Effect::Hang).on_key("/blobs/"));
    let id = node.open(&name).await;
    for _ in 0..3 {
        let late = finish(&node, &name, &id, &digest).await;
        assert!(matches!(late, Err(UploadError::Unfinished)), "{late:?}");
    }
    faults.clear();
    eventually("the commit continues by itself", || node.metrics.pending.blobs.get() == 0).await;
    finish(&node, &name, &id, &digest).await.unwrap();
}

#[tokio::test]
async fn a_put_that_failed_at_the_bucket_succeeds_when_repeated() {
    let folder = folder();
    let (bucket, faults) = faulty();
    let node = Node::start(folder.path(), Setup { bucket: bucket.clone(), ..Setup::default() });
    let (name, digest) = (repository("a"), sha256(b"layer"));
    faults.add(Fault::error(Operation::Put, BucketErrorKind::Server).on_key("/blobs/"));
    let id = node.open(&name).await;
    for _ in 0..2 {
        let refused = finish(&node, &name, &id, &digest).await;
        assert!(matches!(refused, Err(UploadError::Bucket(_))), "{refused:?}");
    }
    node.stop().await;
    // The same at a node that has restarted: a pending blob is not unknown.
    let node = Node::start(folder.path(), Setup { bucket, ..Setup::default() });
    let refused = finish(&node, &name, &id, &digest).await;
    assert!(matches!(refused, Err(UploadError::Bucket(_))), "{refused:?}");
    faults.clear();
    eventually("the blob is durable", || node.metrics.pending.blobs.get() == 0).await;
    finish(&node, &name, &id, &digest).await.unwrap();
}

#[tokio::test]
async fn a_write_back_acknowledgement_is_repeated_while_the_bucket_is_unreachable() {
    let folder = folder();
    let (bucket, faults) = faulty();
    let node = Node::start(folder.path(), Setup { bucket, ..write_back() });
    let (name, digest) = (repository("a"), sha256(b"layer"));
    for operation in [Operation::Put, Operation::Get, Operation::Head] {
        faults.add(Fault::error(operation, BucketErrorKind::Connection));
    }
    let id = node.open(&name).await;
    finish(&node, &name, &id, &digest).await.unwrap();
    finish(&node, &name, &id, &digest).await.unwrap();
}

#[tokio::test]
async fn a_request_that_waits_for_a_session_that_ends_gets_unknown_session() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let name = repository("a");
    let id = node.open(&name).await;
    let (sender, first) = slow_body();
    let (digest, other) = (sha256(b"layer"), sha256(b"other"));
    let mut first = std::pin::pin!(node.uploads.finish(&name, &id, &other, at(0), first.take(1)));
    assert!(futures::poll!(&mut first).is_pending());
    let mut append = std::pin::pin!(node.uploads.append(&name, &id, at(0), body(&[b"x"])));
    let mut finish = std::pin::pin!(finish(&node, &name, &id, &digest));
    assert!(futures::poll!(&mut append).is_pending() && futures::poll!(&mut finish).is_pending());
    sender.send(Bytes::from_static(b"layer")).unwrap();
    let (first, append, finish) = futures::join!(first, append, finish);
    assert!(matches!(first, Err(UploadError::DigestMismatch { .. })), "{first:?}");
    assert!(matches!(append, Err(UploadError::UnknownSession)), "{append:?}");
    assert!(matches!(finish, Err(UploadError::UnknownSession)), "{finish:?}");
}
