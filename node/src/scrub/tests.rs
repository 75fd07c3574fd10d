//! The scrub with a store of its own, in paused time.
// These tests pass time with tokio's clock, which a stopwatch does not show.
#![allow(clippy::disallowed_methods)]

use super::worker::{Refill, Scrub};
use crate::store::testing::{Fixture, content, corrupt, store_content};
use entrepot_config as config;
use entrepot_oci::Digest;
use entrepot_runtime::{BackgroundBlocking, Tasks};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

const PERIOD: Duration = Duration::from_secs(7 * 24 * 3600);

/// Records what should be downloaded again.
#[derive(Default)]
struct Asked(Mutex<Vec<Digest>>);

impl Refill for Asked {
    fn refill(&self, digest: &Digest) {
        self.0.lock().push(*digest);
    }
}

struct Setup {
    scrub: Scrub,
    asked: Arc<Asked>,
    fixture: Fixture,
    digests: Vec<Digest>,
}

impl Setup {
    /// A store with this much content, at the beginning of a round.
    async fn new(contents: u64, length: usize) -> Setup {
        let fixture = Fixture::roomy();
        let store = fixture.open();
        let mut digests = Vec::new();
        for seed in 0..contents {
            let (digest, bytes) = content(seed, length);
            store_content(&store, &digest, &bytes).await.unwrap();
            digests.push(digest);
        }
        store.scrub.end_round();
        let asked = Arc::new(Asked::default());
        let scrub = Scrub {
            store,
            background: BackgroundBlocking::new().unwrap(),
            refill: asked.clone(),
            clock: fixture.clock.clone(),
            metrics: fixture.metrics.clone(),
        };
        Setup { scrub, asked, fixture, digests }
    }

    /// The duration of a round.
    async fn round(&self) -> Duration {
        let begun = tokio::time::Instant::now();
        self.scrub.round(PERIOD).await;
        begun.elapsed()
    }

    fn read(&self) -> u64 {
        self.fixture.metrics.scrubbed_bytes.get()
    }
}

fn near(round: Duration) -> bool {
    round > PERIOD - PERIOD / 100 && round < PERIOD + PERIOD / 100
}

#[tokio::test(start_paused = true)]
async fn a_round_takes_the_period_and_reads_everything_once() {
    for (contents, length) in [(10, 100_000), (1, 3_000_000), (3, 0)] {
        let setup = Setup::new(contents, length).await;
        for rounds in 1..=2 {
            let round = setup.round().await;
            assert!(near(round), "{contents} of {length} bytes: {round:?}");
            assert_eq!(setup.read(), rounds * u64::try_from(length).unwrap() * setup.digests.len() as u64);
        }
        assert!(setup.fixture.metrics.scrub_completed.get() > 0);
        assert!(setup.asked.0.lock().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn damaged_content_is_removed_and_downloaded_again() {
    let setup = Setup::new(5, 50_000).await;
    let mut damaged = vec![setup.digests[1], setup.digests[3]];
    corrupt(&setup.fixture.file_of(&damaged[0]));
    std::fs::remove_file(setup.fixture.file_of(&damaged[1])).unwrap();
    setup.round().await;
    damaged.sort();
    assert_eq!(*setup.asked.0.lock(), damaged);
    let is_stored = |digest| setup.scrub.store.contents.contains(digest);
    assert!(setup.digests.iter().all(|digest| is_stored(digest) != damaged.contains(digest)));
    assert_eq!(setup.fixture.metrics.mismatches.with_label_values(&["store"]).get(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_empty_store_is_not_scrubbed_and_a_partial_round_does_not_count() {
    let setup = Setup::new(0, 0).await;
    assert!(setup.round().await >= Duration::from_secs(60));
    assert_eq!(setup.fixture.metrics.scrub_completed.get(), 0);

    let setup = Setup::new(4, 1000).await;
    let Setup { scrub: Scrub { background, refill, clock, metrics, store }, fixture, digests, asked } = setup;
    // Not closed cleanly, so that the next start begins at a random position.
    drop(store);
    let scrub = Scrub { store: fixture.open(), background, refill, clock, metrics };
    let setup = Setup { scrub, asked, fixture, digests };
    setup.round().await;
    assert_eq!(setup.fixture.metrics.scrub_completed.get(), 0);
    assert!(near(setup.round().await));
    assert!(setup.fixture.metrics.scrub_completed.get() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_pause_and_a_zero_period_disables_the_scrub() {
    let setup = Setup::new(2, 3_000_000).await;
    let (tasks, metrics) = (Tasks::new(), setup.fixture.metrics.clone());
    let week = config::Scrub { period: config::Duration::from_secs(PERIOD.as_secs()) };
    setup.scrub.start(&tasks, &week);
    // Without a timer in this test, time passes only while the scrub pauses.
    while metrics.scrubbed_bytes.get() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(tasks.stop(Duration::from_secs(1)).await);
    assert!(metrics.scrubbed_bytes.get() < 6_000_000);

    let setup = Setup::new(2, 1000).await;
    let tasks = Tasks::new();
    setup.scrub.start(&tasks, &config::Scrub { period: config::Duration::from_secs(0) });
    assert!(tasks.stop(Duration::from_secs(1)).await);
    assert_eq!(setup.fixture.metrics.scrubbed_bytes.get(), 0);
}
