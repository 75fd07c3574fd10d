//! Places for connections, of which one network may have as many as are free (`Shares`).
//!
//! When all places are taken, the connection that has been idle longest gives its place to a new one.
//! So connections may stay idle for a long time, but idle ones cannot block new clients. A network
//! that has its share gives a new connection the place of one of its own that serves no request, so
//! that a client among many that only open connections is still served. If each of them serves a
//! request, the new connection is closed. Neither makes the connections of other networks wait.

use super::exchange::Exchange;
use crate::http::client_address::TrustedProxies;
use entrepot_runtime::share::{Holder, Share, Shares};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How long to wait for a connection that was told to close before another one is told. A
/// connection may stay open because it received a request first, or because its HTTP/2 client does
/// not agree.
const STEP: Duration = Duration::from_millis(100);

/// The places of one listener. Clones share them.
#[derive(Clone)]
pub struct Places {
    shares: Shares,
    proxies: TrustedProxies,
    taken: Arc<Mutex<Taken>>,
    became_idle: Arc<Notify>,
    became_free: Arc<Notify>,
}

#[derive(Default)]
struct Taken {
    /// The connections of each network, in the order in which they were accepted.
    holders: HashMap<Holder, BTreeMap<u64, Connection>>,
    next: u64,
}

struct Connection {
    exchange: Arc<Exchange>,
    share: Share,
}

/// A place and what its connection is doing. Dropping it frees the place.
pub struct Place {
    pub exchange: Arc<Exchange>,
    holder: Holder,
    number: u64,
    places: Places,
}

impl Places {
    /// `connections` places. A trusted proxy stands for many clients, so it may have all of them.
    pub fn new(connections: usize, proxies: TrustedProxies) -> Places {
        Places {
            shares: Shares::new(connections),
            proxies,
            taken: Arc::default(),
            became_idle: Arc::new(Notify::new()),
            became_free: Arc::new(Notify::new()),
        }
    }

    /// Takes a place for a connection from `peer`, as soon as one is free. `None` if the network of
    /// the peer has its share, and all its connections serve requests.
    pub async fn take(&self, peer: IpAddr) -> Option<Place> {
        let holder = Holder::of_address(peer);
        let stands_for_many = self.proxies.contains(peer);
        loop {
            let share = if stands_for_many { self.shares.take_free(&holder) } else { self.shares.take(&holder) };
            if let Some(share) = share {
                return Some(self.place(share));
            }
            if !stands_for_many && self.shares.free() > 0 {
                return self.displace(&holder).map(|share| self.place(share));
            }
            let told = self.end_longest_idle();
            tokio::select! {
                biased;
                () = self.became_free.notified() => {}
                () = tokio::time::sleep(STEP), if told => {}
                () = self.became_idle.notified(), if !told => {}
            }
        }
    }

    fn place(&self, share: Share) -> Place {
        let exchange = Arc::new(Exchange::new(Arc::clone(&self.became_idle)));
        let holder = share.holder().clone();
        let mut taken = self.taken();
        let number = taken.next;
        taken.next += 1;
        let connection = Connection { exchange: Arc::clone(&exchange), share };
        taken.holders.entry(holder.clone()).or_default().insert(number, connection);
        drop(taken);
        Place { exchange, holder, number, places: self.clone() }
    }

    /// Closes the first connection of a network that serves no request, and returns its place. The
    /// place changes hands at once, so that nobody waits for the connection to end.
    fn displace(&self, holder: &Holder) -> Option<Share> {
        let mut taken = self.taken();
        let connections = taken.holders.get_mut(holder)?;
        let (number, _) = connections.iter().find(|(_, connection)| connection.exchange.serves_nothing())?;
        let number = *number;
        let connection = connections.remove(&number)?;
        connection.exchange.cut();
        Some(connection.share)
    }

