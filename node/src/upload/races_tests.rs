//! Two nodes that share a bucket, and what one does between the steps of the other. Requests of
//! node `a` meet faults.

use super::{Accepted, UploadError};
use crate::manage::ManageError;
use crate::repository::Replicator;
use crate::repository::layout::LinkKind;
use crate::testing::{Node, Setup, body, descriptor, empty_bucket, manifest_push, repository, sha256};
use bytes::Bytes;
use entrepot_bucket::Bucket;
use entrepot_bucket::fault::{Effect, Fault, FaultId, Faults, Faulty};
use entrepot_bucket::memory::Memory;
use entrepot_bucket::{BucketErrorKind, FileSystem, ListOptions, Operation, PutBody, PutMode, get_small};
use entrepot_config::{ReplicationMode, SparseIndexes};
use entrepot_oci::{Digest, Reference, Repository, Tag};
use entrepot_runtime::Clock;
use entrepot_runtime::clock::Timestamp;
use entrepot_runtime::testing::eventually;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

struct Nodes {
    a: Node,
    b: Node,
    bucket: Arc<dyn Bucket>,
    faults: Faults,
    name: Repository,
    _folders: [TempDir; 2],
}

impl Nodes {
    fn start(setup: impl Fn() -> Setup) -> Nodes {
        Nodes::over(empty_bucket(), setup)
    }

    fn over(bucket: Arc<dyn Bucket>, setup: impl Fn() -> Setup) -> Nodes {
        let faults = Faults::default();
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let faulty: Arc<dyn Bucket> = Arc::new(Faulty::new(bucket.clone(), &faults));
        let a = Node::start(folders[0].path(), Setup { bucket: faulty, name: "a", ..setup() });
        let b = Node::start(folders[1].path(), Setup { bucket: bucket.clone(), name: "b", ..setup() });
        Nodes { a, b, bucket, faults, name: repository("library/app"), _folders: folders }
    }

    fn new() -> Nodes {
        Nodes::start(Setup::default)
    }

    async fn push(&self, node: &Node, reference: &str, manifest: &Bytes) -> Result<Accepted, UploadError> {
        let reference = Reference::parse(reference).unwrap();
        node.uploads.manifest(&self.name, manifest_push(reference, manifest), ()).await
    }

    /// Holds the next such request of node `a` until the faults are cleared.
    fn hold(&self, operation: Operation, key: &str) -> FaultId {
        self.faults.add(Fault::new(operation, Effect::Hang).on_key(key).times(1))
    }

    async fn held(&self, fault: FaultId) {
        eventually("the request is held", || self.faults.hits(fault) == 1).await;
    }

    async fn is_linked(&self, kind: LinkKind, digest: &Digest) -> bool {
        self.b.links.ask(&self.name, kind, digest).await.unwrap()
    }

    async fn tag(&self, tag: &str) -> Option<Digest> {
        self.b.tags.current(&self.name, &Tag::parse(tag).unwrap()).await.unwrap().digest
    }

    async fn is_listed(&self, tag: &str) -> bool {
        let folder = self.b.layout.tag(&self.name, &Tag::parse(tag).unwrap());
        let options = ListOptions { prefix: folder, max: 1, ..ListOptions::default() };
        !self.bucket.list(options).await.unwrap().keys.is_empty()
    }

    async fn remove_data(&self, digest: &Digest) {
        self.bucket.delete(&self.b.layout.data(digest)).await.unwrap();
    }

    async fn has_data(&self, digest: &Digest) -> bool {
        self.bucket.head(&self.b.layout.data(digest)).await.unwrap().is_some()
    }

    /// Advances the clocks by more than a minute, so no put counts as recent.
    fn later(&self) {
        for node in [&self.a, &self.b] {
            node.clock.advance(Duration::from_secs(61));
        }
    }
}

fn image(blobs: &[Digest]) -> Bytes {
    let layers: Vec<_> = blobs.iter().map(descriptor).collect();
    serde_json::json!({"schemaVersion": 2, "config": layers[0], "layers": layers}).to_string().into()
}

fn index(children: &[Digest]) -> Bytes {
    let manifests: Vec<_> = children.iter().map(descriptor).collect();
    serde_json::json!({"schemaVersion": 2, "manifests": manifests}).to_string().into()
}

