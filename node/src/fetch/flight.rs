//! One flight a digest: whoever asks for what is under way already waits for it instead of beginning it again.
//!
//! A flight may begin before it is known whether anybody is to have its outcome: what takes an [`Arrival`] may ask for
//! the outcome or drop it, and the work behind the flight can wait for either.

use super::failure::Failure;
use crate::oci::Digest;
use dashmap::{DashMap, Entry as Slot};
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::watch;

type Outcome<T> = Option<Result<T, Failure>>;

/// What is under way, by digest. An entry is there from the first request until the [`Departure`] is dropped.
pub(super) struct Flights<T> {
    running: DashMap<Digest, Arc<Flight<T>>>,
}

struct Flight<T> {
    /// Has a receiver for each arrival.
    outcome: watch::Sender<Outcome<T>>,
    /// Somebody has asked for the outcome.
    wanted: watch::Sender<bool>,
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
    flight: Arc<Flight<T>>,
    /// The entry is removed; one that is there now is another flight's.
    left: bool,
}

/// Held by each that waits, or does not know yet whether it will.
pub(super) struct Arrival<T> {
    digest: Digest,
    flight: Arc<Flight<T>>,
    outcome: watch::Receiver<Outcome<T>>,
}

impl<T: Clone> Flights<T> {
    pub(super) fn new() -> Arc<Flights<T>> {
        Arc::new(Flights { running: DashMap::new() })
    }

    /// Joins the flight of a digest or begins one, unless `landed`. That is asked only when there is no flight: work
    /// whose result `landed` sees before its flight ends is so never done twice.
    pub(super) fn enter(self: &Arc<Self>, digest: &Digest, landed: impl FnOnce() -> bool) -> Entry<T> {
        let arrival = |flight: &Arc<Flight<T>>| Arrival {
            digest: *digest,
            flight: flight.clone(),
            outcome: flight.outcome.subscribe(),
        };
        match self.running.entry(*digest) {
            Slot::Occupied(running) => Entry::Joined(arrival(running.get())),
            Slot::Vacant(_) if landed() => Entry::Landed,
            Slot::Vacant(slot) => {
                let flight = Arc::new(Flight { outcome: watch::Sender::new(None), wanted: watch::Sender::new(false) });
                let arrival = arrival(&flight);
                slot.insert(flight.clone());
                Entry::New(Departure { flights: self.clone(), digest: *digest, flight, left: false }, arrival)
            }
        }
    }

    /// Whether nothing is under way.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// What is known of a flight by now, without waiting for it.
    #[cfg(test)]
    pub(super) fn peek(&self, digest: &Digest) -> Option<T> {
        let running = self.running.get(digest)?;
        let outcome = running.outcome.borrow();
        outcome.as_ref()?.as_ref().ok().cloned()
    }
}

impl<T> Departure<T> {
    /// Whether the outcome is wanted: resolves when somebody asks for it, or when all that might have are gone. Then
    /// the flight has ended, and whoever comes next begins another.
    pub(super) async fn wanted(&mut self) -> bool {
        let mut wanted = self.flight.wanted.subscribe();
        loop {
            tokio::select! {
                biased;
                _ = wanted.wait_for(|wanted| *wanted) => return true,
                () = self.flight.outcome.closed() => {}
            }
            // Somebody may have joined since; nobody can while this looks.
            let is_deserted = |flight: &Arc<Flight<T>>| flight.outcome.receiver_count() == 0;
            if self.flights.running.remove_if(&self.digest, |_, flight| is_deserted(flight)).is_some() {
                self.left = true;
                return false;
            }
        }
    }

    /// What the work comes to, whether or not that is wanted yet; `None` as soon as nobody is left that might want it:
    /// work that went on for nobody would share its troubles with the next that asks.
    pub(super) async fn unless_deserted<R>(&mut self, work: impl Future<Output = R>) -> Option<R> {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            wanted = self.wanted() => if wanted { Some(work.await) } else { None },
            done = &mut work => Some(done),
        }
    }

    /// Tells all that wait, now and until the flight ends.
    pub(super) fn announce(&self, outcome: Result<T, Failure>) {
        self.flight.outcome.send_replace(Some(outcome));
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
        self.flight.outcome.send_if_modified(|outcome| {
            let without = outcome.is_none();
            outcome.get_or_insert_with(|| Err(Failure::abandoned(&self.digest)));
            without
        });
    }
}

impl<T: Clone> Arrival<T> {
    /// Asks for the outcome and waits for its announcement.
    pub(super) async fn outcome(mut self) -> Result<T, Failure> {
        self.flight.wanted.send_replace(true);
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
    use futures::FutureExt;

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

    #[tokio::test]
    async fn a_flight_is_wanted_when_one_asks_for_its_outcome_and_ends_when_none_may() {
        let flights = Flights::<u8>::new();
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let Entry::New(mut departure, first) = flights.enter(&digest, || false) else { panic!("not new") };
        let Entry::Joined(second) = flights.enter(&digest, || false) else { panic!("not joined") };
        assert!(departure.wanted().now_or_never().is_none(), "nobody has asked");
        drop(first);
        assert!(departure.wanted().now_or_never().is_none(), "the other may ask");
        let mut waiting = Box::pin(second.outcome());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(departure.wanted().await);
        departure.end(Ok(7));
        assert_eq!(waiting.await.unwrap(), 7);

        let Entry::New(mut departure, arrival) = flights.enter(&digest, || false) else { panic!("not new") };
        drop(arrival);
        assert!(!departure.wanted().await);
        let Entry::New(next, arrival) = flights.enter(&digest, || false) else { panic!("it has ended") };
        drop(departure);
        next.end(Ok(8));
        assert_eq!(arrival.outcome().await.unwrap(), 8, "the one before does not end the next");
    }
}
