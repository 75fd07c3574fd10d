//! The age of a session, and the order in which sessions are removed when there are too many or the
//! store has no space.

use entrepot_runtime::clock::Uptime;
use std::cmp::Reverse;
use std::time::Duration;

/// A session with bytes is removed under pressure only after this time without a request. It is
/// longer than clients pause between two chunks, and longer than a client needs to find a restarted
/// node.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// The last use of a session. It is measured with the monotonic clock of this process, so setting
/// the system clock does not change the age of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastUse {
    /// The last use, or the start of this process.
    at: Uptime,
    /// How long the session had been unused at `at`.
    before: Duration,
}

impl LastUse {
    pub fn now(now: Uptime) -> LastUse {
        LastUse { at: now, before: Duration::ZERO }
    }

    /// A last use in an earlier run, `before` ago.
    pub fn earlier(now: Uptime, before: Duration) -> LastUse {
        LastUse { at: now, before }
    }

    /// Time since the last use, including restarts.
    pub fn age(self, now: Uptime) -> Duration {
        self.idle(now).saturating_add(self.before)
    }

    /// Time since the last use in this run of the node.
    pub fn idle(self, now: Uptime) -> Duration {
        now.since(self.at)
    }
}

/// The inputs of the removal order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Bytes received.
    pub bytes: u64,
    pub used: LastUse,
}

impl Facts {
    /// Whether the session may be removed to make space for others.
    pub fn may_go(self, now: Uptime) -> bool {
        self.used.idle(now) >= IDLE
    }

    /// The rank in the removal order, smallest first: empty sessions, then the longest unused.
    pub fn rank(self, now: Uptime) -> impl Ord + use<> {
        (self.bytes > 0, Reverse(self.used.age(now)))
    }
}

/// A session that may be removed to make place for a new one of a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub facts: Facts,
    /// Whether it is a session of that client.
    pub is_own: bool,
    /// By how many sessions its client will have more than that client.
    pub has_more: usize,
}

impl Candidate {
    /// Whether the session may be removed. `is_full`: no session is free. Losing a session without
    /// bytes costs its client only another `POST`, so it goes at any age if its client has too many.
    pub fn may_go(self, now: Uptime, is_full: bool) -> bool {
        let concerns_its_client = self.is_own || is_full;
        let is_surplus = self.facts.bytes == 0 && (self.is_own || self.has_more > 0);
        concerns_its_client && (is_surplus || self.facts.may_go(now))
    }

    /// The rank in the removal order, smallest first: empty sessions that were unused for some time,
    /// the client's own empty ones, those of the client that has most, and then the longest unused.
    pub fn rank(self, now: Uptime) -> impl Ord + use<> {
        let is_empty = self.facts.bytes == 0;
        let kind = match (is_empty, self.facts.may_go(now), self.is_own) {
            (true, true, _) => 0,
            (true, false, true) => 1,
            (true, false, false) => 2,
            (false, ..) => 3,
        };
        (kind, Reverse(if kind == 2 { self.has_more } else { 0 }), Reverse(self.facts.used.age(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use entrepot_runtime::Clock;
    use entrepot_runtime::clock::Timestamp;

    #[test]
    fn empty_sessions_are_removed_first_and_then_the_longest_unused() {
        let clock = Clock::manual(Timestamp(0));
        let start = clock.uptime();
        clock.advance(IDLE);
        let now = clock.uptime();
        let facts = |bytes, used| Facts { bytes, used };
        let mut order = [
            facts(5, LastUse::now(now)),
            facts(4, LastUse::now(start)),
            facts(3, LastUse::earlier(now, Duration::from_secs(3600))),
            facts(0, LastUse::now(now)),
            facts(0, LastUse::now(start)),
        ];
        order.sort_by_key(|facts| facts.rank(now));
        assert_eq!(order.map(|facts| facts.bytes), [0, 0, 3, 4, 5]);
        assert_eq!(order[0].used, LastUse::now(start));
        // After a restart of the node, a client has the whole of `IDLE` to return.
        assert_eq!(order.map(|facts| facts.may_go(now)), [true, false, false, true, false]);
    }

    #[test]
    fn a_new_session_takes_the_place_of_an_unused_one_of_its_client_or_of_the_client_that_has_most() {
        let clock = Clock::manual(Timestamp(0));
        let start = clock.uptime();
        clock.advance(IDLE);
        let now = clock.uptime();
        let candidate = |bytes, at, is_own, has_more| Candidate {
            facts: Facts { bytes, used: LastUse::now(at) },
            is_own,
            has_more,
        };
        let mut order = [
            candidate(1, now, true, 0),
            candidate(1, now, false, 9),
            candidate(1, start, false, 0),
            candidate(0, now, false, 0),
            candidate(0, now, false, 1),
            candidate(0, now, false, 9),
            candidate(0, now, true, 0),
            candidate(0, start, false, 0),
        ];
        order.sort_by_key(|candidate| candidate.rank(now));
        let shown = order.map(|candidate| (candidate.facts.bytes, candidate.is_own, candidate.has_more));
        assert_eq!(shown[..5], [(0, false, 0), (0, true, 0), (0, false, 9), (0, false, 1), (0, false, 0)]);
        let may_go = |is_full| order.map(|candidate| candidate.may_go(now, is_full));
        assert_eq!(may_go(true), [true, true, true, true, false, true, false, false]);
        assert_eq!(may_go(false), [false, true, false, false, false, false, false, false]);
    }
}
