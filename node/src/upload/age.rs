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
    /// Whether the session may be removed to make space for others. Losing a session without bytes
    /// costs its client only another `POST`.
    pub fn may_go(self, now: Uptime) -> bool {
        self.bytes == 0 || self.used.idle(now) >= IDLE
    }

    /// The rank in the removal order, smallest first: empty sessions, then the longest unused.
    pub fn rank(self, now: Uptime) -> impl Ord + use<> {
        (self.bytes > 0, Reverse(self.used.age(now)))
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
        assert_eq!(order.map(|facts| facts.may_go(now)), [true, true, false, true, false]);
    }
}
