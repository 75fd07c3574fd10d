//! Single flight: one piece of work per digest. A request for a digest whose work is in progress
//! waits for it instead of starting it again.
//!
//! Work may start before it is known whether its outcome may be used. A request that holds an
//! [`Follower`] can ask for the outcome or drop the follower, and the work can wait for either.

use super::failure::Failure;
use dashmap::{DashMap, Entry as Slot};
use entrepot_oci::Digest;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::watch;

type Outcome<T> = Option<Result<T, Failure>>;

/// Work in progress, by digest. An entry exists from the first request until the [`Leader`] is
/// dropped.
pub(super) struct SingleFlight<T> {
    running: DashMap<Digest, Arc<Running<T>>>,
}

struct Running<T> {
    /// Has one receiver per follower.
    outcome: watch::Sender<Outcome<T>>,
    /// Whether a request asked for the outcome.
    wanted: watch::Sender<bool>,
}

/// The result of entering a flight.
pub(super) enum Entry<T> {
    /// Another request started the work.
    Joined(Follower<T>),
    /// This request must start the work of the leader.
    New(Leader<T>, Follower<T>),
    /// There is no flight and no need for one: the result exists since another flight ended.
    AlreadyStored,
}

/// Held by the work. Dropping it ends the flight, and the next request starts another.
pub(super) struct Leader<T> {
    flights: Arc<SingleFlight<T>>,
    digest: Digest,
    flight: Arc<Running<T>>,
    /// The entry was removed. An entry that exists now belongs to another flight.
    left: bool,
}

/// Held by each request that waits for the outcome, or does not know yet whether it will.
pub(super) struct Follower<T> {
    digest: Digest,
    flight: Arc<Running<T>>,
    outcome: watch::Receiver<Outcome<T>>,
}

impl<T: Clone> SingleFlight<T> {
    pub(super) fn new() -> Arc<SingleFlight<T>> {
        Arc::new(SingleFlight { running: DashMap::new() })
    }

    /// Joins the flight of a digest or starts one, unless `is_stored` returns true. `is_stored` is called
    /// only if there is no flight. So work whose result `is_stored` sees before its flight ends is
    /// never done twice.
    pub(super) fn enter(self: &Arc<Self>, digest: &Digest, is_stored: impl FnOnce() -> bool) -> Entry<T> {
        let follower = |flight: &Arc<Running<T>>| Follower {
            digest: *digest,
            flight: flight.clone(),
            outcome: flight.outcome.subscribe(),
        };
        match self.running.entry(*digest) {
            Slot::Occupied(running) => Entry::Joined(follower(running.get())),
            Slot::Vacant(_) if is_stored() => Entry::AlreadyStored,
            Slot::Vacant(slot) => {
                let flight = Arc::new(Running { outcome: watch::Sender::new(None), wanted: watch::Sender::new(false) });
                let follower = follower(&flight);
                slot.insert(flight.clone());
                Entry::New(Leader { flights: self.clone(), digest: *digest, flight, left: false }, follower)
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

impl<T> Leader<T> {
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
            let is_deserted = |flight: &Arc<Running<T>>| flight.outcome.receiver_count() == 0;
            if self.flights.running.remove_if(&self.digest, |_, flight| is_deserted(flight)).is_some() {
                self.left = true;
                return false;
            }
        }
    }

    /// The result of the work, whether or not it is wanted yet. `None` as soon as no request is
    /// left that might want it, because work without a reader would pass its failures on to the
    /// next request.
    pub(super) async fn cancel_when_unused<R>(&mut self, work: impl Future<Output = R>) -> Option<R> {
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

impl<T> Drop for Leader<T> {
    fn drop(&mut self) {
        self.leave();
        self.flight.outcome.send_if_modified(|outcome| {
            let without = outcome.is_none();
            outcome.get_or_insert_with(|| Err(Failure::abandoned(&self.digest)));
            without
        });
    }
}

impl<T: Clone> Follower<T> {
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
        let flights = SingleFlight::<u8>::new();
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let Entry::New(leader, first) = flights.enter(&digest, || false) else { panic!("not new") };
        let Entry::Joined(second) = flights.enter(&digest, || false) else { panic!("not joined") };
        assert_eq!(flights.peek(&digest), None);
        leader.announce(Ok(7));
        assert_eq!(flights.peek(&digest), Some(7));
        assert_eq!((first.outcome().await.unwrap(), second.outcome().await.unwrap()), (7, 7));
        drop(leader);
        assert!(matches!(flights.enter(&digest, || true), Entry::AlreadyStored));
        assert!(matches!(flights.enter(&digest, || false), Entry::New(..)));
    }

    #[tokio::test]
    async fn a_dropped_flight_fails_its_waiters_and_the_next_request_starts_another() {
        let flights = SingleFlight::<u8>::new();
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let Entry::New(leader, follower) = flights.enter(&digest, || false) else { panic!("not new") };
        drop(leader);
        assert!(follower.outcome().await.is_err());
        let Entry::New(leader, follower) = flights.enter(&digest, || false) else { panic!("not new") };
        leader.end(Err(Failure::Missing));
        assert!(matches!(follower.outcome().await, Err(Failure::Missing)));
        assert!(matches!(flights.enter(&digest, || false), Entry::New(..)));
    }

    #[tokio::test]
    async fn a_flight_is_wanted_once_a_request_asks_for_it_and_ends_when_none_can() {
        let flights = SingleFlight::<u8>::new();
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let Entry::New(mut leader, first) = flights.enter(&digest, || false) else { panic!("not new") };
        let Entry::Joined(second) = flights.enter(&digest, || false) else { panic!("not joined") };
        assert!(leader.wanted().now_or_never().is_none(), "no request has asked");
        drop(first);
        assert!(leader.wanted().now_or_never().is_none(), "the other request may ask");
        let mut waiting = Box::pin(second.outcome());
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(leader.wanted().await);
        leader.end(Ok(7));
        assert_eq!(waiting.await.unwrap(), 7);

        let Entry::New(mut leader, follower) = flights.enter(&digest, || false) else { panic!("not new") };
        drop(follower);
        assert!(!leader.wanted().await);
        let Entry::New(next, follower) = flights.enter(&digest, || false) else { panic!("the flight did not end") };
        drop(leader);
        next.end(Ok(8));
        assert_eq!(follower.outcome().await.unwrap(), 8, "the previous flight does not end the next one");
    }
}