    /// Tells the connection that has been idle longest to close. Returns whether there was one.
    fn end_longest_idle(&self) -> bool {
        let taken = self.taken();
        let exchanges = taken.holders.values().flat_map(BTreeMap::values).map(|connection| &connection.exchange);
        // Compared by their starts: durations that are read one after the other need not keep the order.
        let idle = exchanges.filter_map(|exchange| Some((exchange.idle_since()?, exchange)));
        idle.min_by_key(|(since, _)| *since).is_some_and(|(_, exchange)| exchange.end_if_idle())
    }

    /// Frees a place, unless it was given away.
    fn free(&self, holder: &Holder, number: u64) {
        let mut taken = self.taken();
        let Some(connections) = taken.holders.get_mut(holder) else { return };
        let freed = connections.remove(&number);
        if connections.is_empty() {
            taken.holders.remove(holder);
        }
        drop(taken);
        if freed.is_some() {
            drop(freed);
            self.became_free.notify_one();
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.free(&self.holder, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::listen::exchange::Protocol;
    use entrepot_config::Network;
    use futures::FutureExt;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 1, 1));

    /// Places that one peer may have all of.
    fn for_one(connections: usize) -> Places {
        Places::new(connections, TrustedProxies::new(&["10.0.0.1".parse::<Network>().unwrap()]))
    }

    fn for_all(connections: usize) -> Places {
        Places::new(connections, TrustedProxies::new(&[]))
    }

    #[tokio::test]
    async fn only_the_connection_that_was_idle_longest_is_told_to_close() {
        let places = for_one(3);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(places.take(PEER).await.unwrap());
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
        let places = for_one(1);
        let held = places.take(PEER).await.unwrap();
        let told = || held.exchange.told_to_end().now_or_never().is_some();
        let busy = held.exchange.begin(Protocol::Serial);
        let mut waiting = Box::pin(places.take(PEER));
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
        let places = for_one(2);
        let held = [places.take(PEER).await.unwrap(), places.take(PEER).await.unwrap()];
        for place in &held {
            drop(place.exchange.begin(Protocol::Multiplexed));
        }
        let mut waiting = Box::pin(places.take(PEER));
        let told = || held.iter().filter(|place| place.exchange.idle_since().is_none()).count();
        assert!((&mut waiting).now_or_never().is_none());
        assert_eq!(told(), 1);
        tokio::time::advance(2 * STEP).await;
        assert!((&mut waiting).now_or_never().is_none());
        assert_eq!(told(), 2);
    }

    fn is_cut(place: &Place) -> bool {
        place.exchange.told_to_cut().now_or_never().is_some()
    }

    #[tokio::test]
    async fn a_network_with_its_share_displaces_its_own_unfinished_connection_and_no_other() {
        let places = for_all(4);
        let [first, second] = [places.take(PEER).await.unwrap(), places.take(PEER).await.unwrap()];
        let other = places.take(OTHER).await.unwrap();
        let busy = first.exchange.begin(Protocol::Serial);
        let new = places.take(PEER).now_or_never().flatten().expect("it takes the place of an unfinished one");
        assert_eq!([&first, &second, &other, &new].map(is_cut), [false, true, false, false]);
        let busy_too = new.exchange.begin(Protocol::Serial);
        assert!(places.take(PEER).now_or_never().expect("nothing waits").is_none(), "all serve requests");
        drop(second);
        assert_eq!(places.shares.free(), 1, "the place that was given away is not freed twice");
        drop((busy, busy_too, first, new, other));
        assert_eq!((places.shares.free(), places.taken().holders.len()), (4, 0));
    }

    #[tokio::test]
    async fn a_newcomer_finds_a_place_while_one_network_takes_all_it_can() {
        let places = for_all(64);
        let mut held = Vec::new();
        for _ in 0..200 {
            let place = places.take(PEER).now_or_never().expect("nothing waits");
            if let Some(place) = place {
                drop(place.exchange.begin(Protocol::Serial));
                held.push(place);
            }
        }
        assert_eq!(places.shares.free(), 32);
        assert!(places.take(OTHER).now_or_never().flatten().is_some());
    }
}
