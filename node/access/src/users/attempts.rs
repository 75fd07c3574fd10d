//! How many wrong passwords an address may send.

use entrepot_runtime::Clock;
use entrepot_runtime::clock::Uptime;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The time for which a wrong password counts.
const PERIOD: Duration = Duration::from_secs(60);

/// The most wrong passwords of one address for one name in a period.
const MAX_FOR_NAME: usize = 10;

/// The most wrong passwords of one address in a period.
const MAX_FOR_ADDRESS: usize = 100;

/// The most addresses, and the most pairs of address and name, that are counted. When all have sent a
/// wrong password within the period, no other may try one.
const MAX_COUNTED: usize = 10_000;

/// The least time between two searches for old entries of a full table, because each reads all.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Counts wrong passwords.
pub(super) struct Attempts {
    clock: Clock,
    names: RandomState,
    counts: Mutex<Counts>,
}

struct Counts {
    by_name: Table<(IpAddr, u64)>,
    by_address: Table<IpAddr>,
}

/// One attempt. It counts as wrong from its begin, so that attempts at the same time cannot exceed
/// the limit, and no longer when it is dropped, unless it was kept.
pub(super) struct Attempt {
    attempts: Arc<Attempts>,
    address: IpAddr,
    name: u64,
    at: Uptime,
    kept: bool,
}

impl Attempts {
    pub(super) fn new(clock: Clock) -> Attempts {
        let counts = Counts { by_name: Table::new(MAX_FOR_NAME), by_address: Table::new(MAX_FOR_ADDRESS) };
        Attempts { clock, names: RandomState::new(), counts: Mutex::new(counts) }
    }

    /// Begins an attempt.
    ///
    /// # Errors
    /// If the address has sent too many wrong passwords: the time after which it may send another.
    pub(super) fn begin(self: &Arc<Attempts>, peer: IpAddr, name: &str) -> Result<Attempt, Duration> {
        let (address, name, at) = (client(peer), self.names.hash_one(name), self.clock.uptime());
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = counts.by_address.wait(&address, at).max(counts.by_name.wait(&(address, name), at));
        if let Some(wait) = wait {
            return Err(wait);
        }
        counts.by_address.add(address, at);
        counts.by_name.add((address, name), at);
        Ok(Attempt { attempts: Arc::clone(self), address, name, at, kept: false })
    }
}

impl Attempt {
    /// The password was wrong.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.kept {
            let mut counts = self.attempts.counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.by_address.withdraw(&self.address, self.at);
            counts.by_name.withdraw(&(self.address, self.name), self.at);
        }
    }
}

