//! Eviction compared step by step with a naive model.

use super::no_sessions;
use crate::clean::worker::Cleaner;
use crate::store::Pin;
use crate::store::testing::{Fixture, content, read, size, store_content};
use entrepot_config::EvictionPolicy;
use entrepot_oci::Digest;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::time::Duration;

const CAPACITY: u64 = 1 << 20;
/// Larger than any one item, so that nothing waits and the result of each step is known.
const LOW: u64 = 96 << 10;
const TARGET: u64 = 256 << 10;
const STEP: Duration = Duration::from_secs(600);
const STEPS: u64 = 1500;
/// Number of times the store is closed and reopened.
const RESTART: u64 = 211;

/// A stored item in the model.
struct Modelled {
    digest: Digest,
    size: u64,
    /// The step of the last use.
    used: u64,
    /// Number of uses, halved with every eight requests per stored item.
    count: f64,
    pinned: bool,
}

/// The naive model: a list that is searched completely at each step.
struct Model {
    policy: EvictionPolicy,
    stored: Vec<Modelled>,
}

impl Model {
    /// Counts one request.
    fn age(&mut self) {
        let factor = 0.5f64.powf(1.0 / (8.0 * self.stored.len().max(1) as f64));
        self.stored.iter_mut().for_each(|content| content.count *= factor);
    }

    fn use_it(&mut self, digest: &Digest, step: u64) -> bool {
        let Some(content) = self.stored.iter_mut().find(|content| content.digest == *digest) else { return false };
        content.used = step;
        content.count += 1.0;
        true
    }

    fn free(&self) -> u64 {
        CAPACITY - self.stored.iter().map(|content| content.size).sum::<u64>()
    }

    fn clean(&mut self) {
        if self.free() >= LOW {
            return;
        }
        while self.free() < TARGET {
            let removable = (0..self.stored.len()).filter(|index| !self.stored[*index].pinned);
            let first = removable.min_by(|a, b| {
                let (a, b) = (&self.stored[*a], &self.stored[*b]);
                match self.policy {
                    EvictionPolicy::LeastRecentlyUsed => a.used.cmp(&b.used),
                    EvictionPolicy::LeastFrequentlyUsed => a.count.total_cmp(&b.count).then(a.used.cmp(&b.used)),
                }
            });
            self.stored.remove(first.unwrap());
        }
    }

    fn digests(&self) -> BTreeSet<Digest> {
        self.stored.iter().map(|content| content.digest).collect()
    }
}

/// A long sequence of inserts and reads, with some content read much more often than other content,
/// and restarts in between. At each step the store must contain exactly what the model contains.
async fn the_store_matches_the_model(policy: EvictionPolicy) {
    let fixture = Fixture::new(CAPACITY, LOW, TARGET);
    let mut random = StdRng::seed_from_u64(7);
    let mut model = Model { policy, stored: Vec::new() };
    let mut known: Vec<(Digest, bytes::Bytes)> = Vec::new();
    let mut cleanings = 0;
    let mut store = fixture.open();
    let mut cleaner = Cleaner::new(store.clone(), policy, no_sessions(), fixture.metrics.clone());
    let mut pin: Option<Pin> = None;
    for step in 1..=STEPS {
        fixture.clock.advance(STEP);
        model.age();
        // A third of the reads are of the first twenty items.
        let asked = match random.random_range(0..6) {
            0 | 1 if known.len() > 20 => Some(random.random_range(0..20)),
            2 | 3 if !known.is_empty() => Some(random.random_range(known.len().saturating_sub(80)..known.len())),
            _ => None,
        };
        let (digest, bytes) = match asked {
            Some(number) => known[number].clone(),
            None => {
                let fresh = content(step, random.random_range(1 << 10..=64 << 10));
                known.push(fresh.clone());
                fresh
            }
        };
        // As a fetch does: reads from the store, or else inserts into it.
        let stored = read(&store, &digest).await;
        assert_eq!(stored.is_some(), model.use_it(&digest, step), "step {step}");
        match stored {
            Some(stored) => assert!(stored == bytes, "step {step}"),
            None => {
                store_content(&store, &digest, &bytes).await.unwrap();
                let pinned = model.stored.is_empty();
                if pinned {
                    pin = Some(store.contents.pin(&digest));
                }
                model.stored.push(Modelled { digest, size: size(&bytes), used: step, count: 1.0, pinned });
            }
        }
        let short = store.room.usage().free < LOW;
        cleaner.clean_if_short().await;
        model.clean();
        let usage = store.room.usage();
        assert!(usage.used + usage.reserved <= CAPACITY, "step {step}: {usage:?}");
        assert!(!short || usage.free >= TARGET, "step {step}: {usage:?}");
        cleanings += u64::from(short);
        let there: BTreeSet<Digest> = store.contents.records().into_iter().map(|record| record.digest).collect();
        assert_eq!(there, model.digests(), "step {step}");
        if step % RESTART == 0 {
            let repin = pin.take().is_some();
            store.close().unwrap();
            drop((store, cleaner));
            store = fixture.open();
            cleaner = Cleaner::new(store.clone(), policy, no_sessions(), fixture.metrics.clone());
            let pinned = model.stored.iter().find(|content| content.pinned);
            pin = pinned.filter(|_| repin).map(|content| store.contents.pin(&content.digest));
        }
    }
    assert!(cleanings > 50, "{cleanings}");
    assert!(model.stored.iter().any(|content| content.pinned), "pinned content stays");
    assert_eq!(fixture.evictions("corrupt"), 0);
}

#[tokio::test]
async fn least_recently_used_eviction_works_across_restarts() {
    the_store_matches_the_model(EvictionPolicy::LeastRecentlyUsed).await;
}

#[tokio::test]
async fn least_frequently_used_eviction_works_across_restarts() {
    the_store_matches_the_model(EvictionPolicy::LeastFrequentlyUsed).await;
}

/// Ten items that are requested all the time, in a stream of items that are requested once.
async fn hot_content_stays(policy: EvictionPolicy, reads_between: u64) {
    let fixture = Fixture::new(CAPACITY, LOW, TARGET);
    let store = fixture.open();
    let cleaner = Cleaner::new(store.clone(), policy, no_sessions(), fixture.metrics.clone());
    let hot: Vec<_> = (0..10).map(|seed| content(seed, 16 << 10)).collect();
    for (digest, bytes) in &hot {
        store_content(&store, digest, bytes).await.unwrap();
    }
    for (digest, _) in hot.iter().cycle().take(100) {
        fixture.clock.advance(STEP);
        assert!(read(&store, digest).await.is_some());
    }
    for seed in 100..300 {
        let (digest, bytes) = content(seed, 40 << 10);
        fixture.clock.advance(Duration::from_secs(10));
        store_content(&store, &digest, &bytes).await.unwrap();
        cleaner.clean_if_short().await;
        if seed % reads_between == 0 {
            for (digest, _) in &hot {
                assert!(read(&store, digest).await.is_some(), "{policy:?} {seed}");
            }
        }
    }
    assert!(hot.iter().all(|(digest, _)| store.contents.size(digest).is_some()));
    assert!(fixture.evictions("policy") > 150);
}

#[tokio::test]
async fn frequently_read_content_stays() {
    hot_content_stays(EvictionPolicy::LeastRecentlyUsed, 5).await;
}

#[tokio::test]
async fn occasionally_read_content_outlives_content_that_is_read_once() {
    // Between two reads the whole content of the store is replaced twice.
    hot_content_stays(EvictionPolicy::LeastFrequentlyUsed, 50).await;
}
