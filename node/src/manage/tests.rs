use super::*;
use crate::testing::{Node, Setup, manifest_push, repository};
use bytes::Bytes;
use entrepot_bucket::Key;
use entrepot_bucket::ListOptions;
use entrepot_oci::Reference;

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
        let accepted = node.uploads.manifest(&repository(name), manifest_push(tag, &content)).await.unwrap();
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
    node.manage.delete_manifest(&name, &digest).await.unwrap();
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
    assert!(matches!(node.manage.delete_manifest(&name, &digest).await, Err(ManageError::NotFound)));
}

#[tokio::test]
async fn a_deleted_blob_is_removed_only_from_its_repository() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), Setup::default());
    let digest = node.push(&repository("a"), b"layer").await;
    node.push(&repository("b"), b"layer").await;
    node.manage.delete_blob(&repository("a"), &digest).await.unwrap();
    assert!(!node.links.exists(&repository("a"), LinkKind::Layer, &digest).await.unwrap());
    assert!(node.links.exists(&repository("b"), LinkKind::Layer, &digest).await.unwrap());
    assert!(matches!(node.manage.delete_blob(&repository("a"), &digest).await, Err(ManageError::NotFound)));
}

#[tokio::test]
async fn immutable_content_is_not_deleted_by_tag_or_digest() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), Setup { immutable: &["v*"], ..Setup::default() });
    let name = repository("a");
    let (digest, _) = image(&node, "a", &["latest", "v1"]).await;
    assert!(matches!(node.manage.delete_tag(&name, &tag("v1")).await, Err(ManageError::Tag(TagError::Immutable(_)))));
    assert!(matches!(node.manage.delete_manifest(&name, &digest).await, Err(ManageError::Protected(_))));
    assert!(there(&node, &node.layout.tag_current(&name, &tag("latest"))).await, "nothing was deleted");
    node.manage.delete_tag(&name, &tag("latest")).await.unwrap();
}