#[tokio::test]
async fn a_layer_deleted_at_another_node_is_not_trusted_even_if_it_was_just_seen() {
    let nodes = Nodes::new();
    let layer = nodes.a.push(&nodes.name, b"layer").await;
    // Node `a` remembers the link that it has just written.
    nodes.b.manage.delete_blob(&nodes.name, &layer, ()).await.unwrap();
    let manifest = image(&[layer]);
    let refused = nodes.push(&nodes.a, "v1", &manifest).await;
    assert!(matches!(refused, Err(UploadError::MissingReferences { .. })), "{refused:?}");
    assert!(!nodes.a.uploads.mount(&repository("other"), &layer, &nodes.name).await.unwrap());
    assert!(!nodes.b.links.ask(&repository("other"), LinkKind::Layer, &layer).await.unwrap());
    // The link that the push has written is removed.
    assert!(!nodes.is_linked(LinkKind::Revision, &sha256(&manifest)).await);
    assert_eq!((nodes.tag("v1").await, nodes.is_listed("v1").await), (None, false));
    nodes.a.push(&nodes.name, b"layer").await;
    nodes.push(&nodes.a, "v1", &manifest).await.unwrap();
}

#[tokio::test]
async fn a_layer_deleted_between_the_link_and_the_lookup_is_noticed() {
    let nodes = Nodes::new();
    let layer = nodes.a.push(&nodes.name, b"layer").await;
    let manifest = image(&[layer]);
    let held = nodes.hold(Operation::Get, "/_layers/");
    let (pushed, ()) = tokio::join!(nodes.push(&nodes.a, "v1", &manifest), async {
        nodes.held(held).await;
        assert!(nodes.is_linked(LinkKind::Revision, &sha256(&manifest)).await, "the link is written before the lookup");
        nodes.b.manage.delete_blob(&nodes.name, &layer, ()).await.unwrap();
        nodes.faults.clear();
    });
    assert!(matches!(pushed, Err(UploadError::MissingReferences { .. })), "{pushed:?}");
    assert!(!nodes.is_linked(LinkKind::Revision, &sha256(&manifest)).await);
}

#[tokio::test]
async fn a_refused_push_keeps_the_link_of_an_earlier_one() {
    let nodes = Nodes::new();
    let layer = nodes.a.push(&nodes.name, b"layer").await;
    let manifest = image(&[layer]);
    nodes.push(&nodes.a, "v1", &manifest).await.unwrap();
    nodes.b.manage.delete_blob(&nodes.name, &layer, ()).await.unwrap();
    let refused = nodes.push(&nodes.a, "v2", &manifest).await;
    assert!(matches!(refused, Err(UploadError::MissingReferences { .. })), "{refused:?}");
    assert!(nodes.is_linked(LinkKind::Revision, &sha256(&manifest)).await);
    assert_eq!(nodes.tag("v1").await, Some(sha256(&manifest)));
}

#[tokio::test]
async fn the_withdrawal_of_a_link_restores_it_if_another_push_relies_on_it() {
    let nodes = Nodes::new();
    let layer = sha256(b"layer");
    let manifest = image(&[layer]);
    let held = nodes.hold(Operation::Delete, "/revisions/");
    let (refused, ()) = tokio::join!(nodes.push(&nodes.a, "v1", &manifest), async {
        nodes.held(held).await;
        nodes.b.push(&nodes.name, b"layer").await;
        nodes.push(&nodes.b, "v1", &manifest).await.unwrap();
        nodes.faults.clear();
    });
    assert!(refused.is_err());
    assert!(nodes.is_linked(LinkKind::Revision, &sha256(&manifest)).await);
    assert_eq!(nodes.tag("v1").await, Some(sha256(&manifest)));
}

