mod late;
mod pressure;
mod repeated;
mod restart;

use super::*;
use crate::repository::tags::TagError;
use crate::testing::{Node, Setup, body, broken_body, counted, descriptor, faulty, manifest_push, repository, sha256};
use entrepot_bucket::fault::{Effect, Fault};
use entrepot_bucket::{BucketErrorKind, Operation};
use entrepot_config::{ByteSize, ReplicationMode};
use entrepot_oci::{Algorithm, Tag, UploadRange};
use entrepot_runtime::testing::eventually;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

async fn in_bucket(node: &Node, digest: &Digest) -> bool {
    node.bucket.head(&node.layout.data(digest)).await.unwrap().is_some()
}

async fn linked(node: &Node, name: &str, digest: &Digest) -> bool {
    let key = node.layout.link(&repository(name), LinkKind::Layer, digest);
    node.bucket.head(&key).await.unwrap().is_some()
}

fn range(text: &str) -> Option<Place> {
    Some(Place::Range(UploadRange::parse(text).unwrap()))
}

fn write_back() -> Setup {
    Setup { mode: ReplicationMode::WriteBack, ..Setup::default() }
}

fn image(blobs: &[Digest]) -> Bytes {
    let layers: Vec<_> = blobs.iter().map(descriptor).collect();
    serde_json::json!({"schemaVersion": 2, "config": layers[0], "layers": layers}).to_string().into()
}

async fn put(node: &Node, name: &str, reference: &str, content: &Bytes) -> Result<Accepted, UploadError> {
    let push = manifest_push(Reference::parse(reference).unwrap(), content);
    node.uploads.manifest(&repository(name), push, ()).await
}

#[tokio::test]
async fn an_acknowledged_blob_is_in_the_bucket_and_linked() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let digest = node.push(&repository("a"), b"layer").await;
    assert!(in_bucket(&node, &digest).await && linked(&node, "a", &digest).await);
    assert_eq!(node.store.contents.size(&digest), Some(5));
    assert_eq!(std::fs::read_dir(node.store.dirs.uploads()).unwrap().count(), 0, "the session is gone");
    eventually("the journal is empty", || std::fs::read_dir(node.store.dirs.pending()).unwrap().count() == 0).await;
}

#[tokio::test]
async fn chunks_are_appended_and_every_algorithm_is_verified() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let name = repository("a");
    for algorithm in Algorithm::ALL {
        let id = node.open(&name).await;
        let status = node.uploads.append(&name, &id, range("0-2"), body(&[b"l", b"", b"ay"])).await.unwrap();
        assert_eq!(status.offset, 3);
        let digest = Digest::of(algorithm, b"layer");
        node.uploads.finish(&name, &id, &digest, None, body(&[b"er"])).await.unwrap();
        assert!(in_bucket(&node, &digest).await);
    }
}

#[tokio::test]
async fn a_chunk_that_does_not_start_at_the_end_is_rejected_and_changes_nothing() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let name = repository("a");
    let id = node.open(&name).await;
    node.uploads.append(&name, &id, None, body(&[b"lay"])).await.unwrap();
    for text in ["0-1", "4-5"] {
        let refused = node.uploads.append(&name, &id, range(text), body(&[b"er"])).await;
        assert!(matches!(refused, Err(UploadError::OutOfOrder { offset: 3 })), "{refused:?}");
    }
    assert_eq!(node.uploads.status(&name, &id).await.unwrap().offset, 3);
}

#[tokio::test]
async fn a_body_of_another_length_than_its_range_is_refused() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let name = repository("a");
    let id = node.open(&name).await;
    let short = node.uploads.append(&name, &id, range("0-4"), body(&[b"lay"])).await;
    assert!(matches!(short, Err(UploadError::Length { offset: 3 })), "{short:?}");
    let long = node.uploads.append(&name, &id, range("3-3"), body(&[b"er"])).await;
    assert!(matches!(long, Err(UploadError::LongerThanRange)), "{long:?}");
    assert_eq!(node.uploads.status(&name, &id).await.unwrap().offset, 3);
}

