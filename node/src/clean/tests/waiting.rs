//! Requests that wait for space.

use super::no_sessions;
use crate::clean::start;
use crate::clean::worker::{Cleaner, Round};
use crate::store::UnusedSessions;
use crate::store::testing::{Fixture, content, store_content};
use crate::store::{Reservation, StoreError};
use async_trait::async_trait;
use entrepot_config::EvictionPolicy::LeastRecentlyUsed;
use entrepot_config::Threshold;
use entrepot_runtime::Tasks;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Far longer than any operation of these tests takes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("timed out")
}

/// A session that expires once, and can block eviction forever if configured to.
struct OneSession {
    held: Mutex<Option<Reservation>>,
    endless: bool,
}

#[async_trait]
impl UnusedSessions for OneSession {
    async fn expire(&self) -> u64 {
        let held = self.held.lock().take();
        let bytes = held.as_ref().map_or(0, Reservation::bytes);
        drop(held);
        if self.endless {
            std::future::pending::<()>().await;
        }
        bytes
    }

    async fn give_way(&self, _bytes: u64) -> u64 {
        0
    }
}

#[tokio::test]
async fn a_reservation_that_does_not_fit_gets_the_space_of_evicted_content() {
    let fixture = Fixture::new(1000, 0, 100);
    let (store, tasks) = (fixture.open(), Tasks::new());
    start(&tasks, store.clone(), LeastRecentlyUsed, no_sessions(), fixture.metrics.clone());
    for seed in 0..10 {
        let (digest, bytes) = content(seed, 100);
        soon(store_content(&store, &digest, &bytes)).await.unwrap();
        fixture.clock.advance(Duration::from_secs(1));
    }
    let reservation = soon(store.room.reserve(550)).await.unwrap();
    assert_eq!(reservation.bytes(), 550);
    let (oldest, _) = content(0, 100);
    let (newest, _) = content(9, 100);
    assert_eq!((store.contents.size(&oldest), store.contents.size(&newest)), (None, Some(100)));
    assert!(tasks.stop(PATIENCE).await);
}

#[tokio::test]
async fn space_that_other_programs_free_goes_to_waiting_requests() {
    let fixture = Fixture::new(1000, 0, 100);
    let (store, tasks) = (fixture.open(), Tasks::new());
    start(&tasks, store.clone(), LeastRecentlyUsed, no_sessions(), fixture.metrics.clone());
    store.room.saw_a_full_disk();
    let reservation = soon(store.room.reserve(500)).await.unwrap();
    assert_eq!((reservation.bytes(), fixture.evictions("policy")), (500, 0));
    assert!(tasks.stop(PATIENCE).await);
}

#[tokio::test]
async fn a_fully_pinned_store_refuses_promptly_until_content_is_in_the_bucket() {
    let fixture = Fixture::new(1000, 200, 300);
    let (store, tasks) = (fixture.open(), Tasks::new());
    start(&tasks, store.clone(), LeastRecentlyUsed, no_sessions(), fixture.metrics.clone());
    let mut pins = Vec::new();
    for seed in 0..9 {
        let (digest, bytes) = content(seed, 100);
        pins.push(store.contents.pin(&digest));
        soon(store_content(&store, &digest, &bytes)).await.unwrap();
    }
    assert!(matches!(soon(store.room.reserve(200)).await, Err(StoreError::NoRoom(200))));
    assert!(soon(store.room.reserve(100)).await.is_ok());
    assert_eq!(store.room.usage().used, 900);
    drop(pins);
    // The end of the last pin wakes the cleaner, because less than `lowFree` is free.
    soon(async {
        while store.room.usage().free < 300 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(soon(store.room.reserve(200)).await.is_ok());
    assert!(tasks.stop(PATIENCE).await);
}

/// A request that came after the round began must not be refused because of its result.
#[tokio::test]
async fn a_round_that_came_too_late_is_outdated_and_does_not_refuse_requests() {
    let fixture = Fixture::new(1000, 0, 100);
    let store = fixture.open();
    let cleaner = Cleaner::new(store.clone(), LeastRecentlyUsed, no_sessions(), fixture.metrics.clone());
    assert_eq!(cleaner.remove_victims(100).await, Round::NothingRemovable);
    let (digest, bytes) = content(1, 100);
    store_content(&store, &digest, &bytes).await.unwrap();
    assert_eq!(cleaner.remove_victims(100).await, Round::Outdated, "no request waits and enough is free");
    assert_eq!(store.contents.size(&digest), Some(100));
    store.room.set_thresholds(Threshold::percent(95), Threshold::percent(95));
    assert_eq!(cleaner.remove_victims(50).await, Round::Freed(100));
    assert_eq!(store.contents.size(&digest), None);
}

#[tokio::test]
async fn expired_sessions_are_removed_before_any_content() {
    let fixture = Fixture::new(1000, 0, 0);
    let (store, tasks) = (fixture.open(), Tasks::new());
    let (digest, bytes) = content(1, 100);
    store_content(&store, &digest, &bytes).await.unwrap();
    let held = Mutex::new(Some(store.room.reserve(900).await.unwrap()));
    let sessions = Arc::new(OneSession { held, endless: false });
    start(&tasks, store.clone(), LeastRecentlyUsed, sessions, fixture.metrics.clone());
    assert!(soon(store.room.reserve(500)).await.is_ok());
    assert_eq!(store.contents.size(&digest), Some(100));
    assert_eq!(fixture.metrics.store.evicted_bytes.get(), 900);
    assert!(tasks.stop(PATIENCE).await);
}

#[tokio::test]
async fn a_waiting_request_gets_space_before_the_eviction_run_ends() {
    let fixture = Fixture::new(1000, 0, 0);
    let (store, tasks) = (fixture.open(), Tasks::new());
    let held = Mutex::new(Some(store.room.reserve(900).await.unwrap()));
    let sessions = Arc::new(OneSession { held, endless: true });
    start(&tasks, store.clone(), LeastRecentlyUsed, sessions, fixture.metrics.clone());
    assert!(soon(store.room.reserve(500)).await.is_ok());
    assert!(tasks.stop(PATIENCE).await, "eviction stops in the middle of a run, too");
}

#[tokio::test]
async fn no_request_is_left_waiting_when_the_tasks_stop() {
    let fixture = Fixture::new(1000, 0, 0);
    let (store, tasks) = (fixture.open(), Tasks::new());
    let _held = store.room.reserve(900).await.unwrap();
    let sessions = Arc::new(OneSession { held: Mutex::new(None), endless: true });
    start(&tasks, store.clone(), LeastRecentlyUsed, sessions, fixture.metrics.clone());
    let mut waiting = Box::pin(store.room.reserve(500));
    assert!(futures::poll!(&mut waiting).is_pending());
    assert!(tasks.stop(PATIENCE).await);
    assert!(soon(waiting).await.unwrap_err().is_no_room());
}

#[tokio::test]
async fn the_gauges_report_the_usage_of_the_store() {
    let fixture = Fixture::new(1000, 100, 200);
    let store = fixture.open();
    let (digest, bytes) = content(1, 300);
    store_content(&store, &digest, &bytes).await.unwrap();
    let _reservation = store.room.reserve(50).await.unwrap();
    let metrics = &fixture.metrics;
    let gauges = [
        &metrics.store.capacity,
        &metrics.store.used,
        &metrics.store.free,
        &metrics.store.low_free,
        &metrics.store.target_free,
    ];
    assert_eq!(gauges.map(prometheus::IntGauge::get), [1000, 350, 650, 100, 200]);
}