#[tokio::test]
async fn data_lost_by_the_bucket_is_put_again_if_it_is_stored_and_rejected_otherwise() {
    let nodes = Nodes::new();
    if nodes.bucket.capabilities().adopts_files {
        // The object is the stored file: no node has a second copy.
        return;
    }
    let layer = nodes.a.push(&nodes.name, b"layer").await;
    nodes.remove_data(&layer).await;
    nodes.later();
    let refused = nodes.push(&nodes.b, "v1", &image(&[layer])).await;
    assert!(matches!(refused, Err(UploadError::MissingReferences { .. })), "{refused:?}");
    assert!(!nodes.b.uploads.mount(&repository("other"), &layer, &nodes.name).await.unwrap());
    nodes.push(&nodes.a, "v1", &image(&[layer])).await.unwrap();
    assert!(nodes.has_data(&layer).await);
    nodes.remove_data(&layer).await;
    nodes.later();
    assert!(nodes.a.uploads.mount(&repository("other"), &layer, &nodes.name).await.unwrap());
    assert!(nodes.has_data(&layer).await);
}

#[tokio::test]
async fn data_removed_while_an_existing_blob_is_pushed_is_put_again() {
    let nodes = Nodes::new();
    if nodes.bucket.capabilities().adopts_files {
        // Over a folder, node a has just put the data itself: it is not data that the node found.
        return;
    }
    let layer = nodes.b.push(&nodes.name, b"layer").await;
    let held = nodes.hold(Operation::Put, "/_layers/");
    let other = repository("other");
    tokio::join!(nodes.a.push(&other, b"layer"), async {
        nodes.held(held).await;
        nodes.remove_data(&layer).await;
        nodes.faults.clear();
    });
    assert!(nodes.has_data(&layer).await);
}

/// Whatever the order of their steps, a push and a deletion of one manifest end as if one came
/// after the other.
#[tokio::test]
async fn a_push_and_a_deletion_of_one_manifest_end_in_one_of_the_two_orders() {
    in_one_of_the_two_orders(|| (empty_bucket(), tempfile::tempdir().unwrap())).await;
}

#[tokio::test]
async fn a_push_and_a_deletion_are_ordered_if_versions_are_derived_from_content() {
    in_one_of_the_two_orders(|| (Arc::new(Memory::with_versions_of_content()), tempfile::tempdir().unwrap())).await;
}

#[tokio::test]
async fn a_push_and_a_deletion_are_ordered_with_a_folder_as_bucket() {
    in_one_of_the_two_orders(|| {
        let folder = tempfile::tempdir().unwrap();
        (Arc::new(FileSystem::open(folder.path(), Clock::system()).unwrap()), folder)
    })
    .await;
}

async fn in_one_of_the_two_orders(bucket: impl Fn() -> (Arc<dyn Bucket>, TempDir)) {
    let start = || {
        let (bucket, folder) = bucket();
        (Nodes::over(bucket, Setup::default), folder)
    };
    let push_points = [
        (Operation::Get, "/tags/v1/current/"),
        (Operation::Put, "/blobs/"),
        (Operation::Put, "/revisions/"),
        (Operation::Get, "/_layers/"),
        (Operation::Put, "/tags/v1/current/"),
        (Operation::Get, "/revisions/"),
    ];
    for (operation, key) in push_points {
        let (nodes, _folder) = start();
        let layer = nodes.b.push(&nodes.name, b"layer").await;
        let manifest = image(&[layer]);
        let digest = nodes.push(&nodes.b, "v0", &manifest).await.unwrap().digest;
        let held = nodes.hold(operation, key);
        let (pushed, ()) = tokio::join!(nodes.push(&nodes.a, "v1", &manifest), async {
            nodes.held(held).await;
            nodes.b.manage.delete_manifest(&nodes.name, &digest, ()).await.unwrap();
            nodes.faults.clear();
        });
        pushed.unwrap();
        consistent(&nodes, &digest, &format!("push held at {operation:?} {key}")).await;
    }
    let delete_points = [
        (Operation::Get, "/revisions/"),
        (Operation::List, "/tags/"),
        (Operation::Get, "/tags/v1/current/"),
        (Operation::Delete, "/tags/v1/current/"),
        (Operation::Delete, "/revisions/"),
    ];
    for (operation, key) in delete_points {
        let (nodes, _folder) = start();
        let layer = nodes.b.push(&nodes.name, b"layer").await;
        let manifest = image(&[layer]);
        let digest = nodes.push(&nodes.b, "v1", &manifest).await.unwrap().digest;
        let held = nodes.hold(operation, key);
        let (deleted, ()) = tokio::join!(nodes.a.manage.delete_manifest(&nodes.name, &digest, ()), async {
            nodes.held(held).await;
            nodes.push(&nodes.b, "v1", &manifest).await.unwrap();
            nodes.push(&nodes.b, "v2", &manifest).await.unwrap();
            nodes.faults.clear();
        });
        deleted.unwrap();
        let what = format!("deletion held at {operation:?} {key}");
        consistent(&nodes, &digest, &what).await;
        let all = nodes.is_linked(LinkKind::Revision, &digest).await;
        assert_eq!((nodes.tag("v1").await.is_some(), nodes.tag("v2").await.is_some()), (all, all), "{what}");
    }
}

