//! Single flight: one piece of work per digest. A request for a digest whose work is in progress
//! waits for it instead of starting it again.
//!
//! Work may start before it is known whether its outcome may be used. A request that holds an
//! [`Arrival`] can ask for the outcome or drop the arrival, and the work can wait for either.

use super::failure::Failure;
use dashmap::{DashMap, Entry as Slot};
use entrepot_oci::Digest;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::watch;

type Outcome<T> = Option<Result<T, Failure>>;

/// Work in progress, by digest. An entry exists from the first request until the [`Departure`] is
/// dropped.
pub(super) struct Flights<T> {
    running: DashMap<Digest, Arc<Flight<T>>>,
}

struct Flight<T> {
    /// Has one receiver per arrival.
    outcome: watch::Sender<Outcome<T>>,
    /// Whether a request asked for the outcome.
    wanted: watch::Sender<bool>,
}

/// The result of entering a flight.
pub(super) enum Entry<T> {
    /// Another request started the work.
    Joined(Arrival<T>),
    /// This request must start the work of the departure.
    New(Departure<T>, Arrival<T>),
    /// There is no flight and no need for one: the result exists since another flight ended.
    Landed,
}

/// Held by the work. Dropping it ends the flight, and the next request starts another.
pub(super) struct Departure<T> {
    flights: Arc<Flights<T>>,
    digest: Digest,
    flight: Arc<Flight<T>>,
    /// The entry was removed. An entry that exists now belongs to another flight.
    left: bool,
}

/// Held by each request that waits for the outcome, or does not know yet whether it will.
pub(super) struct Arrival<T> {
    digest: Digest,
    flight: Arc<Flight<T>>,
    outcome: watch::Receiver<Outcome<T>>,
}

impl<T: Clone> Flights<T> {
    pub(super) fn new() -> Arc<Flights<T>> {
        Arc::new(Flights { running: DashMap::new() })
    }

    /// Joins the flight of a digest or starts one, unless `landed` returns true. `landed` is called
    /// only if there is no flight. So work whose result `landed` sees before its flight ends is
    /// never done twice.
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

    /// Whether there is no work in progress.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// The current outcome of a flight, without waiting for it.
    #[cfg(test)]
    pub(super) fn peek(&self, digest: &Digest) -> Option<T> {
        let running = self.running.get(digest)?;
        let outcome = running.outcome.borrow();
        outcome.as_ref()?.as_ref().ok().cloned()
    }
}

impl<T> Departure<T> {
    /// Whether the outcome is wanted. Resolves to true when a request asks for it, and to false
    /// when all requests that might have asked are gone. In the second case the flight has ended,
    /// and the next request starts another.
    pub(super) async fn wanted(&mut self) -> bool {
        let mut wanted = self.flight.wanted.subscribe();
        loop {
            tokio::select! {
                biased;
                _ = wanted.wait_for(|wanted| *wanted) => return true,
                () = self.flight.outcome.closed() => {}
            }
            // A request may have joined in the meantime. `remove_if` holds the entry's lock, so
            // none can join during the check.
            let is_deserted = |flight: &Arc<Flight<T>>| flight.outcome.receiver_count() == 0;
            if self.flights.running.remove_if(&self.digest, |_, flight| is_deserted(flight)).is_some() {
                self.left = true;
                return false;
            }
        }
    }

    /// The result of the work, whether or not it is wanted yet. `None` as soon as no request is
    /// left that might want it, because work without a reader would pass its failures on to the
    /// next request.
    pub(super) async fn unless_deserted<R>(&mut self, work: impl Future<Output = R>) -> Option<R> {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            wanted = self.wanted() => if wanted { Some(work.await) } else { None },
            done = &mut work => Some(done),
        }
    }

    /// Sends the outcome to all requests that wait, now and until the flight ends.
    pub(super) fn announce(&self, outcome: Result<T, Failure>) {
        self.flight.outcome.send_replace(Some(outcome));
    }

    /// Ends the flight and sends the outcome. In this order: a request that repeats after a failure
    /// starts a new flight.
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
    /// Asks for the outcome and waits for it.
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
    use entrepot_oci::Algorithm;
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
    async fn a_dropped_flight_fails_its_waiters_and_the_next_request_starts_another() {
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
    async fn a_flight_is_wanted_once_a_request_asks_for_it_and_ends_when_none_can() {
        let flights = Flights::<u8>::new();
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let Entry::New(mut departure, first) = flights.enter(&digest, || false) else { panic!("not new") };
        let Entry::Joined(second) = flights.enter(&digest, || false) else { panic!("not joined") };
        assert!(departure.wanted().now_or_never().is_none(), "no request has asked");
        drop(first);
        assert!(departure.wanted().now_or_never().is_none(), "the other request may ask");
        let mut waiting = Box::pin(second.outcome());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(departure.wanted().await);
        departure.end(Ok(7));
        assert_eq!(waiting.await.unwrap(), 7);

        let Entry::New(mut departure, arrival) = flights.enter(&digest, || false) else { panic!("not new") };
        drop(arrival);
        assert!(!departure.wanted().await);
        let Entry::New(next, arrival) = flights.enter(&digest, || false) else { panic!("the flight did not end") };
        drop(departure);
        next.end(Ok(8));
        assert_eq!(arrival.outcome().await.unwrap(), 8, "the previous flight does not end the next one");
    }
}