#[tokio::test]
async fn a_broken_connection_keeps_the_bytes_received_before() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let name = repository("a");
    let id = node.open(&name).await;
    assert!(matches!(node.uploads.append(&name, &id, None, broken_body(b"lay")).await, Err(UploadError::Body(_))));
    assert_eq!(node.uploads.status(&name, &id).await.unwrap().offset, 3);
    node.uploads.finish(&name, &id, &sha256(b"layer"), None, body(&[b"er"])).await.unwrap();
}

#[tokio::test]
async fn a_commit_that_ends_with_its_node_is_not_reported_as_a_broken_connection() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let stopped = tokio::runtime::Runtime::new().unwrap();
    let mut commit = Box::pin(node.uploads.to_the_end(std::future::pending::<Result<(), UploadError>>()));
    {
        let _runs_there = stopped.enter();
        assert!(futures::FutureExt::now_or_never(&mut commit).is_none());
    }
    stopped.shutdown_background();
    let result = commit.await;
    assert!(matches!(result, Err(UploadError::Stopping)), "{result:?}");
}

#[tokio::test]
async fn a_session_survives_a_restart_to_the_last_byte() {
    let folder = folder();
    let name = repository("a");
    let bucket = Setup::default().bucket;
    let node = Node::start(folder.path(), Setup { bucket: bucket.clone(), ..Setup::default() });
    let id = node.open(&name).await;
    node.uploads.append(&name, &id, None, body(&[b"la"])).await.unwrap();
    // The record contains nothing about an interrupted body.
    assert!(node.uploads.append(&name, &id, None, broken_body(b"y")).await.is_err());
    node.stop().await;

    let node = Node::start(folder.path(), Setup { bucket, ..Setup::default() });
    assert_eq!(node.uploads.status(&name, &id).await.unwrap().offset, 3);
    assert!(node.store.room.usage().used + node.store.room.usage().reserved >= 3, "its bytes are accounted for");
    node.uploads.finish(&name, &id, &sha256(b"layer"), None, body(&[b"er"])).await.unwrap();
}

#[tokio::test]
async fn remains_of_a_session_after_a_crash_are_removed_at_the_next_start() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let uploads = node.store.dirs.uploads();
    node.stop().await;
    std::fs::create_dir(uploads.join(format!("a.{}", uuid::Uuid::new_v4()))).unwrap();
    std::fs::create_dir(uploads.join("nonsense")).unwrap();
    let node = Node::start(folder.path(), Setup::default());
    assert_eq!(std::fs::read_dir(node.store.dirs.uploads()).unwrap().count(), 0);
}

#[tokio::test]
async fn content_of_another_digest_is_refused_and_ends_the_session() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let name = repository("a");
    let id = node.open(&name).await;
    let refused = node.uploads.finish(&name, &id, &sha256(b"other"), None, body(&[b"layer"])).await;
    assert!(matches!(refused, Err(UploadError::DigestMismatch { .. })), "{refused:?}");
    assert!(matches!(node.uploads.status(&name, &id).await, Err(UploadError::UnknownSession)));
    assert_eq!(node.store.room.usage().reserved, 0);
    assert!(!in_bucket(&node, &sha256(b"other")).await);
}

#[tokio::test]
async fn a_session_belongs_to_its_repository_and_its_node() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let id = node.open(&repository("a")).await;
    assert!(matches!(node.uploads.status(&repository("b"), &id).await, Err(UploadError::UnknownSession)));
    assert_eq!(node.uploads.owner(&id), Owner::Here);
    let other = SessionId::new(entrepot_oci::NodeName::parse("b").unwrap());
    assert_eq!(node.uploads.owner(&other), Owner::Peer("http://b.peers:5000".parse().unwrap()));
}

#[tokio::test]
async fn without_space_an_upload_is_rejected_and_the_store_keeps_its_content() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup { capacity: ByteSize::bytes(2000), ..Setup::default() });
    let name = repository("a");
    let stored = [node.push(&name, &[1; 600]).await, node.push(&name, &[2; 600]).await];
    let id = node.open(&name).await;
    node.uploads.append(&name, &id, None, body(&[&[3; 500]])).await.unwrap();
    let refused = node.uploads.append(&name, &id, None, body(&[&[3; 350]])).await;
    assert!(matches!(&refused, Err(UploadError::Store(error)) if error.is_no_room()), "{refused:?}");
    assert_eq!(node.uploads.status(&name, &id).await.unwrap().offset, 500);
    assert!(stored.iter().all(|digest| node.store.contents.size(digest).is_some()));
}

