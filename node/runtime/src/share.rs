//! Fair shares of a limited resource, without configuration: one holder may have as many places as
//! are free at the moment.
//!
//! This is the dynamic threshold by which switches divide their buffers (Choudhury and Hahne,
//! "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998). A holder that is alone
//! gets half of all places, two holders get a third each, and so on, so that a newcomer always finds
//! a place while there are fewer holders than places.
//!
//! A resource that everybody reaches from one address, for example behind a load balancer that is not
//! a trusted proxy, has one holder, which gets half of it.

use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, HashMap};
use std::fmt::{Display, Formatter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Who holds places: an identity, or for anonymous clients a network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder(Key);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    V4([u8; 3]),
    V6([u8; 8]),
    Identity(Arc<str>),
}

impl Holder {
    /// The network of an address: /24 for IPv4, /64 for IPv6. One client easily has all addresses of
    /// such a network.
    pub fn of_address(address: IpAddr) -> Holder {
        Holder(match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Key::V4([a, b, c])
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Key::V6([a, b, c, d, e, f, g, h])
            }
        })
    }

    /// An authenticated identity.
    pub fn of_identity(name: &str) -> Holder {
        Holder(Key::Identity(name.into()))
    }
}

impl Display for Holder {
    fn fmt(&self, out: &mut Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Key::V4([a, b, c]) => write!(out, "{}/24", Ipv4Addr::new(*a, *b, *c, 0)),
            Key::V6([a, b, c, d, e, f, g, h]) => {
                let octets = [*a, *b, *c, *d, *e, *f, *g, *h, 0, 0, 0, 0, 0, 0, 0, 0];
                write!(out, "{}/64", Ipv6Addr::from(octets))
            }
            Key::Identity(name) => out.write_str(name),
        }
    }
}

/// A number of places that holders share. Clones share them. Memory is bounded by the number of
/// places, because a holder without places is not kept.
#[derive(Clone, Debug)]
pub struct Shares(Arc<Mutex<State>>);

/// Places of one holder. Dropping it frees them.
#[derive(Debug)]
pub struct Share {
    shares: Shares,
    holder: Holder,
    places: usize,
}

#[derive(Debug)]
struct State {
    total: usize,
    free: usize,
    holders: HashMap<Holder, Held>,
    /// Number of waiting requests of all holders.
    waiting: usize,
    /// Number of the next waiting request, which orders the waiting requests of a holder.
    next: u64,
}

#[derive(Debug, Default)]
struct Held {
    places: usize,
    waiting: BTreeMap<u64, Waiter>,
}

#[derive(Debug)]
struct Waiter {
    places: usize,
    granted: oneshot::Sender<Share>,
}

/// A waiting request's position in the queue. Dropping it leaves the queue.
struct Position {
    shares: Shares,
    holder: Holder,
    number: u64,
}

impl Shares {
    /// `total` places, all free.
    pub fn new(total: usize) -> Shares {
        let state = State { total, free: total, holders: HashMap::new(), waiting: 0, next: 0 };
        Shares(Arc::new(Mutex::new(state)))
    }

    /// Takes one place. `None` if the holder would then have more places than were free.
    pub fn take(&self, holder: &Holder) -> Option<Share> {
        self.take_many(holder, 1)
    }

    /// Takes several places at once, or none.
    pub fn take_many(&self, holder: &Holder, places: usize) -> Option<Share> {
        self.state().take(holder, places).then(|| self.share(holder, places))
    }

    /// Takes one place while any is free, for a holder that stands for many, such as a proxy.
    pub fn take_free(&self, holder: &Holder) -> Option<Share> {
        let mut state = self.state();
        (state.free > 0).then(|| {
            state.add(holder, 1);
            self.share(holder, 1)
        })
    }

    /// Takes several places at once, and waits up to `patience` for them. The holder that has the
    /// fewest places is served first. `None` after that time, or at once if too many requests wait:
    /// as many may wait as there are places, divided among the holders by the same rule.
    pub async fn take_within(&self, holder: &Holder, places: usize, patience: Duration) -> Option<Share> {
        let (position, granted) = {
            let mut state = self.state();
            if state.take(holder, places) {
                return Some(self.share(holder, places));
            }
            let (number, granted) = state.enqueue(holder, places)?;
            (Position { shares: self.clone(), holder: holder.clone(), number }, granted)
        };
        let share = tokio::time::timeout(patience, granted).await;
        drop(position);
        share.ok()?.ok()
    }

