use super::*;
use crate::repository::layout::link_content;
use crate::testing::{Node, Setup, counted, manifest_push, repository};
use bytes::Bytes;
use entrepot_bucket::{Key, ListOptions, Operation, PutBody, PutMode};
use entrepot_oci::{Algorithm, Reference};

/// A repository with one image under several tags. Its only blob is also its subject. Returns
/// manifest and subject.
async fn image(node: &Node, name: &str, tags: &[&str]) -> (Digest, Digest) {
    let blob = node.push(&repository(name), b"layer").await;
    let descriptor = serde_json::json!({"mediaType": "m", "digest": blob.to_string(), "size": 5});
    let manifest = serde_json::json!({"schemaVersion": 2, "config": descriptor, "layers": [], "subject": descriptor});
    let content = Bytes::from(manifest.to_string());
    let mut digest = None;
    for tag in tags {
        let tag = Reference::parse(tag).unwrap();
        let accepted = node.uploads.manifest(&repository(name), manifest_push(tag, &content), ()).await.unwrap();
        digest = Some(accepted.digest);
    }
    (digest.unwrap(), blob)
}

async fn there(node: &Node, key: &Key) -> bool {
    node.bucket.head(key).await.unwrap().is_some()
}

fn tag(name: &str) -> Tag {
    Tag::parse(name).unwrap()
}

#[tokio::test]
async fn a_deleted_tag_is_removed_completely_and_its_manifest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), Setup::default());
    let name = repository("a");
    let (digest, _) = image(&node, "a", &["v1", "v2"]).await;
    node.manage.delete_tag(&name, &tag("v1")).await.unwrap();
    let prefix = node.layout.tag(&name, &tag("v1"));
    let left = node.bucket.list(ListOptions { prefix, max: 10, ..ListOptions::default() }).await.unwrap();
    assert_eq!(left.keys, []);
    assert!(there(&node, &node.layout.tag_current(&name, &tag("v2"))).await);
    assert!(there(&node, &node.layout.link(&name, LinkKind::Revision, &digest)).await);
    assert!(matches!(node.manage.delete_tag(&name, &tag("v1")).await, Err(ManageError::NotFound)));
    assert_eq!(node.store.tags.get(&name, &tag("v1")), None);
}

#[tokio::test]
async fn deleting_a_manifest_removes_its_tags_and_its_referrers_entry() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), Setup::default());
    let name = repository("a");
    let (digest, subject) = image(&node, "a", &["v1", "v2"]).await;
    let (other, _) = image(&node, "b", &["v1"]).await;
    node.manage.delete_manifest(&name, &digest, ()).await.unwrap();
    for key in [
        node.layout.tag_current(&name, &tag("v1")),
        node.layout.tag_current(&name, &tag("v2")),
        node.layout.referrer(&name, &subject, &digest),
        node.layout.link(&name, LinkKind::Revision, &digest),
    ] {
        assert!(!there(&node, &key).await, "{key}");
    }
    assert!(there(&node, &node.layout.link(&repository("b"), LinkKind::Revision, &other)).await);
    assert!(!node.links.exists(&name, LinkKind::Revision, &digest).await.unwrap());
    assert!(matches!(node.manage.delete_manifest(&name, &digest, ()).await, Err(ManageError::NotFound)));
}

/// Points tags to a manifest, as pushes do.
async fn put_tags(node: &Node, name: &str, tags: impl Iterator<Item = String>, digest: &Digest) {
    for tag in tags {
        let key = node.layout.tag_current(&repository(name), &Tag::parse(&tag).unwrap());
        let link = PutBody::Bytes(Bytes::from(link_content(digest)));
        node.bucket.put(&key, link, PutMode::Overwrite).await.unwrap();
    }
}

#[tokio::test]
async fn deleting_a_manifest_costs_two_requests_for_each_of_its_tags() {
    let folder = tempfile::tempdir().unwrap();
    let (bucket, requests) = counted();
    let node = Node::start(folder.path(), Setup { bucket, ..Setup::default() });
    let (digest, _) = image(&node, "a", &["v"]).await;
    put_tags(&node, "a", (0..1199).map(|number| format!("v{number}")), &digest).await;
    let before = [Operation::List, Operation::Get, Operation::Delete].map(&requests);
    node.manage.delete_manifest(&repository("a"), &digest, ()).await.unwrap();
    let after = [Operation::List, Operation::Get, Operation::Delete].map(&requests);
    let cost: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    // Listed: two parts of the tags, the directory of the tag between them, which may have a history,
    // and no tag afterwards. Also read: the link. Also removed: the link and the entry among referrers.
    assert_eq!(cost, [4, 1201, 1202]);
}