#[tokio::test]
async fn a_blob_is_mounted_from_a_repository_that_has_it_and_from_no_other() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let digest = node.push(&repository("a"), b"layer").await;
    assert!(node.uploads.mount(&repository("b"), &digest, &repository("a")).await.unwrap());
    assert!(linked(&node, "b", &digest).await);
    assert!(!node.uploads.mount(&repository("c"), &digest, &repository("empty")).await.unwrap());
    assert!(!linked(&node, "c", &digest).await);
}

#[tokio::test]
async fn write_back_acknowledges_blobs_at_once_and_the_manifest_after_the_bucket_has_them() {
    let folder = folder();
    let (bucket, faults) = faulty();
    let node = Node::start(folder.path(), Setup { bucket, ..write_back() });
    faults.add(Fault::error(Operation::Put, BucketErrorKind::Server).on_key("/blobs/"));
    let digest = node.push(&repository("a"), b"layer").await;
    assert!(!in_bucket(&node, &digest).await, "the blob is acknowledged and not yet durable");
    let manifest = image(&[digest]);
    let refused = put(&node, "a", "latest", &manifest).await;
    assert!(matches!(refused, Err(UploadError::Bucket(_))), "{refused:?}");
    faults.clear();
    let (node, name) = (&node, repository("a"));
    let tag = Reference::Tag(Tag::parse("latest").unwrap());
    let accepted = tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            if let Ok(accepted) = node.uploads.manifest(&name, manifest_push(tag.clone(), &manifest), ()).await {
                return accepted;
            }
            tokio::task::yield_now().await;
        }
    });
    let accepted = accepted.await.unwrap();
    assert!(in_bucket(node, &digest).await && in_bucket(node, &accepted.digest).await);
}

#[tokio::test]
async fn write_through_reports_a_failing_bucket_and_uploads_the_blob_later() {
    let folder = folder();
    let (bucket, faults) = faulty();
    let node = Node::start(folder.path(), Setup { bucket, ..Setup::default() });
    faults.add(Fault::error(Operation::Put, BucketErrorKind::Server).on_key("/blobs/"));
    let name = repository("a");
    let id = node.open(&name).await;
    let refused = node.uploads.finish(&name, &id, &sha256(b"layer"), None, body(&[b"layer"])).await;
    assert!(matches!(refused, Err(UploadError::Bucket(_))), "{refused:?}");
    assert_eq!(node.metrics.pending.blobs.get(), 1);
    faults.clear();
    eventually("the blob is durable in the end", || node.metrics.pending.blobs.get() == 0).await;
    assert!(linked(&node, "a", &sha256(b"layer")).await);
}

#[tokio::test]
async fn a_manifest_with_a_missing_reference_is_refused_and_names_it() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let there = node.push(&repository("a"), b"layer").await;
    // The content exists, but not in this repository.
    let elsewhere = node.push(&repository("b"), b"elsewhere").await;
    let refused = put(&node, "a", "latest", &image(&[there, elsewhere])).await;
    let Err(UploadError::MissingReferences { blobs, manifests }) = refused else { panic!("{refused:?}") };
    assert_eq!((blobs, manifests), (vec![elsewhere], vec![]));
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [descriptor(&elsewhere)]});
    let refused = put(&node, "a", "latest", &index.to_string().into()).await;
    assert!(matches!(refused, Err(UploadError::MissingReferences { manifests, .. }) if manifests == [elsewhere]));
    let tag = node.layout.tag_current(&repository("a"), &Tag::parse("latest").unwrap());
    assert_eq!(node.bucket.head(&tag).await.unwrap(), None);
}