/// Checks that every listed tag exists, and that a tag of the manifest exists only with its link.
async fn consistent(nodes: &Nodes, digest: &Digest, what: &str) {
    let linked = nodes.is_linked(LinkKind::Revision, digest).await;
    for tag in ["v0", "v1", "v2"] {
        let value = nodes.tag(tag).await;
        assert_eq!(nodes.is_listed(tag).await, value.is_some(), "{what}: {tag} is listed and has no value");
        assert!(value.is_none() || linked, "{what}: {tag} points to a manifest that is not linked");
    }
}

#[tokio::test]
async fn a_deletion_that_was_interrupted_is_completed_when_it_is_repeated() {
    let nodes = Nodes::new();
    let layer = nodes.a.push(&nodes.name, b"layer").await;
    let digest = nodes.push(&nodes.a, "v1", &image(&[layer])).await.unwrap().digest;
    // As after a crash between the link and the second check, and a push that was checked before.
    nodes.a.links.remove(&nodes.name, LinkKind::Revision, &digest).await.unwrap();
    nodes.b.manage.delete_manifest(&nodes.name, &digest, ()).await.unwrap();
    assert_eq!((nodes.tag("v1").await, nodes.is_listed("v1").await), (None, false));
    let again = nodes.b.manage.delete_manifest(&nodes.name, &digest, ()).await;
    assert!(matches!(again, Err(ManageError::NotFound)), "{again:?}");
}

#[tokio::test]
async fn a_tag_deleted_while_it_is_pushed_is_gone_and_the_manifest_stays() {
    let nodes = Nodes::new();
    let layer = nodes.b.push(&nodes.name, b"layer").await;
    let manifest = image(&[layer]);
    // After the tag was written, at the last check.
    let held = nodes.hold(Operation::Get, "/revisions/");
    let (pushed, ()) = tokio::join!(nodes.push(&nodes.a, "v1", &manifest), async {
        nodes.held(held).await;
        assert_eq!(nodes.tag("v1").await, Some(sha256(&manifest)));
        nodes.b.manage.delete_tag(&nodes.name, &Tag::parse("v1").unwrap()).await.unwrap();
        nodes.faults.clear();
    });
    pushed.unwrap();
    assert_eq!((nodes.tag("v1").await, nodes.is_listed("v1").await), (None, false));
    assert!(nodes.is_linked(LinkKind::Revision, &sha256(&manifest)).await);
}

#[tokio::test]
async fn a_child_of_an_index_is_a_manifest_or_a_blob_and_may_be_missing_as_configured() {
    for sparse_indexes in [SparseIndexes::AllowUnknown, SparseIndexes::Allow, SparseIndexes::Refuse] {
        let nodes = Nodes::start(|| Setup { sparse_indexes, ..Setup::default() });
        let blob = nodes.a.push(&nodes.name, b"cache").await;
        nodes.push(&nodes.a, "cache", &index(&[blob])).await.unwrap();
        let unknown = nodes.push(&nodes.a, "sparse", &index(&[blob, sha256(b"unknown")])).await;
        assert_eq!(unknown.is_ok(), sparse_indexes != SparseIndexes::Refuse, "{unknown:?}");
        let child = nodes.push(&nodes.a, "child", &image(&[blob])).await.unwrap().digest;
        nodes.b.manage.delete_manifest(&nodes.name, &child, ()).await.unwrap();
        let deleted = nodes.push(&nodes.a, "sparse", &index(&[child])).await;
        assert_eq!(deleted.is_ok(), sparse_indexes == SparseIndexes::Allow, "{deleted:?}");
    }
}