/// The part of an address that one client has: of IPv6 the first 64 bits, because a client chooses the
/// others.
fn client(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

/// The times of the latest attempts, oldest first, at most `limit` for each key.
struct Table<K> {
    limit: usize,
    times: HashMap<K, VecDeque<Uptime>>,
    /// When entries without an attempt of the period were last removed.
    swept: Uptime,
}

impl<K: Eq + Hash> Table<K> {
    fn new(limit: usize) -> Table<K> {
        Table { limit, times: HashMap::new(), swept: Uptime::default() }
    }

    /// The time until another attempt is allowed. `None` if it is now.
    fn wait(&mut self, key: &K, now: Uptime) -> Option<Duration> {
        if let Some(times) = self.times.get_mut(key) {
            forget_old(times, now);
            let oldest = times.front().filter(|_| times.len() >= self.limit)?;
            return Some(PERIOD.saturating_sub(now.since(*oldest)));
        }
        if self.times.len() >= MAX_COUNTED && now.since(self.swept) >= SWEEP_INTERVAL {
            self.swept = now;
            self.times.retain(|_, times| {
                forget_old(times, now);
                !times.is_empty()
            });
        }
        (self.times.len() >= MAX_COUNTED).then_some(PERIOD)
    }

    fn add(&mut self, key: K, at: Uptime) {
        self.times.entry(key).or_default().push_back(at);
    }

    fn withdraw(&mut self, key: &K, at: Uptime) {
        let Some(times) = self.times.get_mut(key) else { return };
        if let Some(place) = times.iter().rposition(|time| *time == at) {
            times.remove(place);
        }
        if times.is_empty() {
            self.times.remove(key);
        }
    }
}

fn forget_old(times: &mut VecDeque<Uptime>, now: Uptime) {
    while times.front().is_some_and(|time| now.since(*time) >= PERIOD) {
        times.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use entrepot_runtime::clock::Timestamp;

    fn attempts() -> (Arc<Attempts>, Clock) {
        let clock = Clock::manual(Timestamp(1_000_000));
        (Arc::new(Attempts::new(clock.clone())), clock)
    }

    fn wrong(attempts: &Arc<Attempts>, peer: &str, name: &str) -> Result<(), Duration> {
        attempts.begin(peer.parse().unwrap(), name).map(Attempt::keep)
    }

    #[test]
    fn ten_wrong_passwords_a_minute_for_a_name_and_an_address() {
        let (attempts, clock) = attempts();
        for _ in 0..10 {
            wrong(&attempts, "192.0.2.1", "alice").unwrap();
            clock.advance(Duration::from_secs(2));
        }
        assert_eq!(wrong(&attempts, "192.0.2.1", "alice"), Err(Duration::from_secs(40)));
        wrong(&attempts, "192.0.2.1", "bob").unwrap();
        wrong(&attempts, "192.0.2.2", "alice").unwrap();
        // One is free again when the oldest is a minute old, and not ten.
        clock.advance(Duration::from_secs(40));
        wrong(&attempts, "192.0.2.1", "alice").unwrap();
        assert_eq!(wrong(&attempts, "192.0.2.1", "alice"), Err(Duration::from_secs(2)));
    }

    #[test]
    fn a_hundred_wrong_passwords_a_minute_for_an_address() {
        let (attempts, clock) = attempts();
        for number in 0..100 {
            wrong(&attempts, "192.0.2.1", &format!("user-{number}")).unwrap();
        }
        assert!(wrong(&attempts, "192.0.2.1", "another").is_err());
        assert!(wrong(&attempts, "::ffff:192.0.2.1", "another").is_err());
        wrong(&attempts, "192.0.2.2", "another").unwrap();
        clock.advance(PERIOD);
        wrong(&attempts, "192.0.2.1", "another").unwrap();
    }

    #[test]
    fn a_client_does_not_escape_by_another_address_of_its_ipv6_network() {
        let (attempts, _) = attempts();
        for number in 0..10 {
            wrong(&attempts, &format!("2001:db8::{number}"), "alice").unwrap();
        }
        assert!(wrong(&attempts, "2001:db8::ffff:1", "alice").is_err());
        wrong(&attempts, "2001:db8:0:1::1", "alice").unwrap();
    }

    #[test]
    fn attempts_at_the_same_time_count_until_they_turn_out_right() {
        let (attempts, _) = attempts();
        let peer = "192.0.2.1".parse().unwrap();
        let mut open: Vec<_> = (0..10).map(|_| attempts.begin(peer, "alice").ok().unwrap()).collect();
        assert!(attempts.begin(peer, "alice").is_err());
        drop(open.pop());
        attempts.begin(peer, "alice").ok().unwrap().keep();
        assert!(attempts.begin(peer, "alice").is_err());
        drop(open);
        assert!(attempts.begin(peer, "alice").is_ok());
    }

    #[test]
    fn what_is_counted_is_bounded() {
        let (attempts, clock) = attempts();
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        for number in 0..20_000 {
            let _ = attempts.begin(address(number), "alice").map(Attempt::keep);
        }
        let size = || {
            let counts = attempts.counts.lock().unwrap();
            (counts.by_address.times.len(), counts.by_name.times.len())
        };
        assert_eq!(size(), (MAX_COUNTED, MAX_COUNTED));
        assert!(attempts.begin(address(30_000), "alice").is_err());
        clock.advance(PERIOD);
        attempts.begin(address(30_000), "alice").ok().unwrap().keep();
        assert_eq!(size(), (1, 1));
    }
}