    /// Number of places that nobody has.
    pub fn free(&self) -> usize {
        self.state().free
    }

    fn share(&self, holder: &Holder, places: usize) -> Share {
        Share { shares: self.clone(), holder: holder.clone(), places }
    }

    fn release(&self, holder: &Holder, places: usize) {
        let granted = {
            let mut state = self.state();
            state.give_back(holder, places);
            state.grant()
        };
        // Sent after the lock was released: a share that its receiver no longer wants is dropped here,
        // which frees its places.
        for (holder, waiter) in granted {
            drop(waiter.granted.send(self.share(&holder, waiter.places)));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    fn take(&mut self, holder: &Holder, places: usize) -> bool {
        let held = self.holders.get(holder).map_or(0, |held| held.places);
        let fits = held.saturating_add(places) <= self.free;
        if fits {
            self.add(holder, places);
        }
        fits
    }

    fn add(&mut self, holder: &Holder, places: usize) {
        self.free -= places;
        self.holders.entry(holder.clone()).or_default().places += places;
    }

    fn give_back(&mut self, holder: &Holder, places: usize) {
        self.free += places;
        if let Some(held) = self.holders.get_mut(holder) {
            held.places -= places;
        }
        self.forget(holder);
    }

    /// Removes a holder that has nothing.
    fn forget(&mut self, holder: &Holder) {
        if self.holders.get(holder).is_some_and(|held| held.places == 0 && held.waiting.is_empty()) {
            self.holders.remove(holder);
        }
    }

    fn enqueue(&mut self, holder: &Holder, places: usize) -> Option<(u64, oneshot::Receiver<Share>)> {
        let waiting = self.holders.get(holder).map_or(0, |held| held.waiting.len());
        if waiting + 1 > self.total.saturating_sub(self.waiting) {
            return None;
        }
        let (granted, receiver) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.waiting += 1;
        self.holders.entry(holder.clone()).or_default().waiting.insert(number, Waiter { places, granted });
        Some((number, receiver))
    }

    fn leave(&mut self, holder: &Holder, number: u64) {
        if let Some(held) = self.holders.get_mut(holder)
            && held.waiting.remove(&number).is_some()
        {
            self.waiting -= 1;
        }
        self.forget(holder);
    }

    /// Takes places for the waiting requests that can have them now.
    fn grant(&mut self) -> Vec<(Holder, Waiter)> {
        let mut granted = Vec::new();
        while self.waiting > 0 {
            let fits = |held: &Held| held.waiting.values().next().is_some_and(|w| held.places + w.places <= self.free);
            let first = self.holders.iter().filter(|(_, held)| fits(held)).min_by_key(|(_, held)| held.places);
            let Some(holder) = first.map(|(holder, _)| holder.clone()) else { break };
            let Some(held) = self.holders.get_mut(&holder) else { break };
            let Some((_, waiter)) = held.waiting.pop_first() else { break };
            held.places += waiter.places;
            self.free -= waiter.places;
            self.waiting -= 1;
            granted.push((holder, waiter));
        }
        granted
    }
}

impl Share {
    /// Who has the places.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Takes more places for the same purpose. Returns whether that is possible.
    pub fn grow(&mut self, places: usize) -> bool {
        let grown = self.shares.state().take(&self.holder, places);
        if grown {
            self.places += places;
        }
        grown
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shares.release(&self.holder, self.places);
    }
}

impl Drop for Position {
    fn drop(&mut self) {
        self.shares.state().leave(&self.holder, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::iter::from_fn;

    const LONG: Duration = Duration::from_secs(1);

    fn alice() -> Holder {
        Holder::of_identity("alice")
    }

    fn bob() -> Holder {
        Holder::of_identity("bob")
    }

    fn all_of(shares: &Shares, holder: &Holder) -> Vec<Share> {
        from_fn(|| shares.take(holder)).collect()
    }

    #[test]
    fn one_holder_alone_gets_half_and_a_newcomer_finds_room() {
        let shares = Shares::new(12);
        let first = all_of(&shares, &alice());
        assert_eq!(first.len(), 6);
        assert_eq!(all_of(&shares, &bob()).len(), 3);
        let newcomers = [0, 1, 2].map(|number| shares.take(&Holder::of_identity(&number.to_string())));
        assert!(newcomers.iter().all(Option::is_some));
    }

    #[test]
    fn two_holders_that_take_in_turn_get_a_third_each() {
        let shares = Shares::new(12);
        let mut held = Vec::new();
        while let (Some(a), Some(b)) = (shares.take(&alice()), shares.take(&bob())) {
            held.extend([a, b]);
        }
        assert_eq!((held.len(), shares.free()), (8, 4));
    }

    #[test]
    fn a_holder_that_stands_for_many_may_have_all_places() {
        let shares = Shares::new(4);
        let held: Vec<_> = from_fn(|| shares.take_free(&alice())).collect();
        assert_eq!(held.len(), 4);
    }

    #[test]
    fn a_single_place_can_be_taken() {
        let shares = Shares::new(1);
        let held = shares.take(&alice());
        assert!(held.is_some() && shares.take(&bob()).is_none());
        drop(held);
        assert!(shares.take(&bob()).is_some());
    }

    #[tokio::test]
    async fn a_holder_without_places_takes_no_memory() {
        let shares = Shares::new(10);
        for number in 0..1000 {
            drop(shares.take(&Holder::of_identity(&number.to_string())));
        }
        let held = all_of(&shares, &alice());
        for _ in 0..1000 {
            assert!(shares.take_within(&alice(), 1, LONG).now_or_never().is_none());
        }
        assert_eq!(shares.state().holders.len(), 1);
        assert!(shares.state().holders[&alice()].waiting.is_empty());
        drop(held);
        assert!(shares.state().holders.is_empty());
        assert_eq!((shares.free(), shares.state().waiting), (10, 0));
    }

    #[test]
    fn places_are_taken_all_or_none_and_a_share_can_grow() {
        let shares = Shares::new(10);
        let mut share = shares.take_many(&alice(), 3).unwrap();
        assert!(shares.take_many(&alice(), 5).is_none());
        assert!(share.grow(2) && !share.grow(1));
        assert_eq!(shares.free(), 5);
        drop(share);
        assert_eq!(shares.free(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_a_place_and_no_longer_than_its_patience() {
        let shares = Shares::new(2);
        let held = shares.take(&alice());
        assert!(shares.take_within(&alice(), 1, LONG).await.is_none());
        let alice = alice();
        let mut waiting = Box::pin(shares.take_within(&alice, 1, LONG));
        assert!((&mut waiting).now_or_never().is_none());
        drop(held);
        assert!(waiting.now_or_never().flatten().is_some());
        assert_eq!(shares.free(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_holder_with_the_fewest_places_is_served_first() {
        let shares = Shares::new(4);
        let carol = Holder::of_identity("carol");
        let (mut of_alice, of_bob) = (all_of(&shares, &alice()), all_of(&shares, &bob()));
        let of_carol = all_of(&shares, &carol);
        assert_eq!((of_alice.len(), of_bob.len(), of_carol.len(), shares.free()), (2, 1, 1, 0));
        let (alice, dave) = (alice(), Holder::of_identity("dave"));
        let mut again = Box::pin(shares.take_within(&alice, 1, LONG));
        let mut newcomer = Box::pin(shares.take_within(&dave, 1, LONG));
        assert!((&mut again).now_or_never().is_none() && (&mut newcomer).now_or_never().is_none());
        drop(of_alice.pop());
        assert!((&mut again).now_or_never().is_none());
        assert!((&mut newcomer).now_or_never().flatten().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_limited_number_of_requests_wait() {
        let shares = Shares::new(4);
        let _held = all_of(&shares, &alice());
        let alice = alice();
        let queue = || Box::pin(shares.take_within(&alice, 1, LONG));
        let mut waiting = [queue(), queue()];
        assert!(waiting.iter_mut().all(|request| request.now_or_never().is_none()));
        assert!(queue().now_or_never().is_some_and(|refused| refused.is_none()));
    }

    #[test]
    fn the_addresses_of_one_network_are_one_holder() {
        let of = |text: &str| Holder::of_address(text.parse().unwrap());
        assert_eq!(of("10.1.2.3"), of("10.1.2.250"));
        assert_eq!(of("10.1.2.3"), of("::ffff:10.1.2.9"));
        assert_ne!(of("10.1.2.3"), of("10.1.3.3"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("10.1.2.3").to_string(), "10.1.2.0/24");
        assert_eq!(of("2001:db8::1").to_string(), "2001:db8::/64");
        assert_ne!(Holder::of_identity("10.1.2.0/24"), of("10.1.2.3"));
    }
}