#[tokio::test]
async fn only_the_first_missing_references_are_looked_up_and_named() {
    let folder = folder();
    let (bucket, requests) = counted();
    let node = Node::start(folder.path(), Setup { bucket, ..Setup::default() });
    let missing: Vec<_> = (0..500u32).map(|number| sha256(&number.to_be_bytes())).collect();
    let before = requests(Operation::Get);
    let refused = put(&node, "a", "latest", &image(&missing[1..])).await;
    let Err(UploadError::MissingReferences { blobs, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(blobs, missing[1..17]);
    // One for the tag, one to restore the link of a rejected push; up to 15 look-ups are on their
    // way when the 16th shows that its reference is missing.
    let cost = requests(Operation::Get) - before;
    assert!((17..=35).contains(&cost), "{cost} requests");
    let data = node.layout.data(&sha256(&image(&missing[1..])));
    assert!(node.bucket.head(&data).await.unwrap().is_some());
    // A manifest with more references than the limit is refused before the bucket is asked.
    let (gets, puts) = (requests(Operation::Get), requests(Operation::Put));
    let mut layers = missing.clone();
    layers.push(sha256(b"one too many"));
    let refused = put(&node, "a", "latest", &image(&layers)).await;
    assert!(matches!(refused, Err(UploadError::TooManyReferences { found: 502, most: 500 })), "{refused:?}");
    assert_eq!((requests(Operation::Get), requests(Operation::Put)), (gets, puts));
}

#[tokio::test]
async fn a_size_that_differs_from_the_content_is_refused_and_costs_no_request() {
    let folder = folder();
    let (bucket, requests) = counted();
    let node = Node::start(folder.path(), Setup { bucket, ..Setup::default() });
    let blob = node.push(&repository("a"), b"layer").await;
    let mut wrong = descriptor(&blob);
    wrong["size"] = 999_999_999_999_u64.into();
    let content = Bytes::from(serde_json::json!({"schemaVersion": 2, "config": wrong}).to_string());
    for recent in [true, false] {
        if !recent {
            node.clock.advance(Duration::from_secs(61));
        }
        let heads = requests(Operation::Head);
        let refused = put(&node, "a", "latest", &content).await;
        assert!(matches!(refused, Err(UploadError::SizeMismatch { stated: 999_999_999_999, .. })), "{refused:?}");
        assert_eq!(requests(Operation::Head) - heads, if recent { 0 } else { 2 }, "the check, and once more");
        // Its link is withdrawn.
        assert!(!node.links.ask(&repository("a"), LinkKind::Revision, &sha256(&content)).await.unwrap());
    }
    // An index may state any size of its entries.
    let child = put(&node, "a", "child", &image(&[blob])).await.unwrap().digest;
    let mut entry = descriptor(&child);
    entry["size"] = 411.into();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
    put(&node, "a", "index", &index.into()).await.unwrap();
}

#[tokio::test]
async fn a_push_ends_with_its_client_until_it_writes_and_then_continues() {
    for (operation, key, continues) in
        [(Operation::Get, "/tags/latest/current/", false), (Operation::Get, "/_layers/", true)]
    {
        let folder = folder();
        let (bucket, faults) = faulty();
        let node = Node::start(folder.path(), Setup { bucket: bucket.clone(), ..Setup::default() });
        let blob = node.push(&repository("a"), b"layer").await;
        let manifest = image(&[blob]);
        let held = faults.add(Fault::new(operation, Effect::Hang).on_key(key).times(1));
        let place = Arc::new(());
        {
            let (uploads, name, place) = (node.uploads.clone(), repository("a"), place.clone());
            let push = manifest_push(Reference::parse("latest").unwrap(), &manifest);
            let mut push = Box::pin(async move { uploads.manifest(&name, push, place).await });
            let is_held = eventually("the request is held", || faults.hits(held) == 1);
            futures::future::select(&mut push, Box::pin(is_held)).await;
        }
        assert_eq!(Arc::strong_count(&place), if continues { 2 } else { 1 }, "what the request holds");
        faults.clear();
        let layout = node.layout.clone();
        node.stop().await;
        assert_eq!(Arc::strong_count(&place), 1, "it is held until the work ends");
        let tag = layout.tag_current(&repository("a"), &Tag::parse("latest").unwrap());
        let written = [layout.data(&sha256(&manifest)), tag];
        for key in written {
            assert_eq!(bucket.head(&key).await.unwrap().is_some(), continues, "{key}");
        }
    }
}

#[tokio::test]
async fn a_manifest_is_visible_by_digest_by_tag_and_among_referrers() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let name = repository("a");
    let blob = node.push(&name, b"layer").await;
    let subject = sha256(b"the subject need not exist");
    let mut manifest: serde_json::Value = serde_json::from_slice(&image(&[blob])).unwrap();
    manifest["subject"] = serde_json::json!({"mediaType": "m", "digest": subject.to_string(), "size": 1});
    let content = Bytes::from(manifest.to_string());
    let accepted = put(&node, "a", "v1", &content).await.unwrap();
    let tag = Tag::parse("v1").unwrap();
    let moved = vec![(tag.clone(), None)];
    assert_eq!(accepted, Accepted { digest: sha256(&content), subject: Some(subject), moved });
    for key in [
        node.layout.data(&accepted.digest),
        node.layout.link(&name, LinkKind::Revision, &accepted.digest),
        node.layout.tag_current(&name, &tag),
        node.layout.referrer(&name, &subject, &accepted.digest),
    ] {
        assert!(node.bucket.head(&key).await.unwrap().is_some(), "{key}");
    }
    assert_eq!(node.store.tags.get(&name, &tag).unwrap().digest, accepted.digest);
    assert_eq!(node.store.contents.read_small(&accepted.digest).await.unwrap().unwrap(), content);
}

#[tokio::test]
async fn an_immutable_tag_is_pushed_once_and_may_be_pushed_again_unchanged() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup { immutable: &["v*"], ..Setup::default() });
    let blobs = [node.push(&repository("a"), b"1").await, node.push(&repository("a"), b"2").await];
    let (first, second) = (image(&blobs[..1]), image(&blobs));
    put(&node, "a", "v1", &first).await.unwrap();
    put(&node, "a", "v1", &first).await.unwrap();
    assert!(matches!(put(&node, "a", "v1", &second).await, Err(UploadError::Tag(TagError::Immutable(_)))));
    put(&node, "a", "latest", &first).await.unwrap();
    put(&node, "a", "latest", &second).await.unwrap();
}

