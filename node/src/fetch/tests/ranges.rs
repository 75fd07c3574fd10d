//! Ranges of content that is being downloaded.

use super::*;
use crate::fetch::reader::HELD_BACK;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_far_ahead_of_the_download_is_served_at_once() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(1 << 20).await;
    setup.gate.hold_before(700_000);
    let part = collect(setup.open(&digest).await, 900_000..900_100).await.unwrap();
    assert!(part == bytes[900_000..900_100]);
    assert_eq!((setup.fetches("through"), setup.metrics.fills_running.get()), (1, 1));
    setup.gate.open();
    setup.stored(&digest).await;
    assert!(collect(setup.open(&digest).await, 900_000..900_100).await.unwrap() == bytes[900_000..900_100]);
    assert_eq!(setup.fetches("hit"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_that_is_written_or_near_is_read_from_the_download() {
    let setup = Setup::new();
    let (digest, bytes) = setup.blob(1 << 20).await;
    setup.gate.hold_before(u64::MAX);
    setup.gate.let_pass(4);
    let near = setup.open(&digest).await;
    eventually("ranges are requested", || setup.gate.gets("/data") == 4).await;
    let near = near.read(50_000..60_000);
    setup.gate.open();
    assert!(near.try_collect::<Vec<Bytes>>().await.unwrap().concat() == bytes[50_000..60_000]);
    setup.stored(&digest).await;
    assert_eq!((setup.fetches("through"), setup.gate.gets("/data")), (0, 16));
}

/// The size of a blob, the number of pieces that pass before the readers start, whether the bucket
/// supports parallel ranges, and the bounds of the ranges to read, as fractions of the size.
type Case = (usize, usize, bool, Vec<(f64, f64)>);

fn cases() -> impl Strategy<Value = Case> {
    let cuts = proptest::collection::vec((0.0f64..1.0, 0.0f64..1.0), 1..8);
    (1usize..700_000, 0usize..60, any::<bool>(), cuts)
}

#[test]
fn any_range_read_at_any_moment_of_a_download_is_correct() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let setups = runtime.block_on(async { [false, true].map(|parallel| Setup::on(Fixture::roomy(), parallel)) });
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) });
    let tested = runner.run(&cases(), |(size, passed, parallel, cuts)| {
        runtime.block_on(read_while_filling(&setups[usize::from(parallel)], size, passed, &cuts))
    });
    tested.unwrap_or_else(|failure| panic!("{failure}"));
}

async fn read_while_filling(
    setup: &Setup,
    size: usize,
    passed: usize,
    cuts: &[(f64, f64)],
) -> Result<(), TestCaseError> {
    let (digest, bytes) = setup.blob(size).await;
    setup.store.contents.remove(&digest).await.unwrap();
    setup.gate.close();
    // Small content is not readable before all of it has arrived.
    setup.gate.let_pass(if size as u64 <= HELD_BACK { size.div_ceil(PIECE) } else { passed });
    let at = |cut: f64| (cut * size as f64) as usize;
    let ranges: Vec<_> = cuts.iter().map(|(one, other)| at(one.min(*other))..at(one.max(*other)) + 1).collect();
    let readers = futures::future::join_all(ranges.iter().map(|range| async {
        let content = setup.open(&digest).await;
        content.read(range.start as u64..range.end as u64)
    }));
    let readers = readers.await;
    setup.gate.open();
    for (range, reader) in ranges.into_iter().zip(readers) {
        let part = reader.try_collect::<Vec<Bytes>>().await.unwrap().concat();
        prop_assert!(part == bytes[range.clone()], "{:?} of {}", range, size);
    }
    setup.stored(&digest).await;
    prop_assert!(setup.read(&digest).await == bytes);
    Ok(())
}
