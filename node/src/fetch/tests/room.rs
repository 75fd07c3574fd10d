//! The fetch flow without free space, and with a disk that fails.

use super::*;
use crate::fetch::failure::Failure;
use crate::fetch::fill::{self, Fill, FillFile, Phase, Ranges};
use crate::fetch::opened::Opened;
use entrepot_bucket::fault::{Effect, Fault};
use entrepot_bucket::{Object, Operation};
use std::io::ErrorKind;

/// A download of a blob of 600,000 bytes into a file, and the response to its first request.
async fn filling(setup: &Setup, digest: Digest, file: FillFile) -> (Arc<Fill>, Origin, Object) {
    let origin = setup.fetch.shared.origin(&digest);
    let first = origin.open(Some(0..RANGE)).await.unwrap();
    (Arc::new(Fill::new(digest, 600_000, Ranges::of(RANGE), file)), origin, first)
}

/// A store that is too small for the blobs of these tests.
fn cramped() -> Setup {
    Setup::on(Fixture::new(100_000, 0, 0), true)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_that_does_not_fit_passes_through_verified() {
    let setup = cramped();
    let (digest, bytes) = setup.blob(300_000).await;
    assert!(setup.read(&digest).await == bytes);
    assert_eq!(setup.gate.gets("/data"), 2, "the open response has the beginning, a second request the rest");
    assert_eq!((setup.fills("no_room"), setup.fetches("through"), setup.store.contents.size(&digest)), (1, 1, None));

    let readers: Vec<_> = futures::future::join_all((0..8).map(|_| setup.read(&digest))).await;
    assert!(readers.iter().all(|all| *all == bytes));

    let damaged = setup.damaged_blob(400_000).await;
    let content = setup.open(&damaged).await;
    let error = collect(content, 0..400_000).await.unwrap_err();
    assert!(error.to_string().contains("does not match"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_through_that_breaks_off_is_resumed() {
    let setup = cramped();
    let (digest, bytes) = setup.blob(300_000).await;
    setup.faults.add(Fault::new(Operation::Get, Effect::Reset { after: 50_000 }).on_key("/data").times(4));
    assert!(setup.read(&digest).await == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_blocks_no_other_and_gets_the_rest() {
    let limited = |bucket| -> Arc<dyn Bucket> { Arc::new(Limited::new(bucket, 1, 1 << 20)) };
    let setup = Setup::over(Fixture::new(100_000, 0, 0), true, limited);
    let (digest, bytes) = setup.blob(300_000).await;
    let mut slow = setup.open(&digest).await.read(0..300_000);
    let mut given = slow.next().await.unwrap().unwrap().to_vec();
    let other = tokio::time::timeout(PATIENCE, setup.read(&digest)).await;
    assert!(other.expect("the other reader gets the only turn") == bytes);
    given.extend(slow.try_collect::<Vec<Bytes>>().await.unwrap().concat());
    assert!(given == bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_content_that_does_not_fit_only_the_requested_range_is_read() {
    let setup = cramped();
    let (digest, bytes) = setup.blob(300_000).await;
    for range in [0..10, 0..200_000, 100_000..300_000, 299_999..300_000] {
        let part = collect(setup.open(&digest).await, range.start as u64..range.end as u64).await.unwrap();
        assert!(part == bytes[range]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_is_served_without_a_store_that_accepts_no_file() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(300_000).await;
    // The download directory is now one of the system's, so that no user who runs the tests can
    // create a file in it.
    let fills = setup.disk.config.path.join("fills");
    std::fs::remove_dir(&fills).unwrap();
    std::os::unix::fs::symlink("/proc/self", &fills).unwrap();
    assert!(setup.read(&digest).await == bytes);
    let (small, small_bytes) = setup.blob(1000).await;
    assert!(setup.read(&small).await == small_bytes);
    eventually("both have failed", || setup.fills("failed") == 2).await;
    assert_eq!((setup.store.contents.size(&digest), setup.store.contents.size(&small)), (None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_bytes_are_served_without_the_disk() {
    use crate::fetch::reader::Reader;
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(600_000).await;
    let file = FillFile::new(setup.disk.config.path.join("no such folder/nor this/file"), 600_000);
    let (fill, origin, first) = filling(&setup, digest, file).await;
    let mut reader = Reader::new(fill.clone(), fill.watch());
    let (begun, given) = tokio::join!(fill::begin(&fill, &origin, first), reader.next(100, 600_000));
    assert!(matches!(begun.err(), Some(Failure::Local(error)) if error.kind() == ErrorKind::NotFound));
    assert!(given.unwrap() == bytes[100..PIECE]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_a_download_whose_disk_fails_continue_from_the_bucket() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(600_000).await;
    setup.gate.hold_before(u64::MAX);
    setup.gate.let_pass(4);
    let mut whole = setup.open(&digest).await.read(0..600_000);
    let part = setup.open(&digest).await.read(100..500_000);
    let mut given = whole.next().await.unwrap().unwrap().to_vec();
    let Some(Opened::Fill(fill)) = setup.fetch.shared.fills.peek(&digest) else { panic!("no fill") };
    fill.end(Phase::Failed(Failure::from(std::io::Error::from(ErrorKind::StorageFull))));
    setup.gate.open();
    given.extend(whole.try_collect::<Vec<Bytes>>().await.unwrap().concat());
    assert!(given == bytes);
    assert!(part.try_collect::<Vec<Bytes>>().await.unwrap().concat() == bytes[100..500_000]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_during_a_download_is_a_local_failure() {
    let setup = Setup::new();
    let (digest, _) = setup.blob(600_000).await;
    let full = std::fs::OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    let file = FillFile::over("/dev/full".into(), 600_000, full);
    let (fill, origin, first) = filling(&setup, digest, file).await;
    let body = origin.bytes(600_000, 0..RANGE, Some(first));
    let failure = fill::receive(&fill, &origin, body, 4, &setup.background).await.unwrap_err();
    assert!(matches!(failure, Failure::Local(error) if error.kind() == ErrorKind::StorageFull));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_content_that_cannot_be_read_is_read_from_the_bucket() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(2_000_000).await;
    setup.read(&digest).await;
    setup.stored(&digest).await;
    let content = setup.open(&digest).await;
    // The end of the file is cut off without the node's knowledge.
    let file = std::fs::OpenOptions::new().write(true).open(setup.disk.file_of(&digest)).unwrap();
    file.set_len(900_000).unwrap();
    assert!(collect(content, 0..2_000_000).await.unwrap() == bytes);
    assert!(setup.read(&digest).await == bytes);
}
