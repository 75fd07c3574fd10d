//! Manifests by digest.

use super::*;
use entrepot_bucket::Operation;
use entrepot_bucket::fault::{Effect, Fault};
use futures::future::join_all;

async fn manifest(setup: &Setup, size: usize) -> (Digest, Bytes) {
    let (digest, bytes) = content(9, size);
    setup.put(&setup.layout.data(&digest), bytes.clone()).await;
    setup.link(LinkKind::Revision, &digest).await;
    (digest, bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_is_fetched_once_and_then_served_without_a_request() {
    let setup = Setup::new();
    let (digest, bytes) = manifest(&setup, 5000).await;
    let all = join_all((0..16).map(|_| setup.fetch.manifest(&setup.repository, &digest))).await;
    assert!(all.into_iter().all(|one| one.unwrap() == bytes));
    setup.stored(&digest).await;
    assert_eq!((setup.gate.gets("/data"), setup.fills("stored")), (1, 1));
    let before = setup.gate.gets("");
    assert_eq!(setup.fetch.manifest(&setup.repository, &digest).await.unwrap(), bytes);
    assert_eq!(setup.gate.gets(""), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_does_not_match_is_an_error_and_not_stored() {
    let setup = Setup::new();
    let (digest, _) = manifest(&setup, 5000).await;
    setup.put(&setup.layout.data(&digest), "{}").await;
    let answer = setup.fetch.manifest(&setup.repository, &digest).await;
    assert!(matches!(answer, Err(FetchError::Mismatch(of)) if of == digest));
    assert_eq!((setup.store.contents.size(&digest), setup.fills("mismatch")), (None, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_whose_body_breaks_off_is_resumed() {
    let setup = Setup::new();
    let (digest, bytes) = manifest(&setup, 5000).await;
    setup.faults.add(Fault::new(Operation::Get, Effect::Reset { after: 2000 }).on_key("/data").times(2));
    assert_eq!(setup.fetch.manifest(&setup.repository, &digest).await.unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_is_served_even_if_it_cannot_be_stored() {
    let setup = Setup::on(Fixture::new(1000, 0, 0), true);
    let (digest, bytes) = manifest(&setup, 5000).await;
    assert_eq!(setup.fetch.manifest(&setup.repository, &digest).await.unwrap(), bytes);
    eventually("not stored", || setup.fills("no_room") == 1).await;
    assert_eq!(setup.store.contents.size(&digest), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_larger_than_a_manifest_may_be_is_refused_unread() {
    let setup = Setup::new();
    let (digest, _) = manifest(&setup, entrepot_oci::MAX_MANIFEST_BYTES + 1).await;
    assert!(matches!(setup.fetch.manifest(&setup.repository, &digest).await, Err(FetchError::Bucket(_))));
    let unlinked = Digest::of(Algorithm::Sha256, b"unlinked");
    assert!(matches!(setup.fetch.manifest(&setup.repository, &unlinked).await, Err(FetchError::NotFound)));
}
