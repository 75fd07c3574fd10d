//! Places for connections. When all places are taken, the connection that has been idle longest
//! gives its place to a new one. So connections may stay idle for a long time, but idle ones cannot
//! block new clients.

use super::exchange::Exchange;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// How long to wait for a connection that was told to close before another one is told. A
/// connection may stay open because it received a request first, or because its HTTP/2 client does
/// not agree.
const STEP: Duration = Duration::from_millis(100);

/// The places of one listener. Clones share them.
#[derive(Clone)]
pub struct Places {
    free: Arc<Semaphore>,
    taken: Arc<Mutex<Taken>>,
    became_idle: Arc<Notify>,
}

#[derive(Default)]
struct Taken {
    exchanges: HashMap<u64, Arc<Exchange>>,
    next: u64,
}

/// A place and what its connection is doing. Dropping it frees the place.
pub struct Place {
    pub exchange: Arc<Exchange>,
    number: u64,
    places: Places,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub fn new(connections: usize) -> Places {
        Places {
            free: Arc::new(Semaphore::new(connections)),
            taken: Arc::default(),
            became_idle: Arc::new(Notify::new()),
        }
    }

    /// Takes a place, as soon as one is free.
    pub async fn take(&self) -> Place {
        loop {
            if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
                return self.place(permit);
            }
            let told = self.end_longest_idle();
            tokio::select! {
                biased;
                Ok(permit) = Arc::clone(&self.free).acquire_owned() => return self.place(permit),
                () = tokio::time::sleep(STEP), if told => {}
                () = self.became_idle.notified(), if !told => {}
            }
        }
    }

    fn place(&self, permit: OwnedSemaphorePermit) -> Place {
        let exchange = Arc::new(Exchange::new(Arc::clone(&self.became_idle)));
        let mut taken = self.taken();
        let number = taken.next;
        taken.next += 1;
        taken.exchanges.insert(number, Arc::clone(&exchange));
        drop(taken);
        Place { exchange, number, places: self.clone(), _permit: permit }
    }

    /// Tells the connection that has been idle longest to close. Returns whether there was one.
    fn end_longest_idle(&self) -> bool {
        let taken = self.taken();
        // Compared by their starts: durations that are read one after the other need not keep the order.
        let idle = taken.exchanges.values().filter_map(|exchange| Some((exchange.idle_since()?, exchange)));
        idle.min_by_key(|(since, _)| *since).is_some_and(|(_, exchange)| exchange.end_if_idle())
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().exchanges.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::listen::exchange::Protocol;
    use futures::FutureExt;

    #[tokio::test]
    async fn only_the_connection_that_was_idle_longest_is_told_to_close() {
        let places = Places::new(3);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(places.take().await);
        }
        let busy = held[0].exchange.begin(Protocol::Serial);
        for number in [2, 1] {
            drop(held[number].exchange.begin(Protocol::Serial));
            // Makes sure that the next one becomes idle later.
            while held[number].exchange.idle_since().unwrap().elapsed().is_zero() {}
        }
        assert!(places.end_longest_idle());
        assert_eq!(
            [0, 1, 2].map(|number| held[number].exchange.told_to_end().now_or_never().is_some()),
            [false, false, true]
        );
        assert!(places.end_longest_idle());
        assert!(held[1].exchange.told_to_end().now_or_never().is_some());
        assert!(!places.end_longest_idle(), "one is busy and two are ending");
        drop(busy);
        assert!(places.end_longest_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_connection_gets_the_place_of_one_that_becomes_idle() {
        let places = Places::new(1);
        let held = places.take().await;
        let told = || held.exchange.told_to_end().now_or_never().is_some();
        let busy = held.exchange.begin(Protocol::Serial);
        let mut waiting = Box::pin(places.take());
        assert!((&mut waiting).now_or_never().is_none() && !told());
        drop(busy);
        assert!((&mut waiting).now_or_never().is_none() && told());
        // The connection received a request before it could close, and is told again when the
        // request ends.
        drop(held.exchange.begin(Protocol::Serial));
        tokio::time::advance(2 * STEP).await;
        assert!((&mut waiting).now_or_never().is_none() && told());
        drop(held);
        assert!((&mut waiting).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_close_blocks_no_client_while_others_are_idle() {
        let places = Places::new(2);
        let held = [places.take().await, places.take().await];
        for place in &held {
            drop(place.exchange.begin(Protocol::Multiplexed));
        }
        let mut waiting = Box::pin(places.take());
        let told = || held.iter().filter(|place| place.exchange.idle_since().is_none()).count();
        assert!((&mut waiting).now_or_never().is_none());
        assert_eq!(told(), 1);
        tokio::time::advance(2 * STEP).await;
        assert!((&mut waiting).now_or_never().is_none());
        assert_eq!(told(), 2);
    }
}