#[tokio::test]
async fn a_manifest_put_under_another_digest_is_refused() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let blob = node.push(&repository("a"), b"layer").await;
    let refused = put(&node, "a", &sha256(b"other").to_string(), &image(&[blob])).await;
    assert!(matches!(refused, Err(UploadError::DigestMismatch { .. })), "{refused:?}");
}

#[tokio::test]
async fn with_a_folder_the_pushed_file_becomes_the_object_and_leaves_the_store() {
    let (folder, root) = (folder(), folder());
    let bucket = Arc::new(entrepot_bucket::FileSystem::open(root.path(), entrepot_runtime::Clock::system()).unwrap());
    let node = Node::start(folder.path(), Setup { bucket, ..Setup::default() });
    let content: Vec<u8> = (0..20_000_000u32).map(|number| number.to_be_bytes()[3]).collect();
    let digest = node.push(&repository("a"), &content).await;
    let object = root.path().join(node.layout.data(&digest).as_str());
    assert!(std::fs::read(&object).unwrap() == content);
    let metadata = std::fs::metadata(&object).unwrap();
    let blocks = std::os::unix::fs::MetadataExt::blocks(&metadata) * 512;
    assert!(blocks < metadata.len() + (1 << 20), "{blocks}: the space allocated ahead was not released");
    let names = || std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata(&object).unwrap());
    eventually("the object has no other hard link", || names() == 1).await;
}

#[tokio::test]
async fn an_upload_of_many_batches_in_several_requests_is_hashed_in_order() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup { capacity: ByteSize::mebibytes(128), ..write_back() });
    let name = repository("a");
    let content: Vec<u8> =
        (0..30_000_000u32).map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let digest = Digest::of(Algorithm::Sha256, &content);
    let id = node.open(&name).await;
    let (first, second) = content.split_at(17_000_001);
    let pieces: Vec<&[u8]> = first.chunks(70_000).collect();
    let status = node.uploads.append(&name, &id, None, body(&pieces)).await.unwrap();
    assert_eq!(status.offset, 17_000_001);
    let pieces: Vec<&[u8]> = second.chunks(300_000).collect();
    node.uploads.finish(&name, &id, &digest, None, body(&pieces)).await.unwrap();
    eventually("the blob is durable", || node.metrics.pending.blobs.get() == 0).await;
    assert!(in_bucket(&node, &digest).await);
    assert!(std::fs::read(node.store.contents.path(&digest)).unwrap() == content);
}
