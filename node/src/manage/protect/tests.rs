use super::*;
use crate::testing::{Node, Setup, counted, manifest_push, repository, sha256};
use bytes::Bytes;
use entrepot_bucket::Operation;
use entrepot_oci::Reference;

fn described(content: &[u8], digest: &Digest) -> serde_json::Value {
    serde_json::json!({"mediaType": "m", "digest": digest.to_string(), "size": content.len()})
}

/// Pushes an image of one blob with this content under a tag, and returns its digest.
async fn image(node: &Node, tag: &str, layer: &'static [u8]) -> Digest {
    let digest = node.push(&repository("a"), layer).await;
    let layer = described(layer, &digest);
    let manifest = serde_json::json!({"schemaVersion": 2, "config": layer, "layers": []}).to_string();
    let push = manifest_push(Reference::parse(tag).unwrap(), &Bytes::from(manifest));
    node.uploads.manifest(&repository("a"), push, ()).await.unwrap().digest
}

#[tokio::test]
async fn a_second_check_reads_only_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let (bucket, requests) = counted();
    let node = Node::start(folder.path(), Setup { bucket, immutable: &["v*"], ..Setup::default() });
    for (tag, layer) in [("v1", &b"1"[..]), ("v2", b"2"), ("v3", b"3"), ("latest", b"4")] {
        image(&node, tag, layer).await;
    }
    // As at a node that has nothing stored.
    for manifest in node.tags.immutable(&repository("a"), &HashSet::new(), 10).await.unwrap() {
        node.store.contents.remove(&manifest.1).await.unwrap();
    }
    let (name, unused) = (repository("a"), sha256(b"unused"));
    let mut protection = Protection::new(&node.manage, &name, &unused);
    let before = requests(Operation::Get);
    assert_eq!(protection.find().await.unwrap(), None);
    assert_eq!(requests(Operation::Get) - before, 6, "the link and the manifest of each immutable tag");
    let before = requests(Operation::Get);
    assert_eq!(protection.find().await.unwrap(), None);
    assert_eq!(requests(Operation::Get) - before, 0);
    // A tag that was pushed in between is read.
    image(&node, "v4", b"unused").await;
    assert_eq!(protection.find().await.unwrap(), Some(Tag::parse("v4").unwrap()));
}

#[tokio::test]
async fn a_deletion_that_cannot_be_checked_within_the_limit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), Setup { immutable: &["v*"], ..Setup::default() });
    for (tag, layer) in [("v1", &b"1"[..]), ("v2", b"2"), ("v3", b"3")] {
        image(&node, tag, layer).await;
    }
    let (name, unused) = (repository("a"), sha256(b"unused"));
    for (most, checked) in [(3, true), (2, false)] {
        let mut protection = Protection { most, ..Protection::new(&node.manage, &name, &unused) };
        let found = protection.find().await;
        assert_eq!(matches!(found, Ok(None)), checked, "{found:?}");
        assert_eq!(matches!(found, Err(ManageError::Unchecked(2))), !checked, "{found:?}");
    }
}
