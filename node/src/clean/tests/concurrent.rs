//! Eviction in parallel with independent writers and readers.

use super::no_sessions;
use crate::clean::start;
use crate::store::Store;
use crate::store::testing::{Fixture, content, read, store_content};
use entrepot_config::EvictionPolicy::LeastRecentlyUsed;
use entrepot_runtime::Tasks;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

const CAPACITY: u64 = 1 << 20;
const LOW: u64 = 128 << 10;
const TARGET: u64 = 256 << 10;
const TASKS: u64 = 8;
const STEPS: u64 = 150;

/// Reads random content, and stores what is missing. Returns how often there was no space.
async fn pull(store: Store, seed: u64) -> u64 {
    let mut random = StdRng::seed_from_u64(seed);
    let mut refused = 0;
    for _ in 0..STEPS {
        let number = random.random_range(0..200);
        let (digest, bytes) = content(number, usize::try_from(1024 + number * 311).unwrap());
        match read(&store, &digest).await {
            Some(stored) => assert!(stored == bytes, "{digest} differs from what was stored"),
            None => match store_content(&store, &digest, &bytes).await {
                Ok(()) => {}
                Err(error) => {
                    assert!(error.is_no_room(), "{error}");
                    refused += 1;
                }
            },
        }
        let usage = store.room.usage();
        assert!(usage.used + usage.reserved <= CAPACITY, "{usage:?}");
    }
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn capacity_is_never_exceeded_and_pinned_content_stays() {
    let fixture = Fixture::new(CAPACITY, LOW, TARGET);
    let (store, tasks) = (fixture.open(), Tasks::new());
    start(&tasks, store.clone(), LeastRecentlyUsed, no_sessions(), fixture.metrics.clone());
    let (pinned, bytes) = content(1000, 20_000);
    let _pin = store.contents.pin(&pinned);
    store_content(&store, &pinned, &bytes).await.unwrap();

    let (sender, mut refused) = tokio::sync::mpsc::unbounded_channel();
    for seed in 0..TASKS {
        let (store, sender) = (store.clone(), sender.clone());
        tasks.spawn("pull", async move { sender.send(pull(store, seed).await).unwrap() });
    }
    drop(sender);
    for _ in 0..TASKS {
        let refused = refused.recv().await.expect("no puller panics");
        assert_eq!(refused, 0, "there was always content to evict");
    }

    assert!(fixture.evictions("policy") > 100);
    assert!(read(&store, &pinned).await.unwrap() == bytes);
    tokio::time::timeout(Duration::from_secs(20), async {
        while store.room.usage().free < LOW {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the last eviction run ends");
    // An eviction may still be running. The accounts are consistent only after the last removal.
    assert!(tasks.stop(Duration::from_secs(20)).await);
    store.close().unwrap();
    let stored: u64 = store.contents.records().iter().map(|record| record.size).sum();
    assert_eq!((store.room.usage().used, store.room.usage().reserved), (stored, 0));
}
