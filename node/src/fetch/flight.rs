//! One flight a digest: whoever asks for what is under way already waits for it instead of beginning it again.

use super::failure::Failure;
use crate::oci::Digest;
use dashmap::{DashMap, Entry as Slot};
use std::sync::Arc;
use tokio::sync::watch;

type Outcome<T> = Option<Result<T, Failure>>;

/// What is under way, by digest. An entry is there from the first request until the [`Departure`] is dropped.
pub(super) struct Flights<T> {
    running: DashMap<Digest, watch::Receiver<Outcome<T>>>,
}

/// What a request for a digest met.
pub(super) enum Entry<T> {
    /// Another one's flight.
    Joined(Arrival<T>),
    /// Its own: the work behind the departure is to be begun.
    New(Departure<T>, Arrival<T>),
    /// None, and the work is no longer needed: a flight landed in the meantime.
    Landed,
}

/// Held by the work. Dropped, it ends the flight, and the next request begins another.
pub(super) struct Departure<T> {
    flights: Arc<Flights<T>>,
    digest: Digest,
    outcome: watch::Sender<Outcome<T>>,
    /// The entry is removed; one that is there now is another flight's.
    left: bool,
}

/// Held by each that waits.
pub(super) struct Arrival<T> {
    digest: Digest,
    outcome: watch::Receiver<Outcome<T>>,
}

impl<T: Clone> Flights<T> {
    pub(super) fn new() -> Arc<Flights<T>> {
        Arc::new(Flights { running: DashMap::new() })
    }

    /// Joins the flight of a digest or begins one, unless `landed`. That is asked only when there is no flight: work
    /// whose result `landed` sees before its flight ends is so never done twice.
    pub(super) fn enter(self: &Arc<Self>, digest: &Digest, landed: impl FnOnce() -> bool) -> Entry<T> {
        match self.running.entry(*digest) {
            Slot::Occupied(running) => Entry::Joined(Arrival { digest: *digest, outcome: running.get().clone() }),
            Slot::Vacant(_) if landed() => Entry::Landed,
            Slot::Vacant(slot) => {
                let (sender, outcome) = watch::channel(None);
                slot.insert(outcome.clone());
                let departure = Departure { flights: self.clone(), digest: *digest, outcome: sender, left: false };
                Entry::New(departure, Arrival { digest: *digest, outcome })
            }
        }
    }

    /// What is known of a flight by now, without waiting for it.
    pub(super) fn peek(&self, digest: &Digest) -> Option<T> {
        let running = self.running.get(digest)?;
        let outcome = running.borrow();
        outcome.as_ref()?.as_ref().ok().cloned()
    }
}

impl<T> Departure<T> {
    /// Tells all that wait, now and until the flight ends.
    pub(super) fn announce(&self, outcome: Result<T, Failure>) {
        self.outcome.send_replace(Some(outcome));
    }

    /// Ends the flight and tells all that wait. In this order: who was told of a failure and asks again begins anew.
    pub(super) fn end(mut self, outcome: Result<T, Failure>) {
        self.leave();
        self.announce(outcome);
    }

    fn leave(&mut self) {
        if !std::mem::replace(&mut self.left, true) {
            self.flights.running.remove(&self.digest);
        }
    }
}

impl<T> Drop for Departure<T> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<T: Clone> Arrival<T> {
    /// Waits for the announcement.
    pub(super) async fn outcome(mut self) -> Result<T, Failure> {
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or_else(|| Err(Failure::abandoned(&self.digest))),
            Err(_) => Err(Failure::abandoned(&self.digest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Algorithm;

    #[tokio::test]
    async fn a_second_request_joins_and_both_get_the_outcome() {
        let flights = Flights::<u8>::new();
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let Entry::New(departure, first) = flights.enter(&digest, || false) else { panic!("not new") };
        let Entry::Joined(second) = flights.enter(&digest, || false) else { panic!("not joined") };
        assert_eq!(flights.peek(&digest), None);
        departure.announce(Ok(7));
        assert_eq!(flights.peek(&digest), Some(7));
        assert_eq!((first.outcome().await.unwrap(), second.outcome().await.unwrap()), (7, 7));
        drop(departure);
        assert!(matches!(flights.enter(&digest, || true), Entry::Landed));
        assert!(matches!(flights.enter(&digest, || false), Entry::New(..)));
    }

    #[tokio::test]
    async fn a_flight_that_is_dropped_fails_those_that_wait_and_the_next_one_begins_anew() {
        let flights = Flights::<u8>::new();
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let Entry::New(departure, arrival) = flights.enter(&digest, || false) else { panic!("not new") };
        drop(departure);
        assert!(arrival.outcome().await.is_err());
        let Entry::New(departure, arrival) = flights.enter(&digest, || false) else { panic!("not new") };
        departure.end(Err(Failure::Missing));
        assert!(matches!(arrival.outcome().await, Err(Failure::Missing)));
        assert!(matches!(flights.enter(&digest, || false), Entry::New(..)));
    }
}