#[tokio::test]
async fn content_of_an_immutable_tag_is_not_deleted() {
    let nodes = Nodes::start(|| Setup { immutable: &["v*"], ..Setup::default() });
    let (layer, free) = (nodes.a.push(&nodes.name, b"layer").await, nodes.a.push(&nodes.name, b"free").await);
    let child = nodes.push(&nodes.a, "child", &image(&[layer])).await.unwrap().digest;
    nodes.push(&nodes.a, "v1", &index(&[child])).await.unwrap();
    let refused = nodes.b.manage.delete_blob(&nodes.name, &layer, ()).await;
    assert!(matches!(refused, Err(ManageError::Protected(_))), "{refused:?}");
    let refused = nodes.b.manage.delete_manifest(&nodes.name, &child, ()).await;
    assert!(matches!(refused, Err(ManageError::Protected(_))), "{refused:?}");
    nodes.b.manage.delete_blob(&nodes.name, &free, ()).await.unwrap();
    assert!(nodes.is_linked(LinkKind::Layer, &layer).await && nodes.is_linked(LinkKind::Revision, &child).await);
    // The same layer in a repository without such a tag.
    let other = repository("other");
    nodes.a.push(&other, b"layer").await;
    nodes.b.manage.delete_blob(&other, &layer, ()).await.unwrap();
}

#[tokio::test]
async fn an_immutable_tag_that_is_pushed_while_its_layer_is_deleted_keeps_it() {
    let nodes = Nodes::start(|| Setup { immutable: &["v*"], ..Setup::default() });
    let layer = nodes.b.push(&nodes.name, b"layer").await;
    let held = nodes.hold(Operation::Delete, "/_layers/");
    let (deleted, ()) = tokio::join!(nodes.a.manage.delete_blob(&nodes.name, &layer, ()), async {
        nodes.held(held).await;
        nodes.push(&nodes.b, "v1", &image(&[layer])).await.unwrap();
        nodes.faults.clear();
    });
    assert!(matches!(deleted, Err(ManageError::Protected(_))), "{deleted:?}");
    assert!(nodes.is_linked(LinkKind::Layer, &layer).await);
}