#[tokio::test]
async fn a_repeated_deletion_continues_in_a_repository_with_too_many_tags() {
    let folder = tempfile::tempdir().unwrap();
    let (bucket, requests) = counted();
    let node = Node::start(folder.path(), Setup { bucket, ..Setup::default() });
    let name = repository("a");
    let (digest, _) = image(&node, "a", &["v00001-of-the-manifest", "z"]).await;
    put_tags(
        &node,
        "a",
        (0..EXAMINED + 500).map(|number| format!("v{number:05}")),
        &Digest::of(Algorithm::Sha256, b"other"),
    )
    .await;
    let is_linked = || node.links.ask(&name, LinkKind::Revision, &digest);
    let (mut outcomes, mut before) = (Vec::new(), requests(Operation::Get));
    loop {
        let deleted = node.manage.delete_manifest(&name, &digest, ()).await;
        let now = requests(Operation::Get);
        assert!(now - before <= EXAMINED as u64 + 10, "{}", now - before);
        before = now;
        outcomes.push(is_linked().await.unwrap());
        match deleted {
            Ok(()) => break,
            Err(ManageError::Tag(TagError::TooMany)) => {}
            Err(error) => panic!("{error}"),
        }
        // Pushed meanwhile, before the place that the deletion has reached.
        if outcomes.len() == 1 {
            put_tags(&node, "a", ["v00000-late".to_owned()].into_iter(), &digest).await;
        }
    }
    assert_eq!(outcomes, [true, false, false]);
    for gone in ["v00000-late", "v00001-of-the-manifest", "z"] {
        assert!(!there(&node, &node.layout.tag_current(&name, &tag(gone))).await, "{gone}");
    }
    let again = loop {
        match node.manage.delete_manifest(&name, &digest, ()).await {
            Err(ManageError::Tag(TagError::TooMany)) => {}
            deleted => break deleted,
        }
    };
    assert!(matches!(again, Err(ManageError::NotFound)), "{again:?}");
}

#[tokio::test]
async fn the_histories_that_distribution_wrote_are_removed_with_the_tags_of_a_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), Setup::default());
    let name = repository("a");
    let (digest, _) = image(&node, "a", &["short"]).await;
    for (tag, count) in [("a", 2), ("b", 1500), ("c", 700), ("d", 1), ("e", 0)] {
        put_tags(&node, "a", [tag.to_owned()].into_iter(), &digest).await;
        for number in 0..count {
            let of = Digest::of(Algorithm::Sha256, format!("{number}").as_bytes());
            let key = node.layout.tag_index(&name, &Tag::parse(tag).unwrap(), &of);
            node.bucket.put(&key, PutBody::Bytes(Bytes::from(link_content(&of))), PutMode::Overwrite).await.unwrap();
        }
    }
    node.manage.delete_manifest(&name, &digest, ()).await.unwrap();
    let left = ListOptions { prefix: node.layout.tags(&name), max: 10, ..ListOptions::default() };
    assert_eq!(node.bucket.list(left).await.unwrap().keys, []);
}

#[tokio::test]
async fn a_deleted_blob_is_removed_only_from_its_repository() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), Setup::default());
    let digest = node.push(&repository("a"), b"layer").await;
    node.push(&repository("b"), b"layer").await;
    node.manage.delete_blob(&repository("a"), &digest, ()).await.unwrap();
    assert!(!node.links.exists(&repository("a"), LinkKind::Layer, &digest).await.unwrap());
    assert!(node.links.exists(&repository("b"), LinkKind::Layer, &digest).await.unwrap());
    assert!(matches!(node.manage.delete_blob(&repository("a"), &digest, ()).await, Err(ManageError::NotFound)));
}

#[tokio::test]
async fn immutable_content_is_not_deleted_by_tag_or_digest() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), Setup { immutable: &["v*"], ..Setup::default() });
    let name = repository("a");
    let (digest, _) = image(&node, "a", &["latest", "v1"]).await;
    assert!(matches!(node.manage.delete_tag(&name, &tag("v1")).await, Err(ManageError::Tag(TagError::Immutable(_)))));
    assert!(matches!(node.manage.delete_manifest(&name, &digest, ()).await, Err(ManageError::Protected(_))));
    assert!(there(&node, &node.layout.tag_current(&name, &tag("latest"))).await, "nothing was deleted");
    node.manage.delete_tag(&name, &tag("latest")).await.unwrap();
}
