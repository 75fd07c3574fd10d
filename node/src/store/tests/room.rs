//! Capacity and reservations.

use crate::store::testing::{Fixture, content, store_content};
use crate::store::{Store, StoreError};
use entrepot_config::{ByteSize, Threshold};
use futures::FutureExt;
use std::time::Duration;

fn taken(store: &Store) -> u64 {
    store.room.usage().used + store.room.usage().reserved
}

#[tokio::test]
async fn a_dropped_reservation_releases_its_space() {
    let store = Fixture::new(100, 0, 0).open();
    let mut first = store.room.reserve(40).await.unwrap();
    first.wrote(10);
    first.grow(10).await.unwrap();
    assert_eq!((first.bytes(), taken(&store), store.room.usage().free), (50, 50, 50));
    drop(first);
    assert_eq!((taken(&store), store.room.usage().free), (0, 100));
}

#[tokio::test]
async fn without_a_cleaner_no_reservation_waits() {
    let store = Fixture::new(100, 0, 0).open();
    let _held = store.room.reserve(60).await.unwrap();
    assert!(matches!(store.room.reserve(41).await, Err(StoreError::NoRoom(41))));
    assert!(store.room.reserve(40).await.is_ok());
}

#[tokio::test]
async fn a_reservation_above_the_capacity_fails_at_once_even_with_a_cleaner() {
    let store = Fixture::new(100, 0, 0).open();
    let _pressure = store.room.cleaner();
    assert!(matches!(store.room.reserve(101).now_or_never(), Some(Err(StoreError::NoRoom(101)))));
}

#[tokio::test]
async fn waiting_reservations_are_granted_in_order() {
    let store = Fixture::new(100, 0, 0).open();
    let pressure = store.room.cleaner();
    let held = store.room.reserve(60).await.unwrap();
    let mut large = Box::pin(store.room.reserve(90));
    let mut small = Box::pin(store.room.reserve(10));
    assert!(large.as_mut().now_or_never().is_none());
    assert!(small.as_mut().now_or_never().is_none(), "the second would fit, but the first one is granted first");
    assert!(pressure.is_short());
    assert_eq!(pressure.wanted(), 60);
    drop(held);
    let (large, small) = (large.await.unwrap(), small.await.unwrap());
    assert_eq!(large.bytes() + small.bytes(), taken(&store));
}

#[tokio::test]
async fn a_dropped_waiter_does_not_block_the_others() {
    let store = Fixture::new(100, 0, 0).open();
    let pressure = store.room.cleaner();
    let _held = store.room.reserve(60).await.unwrap();
    let mut large = Box::pin(store.room.reserve(90));
    let mut small = Box::pin(store.room.reserve(10));
    assert!(large.as_mut().now_or_never().is_none());
    assert!(small.as_mut().now_or_never().is_none());
    drop(large);
    pressure.refuse_waiting();
    assert_eq!(small.await.unwrap().bytes(), 10);
}

#[tokio::test]
async fn space_granted_to_a_dropped_waiter_is_released() {
    let store = Fixture::new(100, 0, 0).open();
    let _pressure = store.room.cleaner();
    let held = store.room.reserve(60).await.unwrap();
    let mut waiting = Box::pin(store.room.reserve(90));
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(held);
    assert_eq!(taken(&store), 90, "granted, and not received yet");
    drop(waiting);
    assert_eq!(taken(&store), 0);
}

#[tokio::test]
async fn waiting_reservations_fail_when_the_cleaner_is_dropped() {
    let store = Fixture::new(100, 0, 0).open();
    let pressure = store.room.cleaner();
    let _held = store.room.reserve(60).await.unwrap();
    let mut waiting = Box::pin(store.room.reserve(90));
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(pressure);
    assert!(waiting.await.unwrap_err().is_no_room());
}

#[tokio::test]
async fn bytes_found_on_disk_are_always_accepted_and_counted() {
    let store = Fixture::new(100, 0, 0).open();
    let found = store.room.account_existing(150);
    assert_eq!((taken(&store), store.room.usage().free), (150, 0));
    assert!(store.room.reserve(1).await.is_err());
    drop(found);
    assert_eq!(store.room.usage().free, 100);
}

#[tokio::test]
async fn crossing_the_first_threshold_wakes_the_cleaner_and_nothing_else_does() {
    let store = Fixture::new(100, 20, 40).open();
    let pressure = store.room.cleaner();
    let _most = store.room.reserve(80).await.unwrap();
    assert!(pressure.wait().now_or_never().is_none(), "20 bytes are free, which equals the threshold");
    let one = store.room.reserve(1).await.unwrap();
    let woken = tokio::time::timeout(Duration::from_secs(10), pressure.wait()).await;
    assert!(woken.is_ok());
    assert_eq!(pressure.wanted(), 21);
    drop(one);
    assert!(!pressure.is_short());
    store.room.set_thresholds(Threshold::Bytes(ByteSize::bytes(30)), Threshold::percent(50));
    assert!(pressure.is_short());
    assert_eq!((store.room.usage().low_free, store.room.usage().target_free, pressure.wanted()), (30, 50, 30));
}

#[tokio::test]
async fn the_default_capacity_is_the_stored_bytes_plus_the_free_space() {
    let mut fixture = Fixture::roomy();
    fixture.config.capacity = None;
    fixture.config.low_free = Threshold::percent(10);
    let (digest, bytes) = content(1, 1 << 20);
    store_content(&fixture.open(), &digest, &bytes).await.unwrap();
    let store = fixture.open();
    let _held = store.room.reserve(1 << 10).await.unwrap();
    let usage = store.room.usage();
    assert_eq!((usage.used, usage.reserved), (1 << 20, 1 << 10));
    assert_eq!(usage.capacity, usage.used + usage.reserved + usage.free, "{usage:?}");
    assert_eq!(usage.low_free, Threshold::percent(10).of(usage.capacity), "{usage:?}");
}
