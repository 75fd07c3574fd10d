//! A bucket that breaks off, returns wrong bytes, or is unreachable.

use super::*;
use entrepot_bucket::fault::{Effect, Fault};
use entrepot_bucket::{BucketErrorKind, Operation};

fn on_get(effect: Effect) -> Fault {
    Fault::new(Operation::Get, effect).on_key("/data")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_of_another_digest_end_the_stream_early_and_are_not_stored() {
    let setup = Setup::new();
    for size in [RANGE as usize + 1, 3 * RANGE as usize, 1 << 20] {
        let digest = setup.damaged_blob(size).await;
        let content = setup.open(&digest).await;
        let total = content.size;
        let mut reader = content.read(0..total);
        let mut given = 0;
        let error = loop {
            match reader.next().await.unwrap() {
                Ok(bytes) => given += bytes.len() as u64,
                Err(error) => break error,
            }
        };
        assert!(given < total && error.to_string().contains("does not match"), "{size}: {given} {error}");
        eventually("settled", || setup.metrics.fills_running.get() == 0).await;
        assert_eq!(setup.store.contents.size(&digest), None);
    }
    assert_eq!((setup.fills("mismatch"), setup.metrics.mismatches.with_label_values(&["bucket"]).get()), (3, 3));
    assert_eq!(std::fs::read_dir(setup.disk.config.path.join("fills")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_content_of_another_digest_is_refused_before_its_first_byte() {
    let setup = Setup::new();
    for size in [1, 300, RANGE as usize] {
        let digest = setup.damaged_blob(size).await;
        let refused = setup.fetch.blob(&setup.repository, &digest).await;
        assert!(matches!(refused, Err(FetchError::Mismatch(of)) if of == digest), "{size}");
        assert_eq!(setup.store.contents.size(&digest), None);
    }
    let (digest, _) = setup.blob(10).await;
    setup.put(&setup.layout.data(&digest), "").await;
    let refused = setup.fetch.blob(&setup.repository, &digest).await;
    assert!(matches!(refused, Err(FetchError::Mismatch(of)) if of == digest));
    assert_eq!((setup.fills("mismatch"), setup.metrics.mismatches.with_label_values(&["bucket"]).get()), (4, 4));
    assert_eq!(std::fs::read_dir(setup.disk.config.path.join("fills")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_breaks_off_in_any_range_is_resumed_at_the_byte_it_reached() {
    // Every response breaks off, so that a range of 65,536 bytes takes this many responses.
    for (effect, answers) in [
        (Effect::Reset { after: 20_000 }, 4),
        (Effect::Truncate { after: 40_000 }, 2),
        (Effect::Reset { after: 65_535 }, 2),
    ] {
        let setup = Setup::new();
        let (digest, bytes) = setup.blob(6 * RANGE as usize).await;
        setup.faults.add(on_get(effect));
        assert!(setup.read(&digest).await == bytes, "{effect:?}");
        setup.stored(&digest).await;
        assert_eq!(setup.gate.gets("/data"), 6 * answers, "{effect:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_breaks_off_but_makes_progress_is_read_to_its_end() {
    let setup = Setup::on(Fixture::roomy(), false);
    let (digest, bytes) = setup.blob(300_000).await;
    setup.faults.add(on_get(Effect::Reset { after: 40_000 }));
    assert!(setup.read(&digest).await == bytes);
    assert_eq!(setup.gate.gets("/data"), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_without_progress_fails_the_download_and_the_next_request_retries() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(4 * RANGE as usize).await;
    setup.faults.add(on_get(Effect::Truncate { after: 100 }).times(1));
    setup.faults.add(on_get(Effect::Truncate { after: 0 }));
    let content = setup.open(&digest).await;
    let size = content.size;
    assert!(collect(content, 0..size).await.is_err());
    eventually("settled", || setup.metrics.fills_running.get() == 0).await;
    assert_eq!((setup.fills("failed"), setup.store.contents.size(&digest)), (1, None));
    setup.faults.clear();
    assert!(setup.read(&digest).await == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_reaches_all_waiting_requests_and_the_next_one_retries() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(1000).await;
    setup.faults.add(on_get(Effect::Hang).times(1));
    let wait = || setup.fetch.blob(&setup.repository, &digest);
    let failing = async {
        eventually("requested", || setup.gate.gets("/data") == 1).await;
        setup.faults.clear();
    };
    // The one request hangs until it is released. Requests that arrive in the meantime share its
    // result.
    let (first, second, ()) = tokio::join!(wait(), wait(), failing);
    assert!(first.is_ok() && second.is_ok());
    setup.stored(&digest).await;
    setup.store.contents.remove(&digest).await.unwrap();

    let denied = setup.faults.add(Fault::error(Operation::Get, BucketErrorKind::Denied).on_key("/data").times(1));
    let refused = setup.fetch.blob(&setup.repository, &digest).await;
    assert!(matches!(refused, Err(FetchError::Bucket(error)) if error.kind == BucketErrorKind::Denied));
    assert_eq!(setup.faults.hits(denied), 1);
    assert!(setup.read(&digest).await == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn linked_content_that_the_bucket_lost_is_missing() {
    let setup = Setup::new();
    let (digest, _) = setup.blob(1000).await;
    setup.memory.delete(&setup.layout.data(&digest)).await.unwrap();
    let missing = setup.fetch.blob(&setup.repository, &digest).await;
    assert!(matches!(missing, Err(FetchError::ContentMissing(of)) if of == digest));
    let missing = setup.fetch.blob_size(&setup.repository, &digest).await;
    assert!(matches!(missing, Err(FetchError::ContentMissing(_))));
}