/// The deletion ends between the look-up of the layer and the tag, so neither of its checks finds
/// the tag.
#[tokio::test]
async fn content_deleted_between_the_lookup_and_an_immutable_tag_is_kept() {
    for of_index in [false, true] {
        let nodes = Nodes::start(|| Setup { immutable: &["v*"], ..Setup::default() });
        let layer = nodes.b.push(&nodes.name, b"layer").await;
        let child = nodes.push(&nodes.b, "child", &image(&[layer])).await.unwrap().digest;
        let (manifest, kind, needed) = if of_index {
            (index(&[child]), LinkKind::Revision, child)
        } else {
            (image(&[layer, layer]), LinkKind::Layer, layer)
        };
        let held = nodes.hold(Operation::Put, "/tags/v1/current/");
        let (pushed, ()) = tokio::join!(nodes.push(&nodes.a, "v1", &manifest), async {
            nodes.held(held).await;
            match of_index {
                true => nodes.b.manage.delete_manifest(&nodes.name, &needed, ()).await.unwrap(),
                false => nodes.b.manage.delete_blob(&nodes.name, &needed, ()).await.unwrap(),
            }
            nodes.faults.clear();
        });
        pushed.unwrap();
        assert!(nodes.is_linked(kind, &needed).await, "the immutable tag can be pulled");
        let refused = nodes.b.manage.delete_blob(&nodes.name, &layer, ()).await;
        assert!(matches!(refused, Err(ManageError::Protected(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn a_deletion_whose_client_leaves_still_restores_what_an_immutable_tag_needs() {
    let nodes = Nodes::start(|| Setup { immutable: &["v*"], ..Setup::default() });
    let layer = nodes.b.push(&nodes.name, b"layer").await;
    let held = nodes.hold(Operation::Delete, "/_layers/");
    {
        let mut deletion = Box::pin(nodes.a.manage.delete_blob(&nodes.name, &layer, ()));
        futures::future::select(&mut deletion, Box::pin(nodes.held(held))).await;
    }
    nodes.push(&nodes.b, "v1", &image(&[layer])).await.unwrap();
    nodes.faults.clear();
    assert!(nodes.a.tasks.stop(Duration::from_secs(30)).await);
    assert!(nodes.is_linked(LinkKind::Layer, &layer).await);
}

fn write_back() -> Setup {
    Setup {
        mode: ReplicationMode::WriteBack,
        retry_budget: entrepot_config::Duration::from_millis(300),
        ..Setup::default()
    }
}

#[tokio::test]
async fn a_blob_pending_at_another_node_is_waited_for_and_never_unknown() {
    let nodes = Nodes::start(write_back);
    nodes.faults.add(Fault::error(Operation::Put, BucketErrorKind::Server).on_key("/blobs/"));
    let layer = nodes.a.push(&nodes.name, b"layer").await;
    let manifest = image(&[layer]);
    let pending = nodes.push(&nodes.b, "v1", &manifest).await;
    assert!(matches!(pending, Err(UploadError::Pending(digest)) if digest == layer), "{pending:?}");
    let pending = nodes.b.uploads.mount(&repository("other"), &layer, &nodes.name).await;
    assert!(matches!(pending, Err(UploadError::Pending(_))), "{pending:?}");
    nodes.faults.clear();
    let name = nodes.name.clone();
    eventually("the blob is durable", || nodes.a.metrics.pending.blobs.get() == 0).await;
    nodes.push(&nodes.b, "v1", &manifest).await.unwrap();
    let marker = nodes.a.layout.pending(&name, &layer);
    assert_eq!(nodes.bucket.head(&marker).await.unwrap(), None);
    // Content that no node has is rejected at once.
    let refused = nodes.push(&nodes.b, "v2", &image(&[sha256(b"no node has it")])).await;
    assert!(matches!(refused, Err(UploadError::MissingReferences { .. })), "{refused:?}");
}

#[tokio::test]
async fn the_marker_of_a_node_that_does_not_return_is_trusted_for_an_hour() {
    let nodes = Nodes::start(write_back);
    nodes.faults.add(Fault::error(Operation::Put, BucketErrorKind::Server).on_key("/blobs/"));
    let layer = nodes.a.push(&nodes.name, b"layer").await;
    nodes.b.clock.advance(Duration::from_secs(3601));
    let refused = nodes.push(&nodes.b, "v1", &image(&[layer])).await;
    assert!(matches!(refused, Err(UploadError::MissingReferences { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_pending_blob_is_visible_at_its_node_and_its_manifest_waits() {
    let nodes = Nodes::start(write_back);
    nodes.faults.add(Fault::error(Operation::Put, BucketErrorKind::Server).on_key("/blobs/"));
    let layer = nodes.a.push(&nodes.name, b"layer").await;
    assert!(nodes.a.links.exists(&nodes.name, LinkKind::Layer, &layer).await.unwrap());
    assert!(!nodes.b.links.exists(&nodes.name, LinkKind::Layer, &layer).await.unwrap());
    nodes.faults.clear();
    nodes.a.replicate.durable(&nodes.name, &layer).await.ok();
    eventually("the blob is durable", || nodes.a.metrics.pending.blobs.get() == 0).await;
    assert!(nodes.b.links.exists(&nodes.name, LinkKind::Layer, &layer).await.unwrap());
}

#[tokio::test]
async fn a_removal_is_not_undone_by_a_read_that_started_before_it() {
    let nodes = Nodes::new();
    let layer = nodes.a.push(&nodes.name, b"layer").await;
    let links = &nodes.a.links;
    // The response of the read is in transit: its body is stalled.
    let stalls = Fault::new(Operation::Get, Effect::Stall { after: 3 }).on_key("/_layers/").times(1);
    let stalls = nodes.faults.add(stalls);
    let (read, ()) = tokio::join!(links.ask(&nodes.name, LinkKind::Layer, &layer), async {
        eventually("the bucket has answered the read", || nodes.faults.stalled(stalls) == 1).await;
        links.remove(&nodes.name, LinkKind::Layer, &layer).await.unwrap();
        nodes.faults.clear();
    });
    assert!(read.unwrap(), "the read saw the link");
    assert!(!links.exists(&nodes.name, LinkKind::Layer, &layer).await.unwrap());
    assert_eq!(nodes.a.store.links.age(&nodes.name, LinkKind::Layer, &layer), None);
}

#[tokio::test]
async fn setting_the_clock_back_does_not_make_a_seen_link_younger() {
    let nodes = Nodes::new();
    if nodes.bucket.capabilities().cheap_reads {
        // Over a folder, links are not remembered.
        return;
    }
    let layer = nodes.a.push(&nodes.name, b"layer").await;
    nodes.bucket.delete(&nodes.a.layout.link(&nodes.name, LinkKind::Layer, &layer)).await.unwrap();
    nodes.a.clock.advance(Duration::from_secs(3000));
    nodes.a.clock.set(Timestamp(1));
    assert!(nodes.a.links.exists(&nodes.name, LinkKind::Layer, &layer).await.unwrap(), "within links.freshFor");
    nodes.a.clock.advance(Duration::from_secs(601));
    assert!(!nodes.a.links.exists(&nodes.name, LinkKind::Layer, &layer).await.unwrap());
}

#[tokio::test]
async fn a_damaged_link_is_replaced_by_a_push() {
    let nodes = Nodes::new();
    let layer = nodes.a.push(&nodes.name, b"layer").await;
    let manifest = image(&[layer]);
    let digest = sha256(&manifest);
    for reference in ["v1".to_owned(), digest.to_string()] {
        nodes.push(&nodes.a, &reference, &manifest).await.unwrap();
        let key = nodes.a.layout.link(&nodes.name, LinkKind::Revision, &digest);
        nodes.bucket.put(&key, PutBody::Bytes(Bytes::from_static(b"cut")), PutMode::Overwrite).await.unwrap();
        assert!(!nodes.is_linked(LinkKind::Revision, &digest).await);
        nodes.push(&nodes.a, &reference, &manifest).await.unwrap();
        assert!(nodes.is_linked(LinkKind::Revision, &digest).await);
    }
}

#[tokio::test]
async fn an_upload_whose_file_another_program_changes_is_not_acknowledged() {
    for (rest, whole) in [(&b""[..], &b"the first half, "[..]), (b"the second", b"the first half, the second")] {
        an_upload_with_a_changed_first_half_is_rejected(rest, whole).await;
    }
}

async fn an_upload_with_a_changed_first_half_is_rejected(rest: &[u8], whole: &[u8]) {
    let nodes = Nodes::new();
    let id = nodes.a.open(&nodes.name).await;
    let place = Some(super::Place::Offset(0));
    nodes.a.uploads.append(&nodes.name, &id, place, body(&[b"the first half, "])).await.unwrap();
    let data = nodes.a.store.dirs.uploads().join(id.to_string()).join("data");
    // Usually within the same tick of the file system's clock, so the times alone would not differ.
    std::fs::write(&data, b"the wrong half, ").unwrap();
    let digest = sha256(whole);
    let finished = nodes.a.uploads.finish(&nodes.name, &id, &digest, None, body(&[rest])).await;
    assert!(matches!(finished, Err(UploadError::DigestMismatch { .. })), "{finished:?}");
}

#[tokio::test]
async fn referrers_are_also_kept_under_the_fallback_tag_if_configured() {
    for referrers_tag in [false, true] {
        let nodes = Nodes::start(|| Setup { referrers_tag, ..Setup::default() });
        let layer = nodes.b.push(&nodes.name, b"layer").await;
        let subject = sha256(b"the subject need not exist");
        let referrer = |text: &str| -> Bytes {
            let mut manifest: serde_json::Value = serde_json::from_slice(&image(&[layer])).unwrap();
            manifest["subject"] = serde_json::json!({"mediaType": "m", "digest": subject.to_string(), "size": 1});
            manifest["annotations"] = serde_json::json!({"n": text});
            manifest.to_string().into()
        };
        let (first, second) = (referrer("1"), referrer("2"));
        let tag = entrepot_oci::manifest::fallback_tag(&subject);
        // Both change the index at the same time: neither entry is lost.
        let held = nodes.hold(Operation::Put, &format!("/tags/{tag}/current/"));
        let by_digest = |content: &Bytes| sha256(content).to_string();
        let (first_digest, second_digest) = (by_digest(&first), by_digest(&second));
        let (pushed, ()) = tokio::join!(nodes.push(&nodes.a, &first_digest, &first), async {
            if referrers_tag {
                nodes.held(held).await;
            }
            nodes.push(&nodes.b, &second_digest, &second).await.unwrap();
            nodes.faults.clear();
        });
        pushed.unwrap();
        let mut listed = listed_under(&nodes, &tag).await;
        listed.sort();
        let mut all = vec![first_digest.clone(), second_digest];
        all.sort();
        assert_eq!(listed, if referrers_tag { all } else { vec![] });
        nodes.b.manage.delete_manifest(&nodes.name, &sha256(&second), ()).await.unwrap();
        assert_eq!(listed_under(&nodes, &tag).await, if referrers_tag { vec![first_digest] } else { vec![] });
    }
}

/// The digests in the index that a tag points to; empty if the tag does not exist.
async fn listed_under(nodes: &Nodes, tag: &str) -> Vec<String> {
    let Some(digest) = nodes.tag(tag).await else { return Vec::new() };
    assert!(nodes.is_linked(LinkKind::Revision, &digest).await);
    let (content, _) = get_small(&*nodes.bucket, &nodes.b.layout.data(&digest), 1 << 20).await.unwrap().unwrap();
    entrepot_oci::manifest::fallback_referrers(&content)
        .unwrap()
        .into_iter()
        .map(|entry| entry.digest.to_string())
        .collect()
}

#[tokio::test]
async fn a_tag_left_without_a_link_by_an_interrupted_deletion_gets_it_back() {
    let nodes = Nodes::new();
    let layer = nodes.b.push(&nodes.name, b"layer").await;
    let manifest = image(&[layer]);
    let digest = nodes.push(&nodes.b, "v1", &manifest).await.unwrap().digest;
    let link = nodes.b.layout.link(&nodes.name, LinkKind::Revision, &digest);
    nodes.bucket.delete(&link).await.unwrap();
    let tag = Tag::parse("v1").unwrap();
    assert_eq!(nodes.a.uploads.relink(&nodes.name, &tag, &digest).await.unwrap(), Some(digest));
    assert!(nodes.is_linked(LinkKind::Revision, &digest).await);
    // The tag has moved: the manifest that it points to now is served.
    let other = nodes.b.push(&nodes.name, b"other").await;
    let moved = nodes.push(&nodes.b, "v1", &image(&[other])).await.unwrap().digest;
    nodes.bucket.delete(&link).await.unwrap();
    assert_eq!(nodes.a.uploads.relink(&nodes.name, &tag, &digest).await.unwrap(), Some(moved));
    assert!(!nodes.is_linked(LinkKind::Revision, &digest).await);
    // The bucket and the stores have lost the manifest: no link to missing data is written.
    for node in [&nodes.a, &nodes.b] {
        node.store.contents.remove(&moved).await.unwrap();
    }
    nodes.later();
    nodes.remove_data(&moved).await;
    assert_eq!(nodes.a.uploads.relink(&nodes.name, &tag, &moved).await.unwrap(), None);
}

#[tokio::test]
async fn a_deletion_is_not_undone_by_a_concurrent_read_of_the_tag() {
    for point in [(Operation::Put, "/revisions/"), (Operation::Get, "/tags/v1/current/")] {
        let nodes = Nodes::new();
        let layer = nodes.b.push(&nodes.name, b"layer").await;
        let digest = nodes.push(&nodes.b, "v1", &image(&[layer])).await.unwrap().digest;
        nodes.b.links.remove(&nodes.name, LinkKind::Revision, &digest).await.unwrap();
        let (held, tag) = (nodes.hold(point.0, point.1), Tag::parse("v1").unwrap());
        let (relinked, ()) = tokio::join!(nodes.a.uploads.relink(&nodes.name, &tag, &digest), async {
            nodes.held(held).await;
            nodes.b.manage.delete_manifest(&nodes.name, &digest, ()).await.unwrap();
            nodes.faults.clear();
        });
        assert_eq!(relinked.unwrap(), None);
        assert!(!nodes.is_linked(LinkKind::Revision, &digest).await, "{point:?}");
        assert_eq!((nodes.tag("v1").await, nodes.is_listed("v1").await), (None, false));
    }
}
