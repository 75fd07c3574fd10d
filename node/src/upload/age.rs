//! How old a session is, and which sessions go first when there are too many or the store has no room.

use crate::run::clock::Uptime;
use std::cmp::Reverse;
use std::time::Duration;

/// A session with bytes goes under pressure only after so much time without a request. It is longer than clients pause
/// between two chunks, and than a client needs to find a node that was restarted.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// When a session was last used. It is measured by this process alone, so that a clock that is set makes no session
/// older or younger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastUse {
    /// The last use, or the start of this process.
    at: Uptime,
    /// How long it had been unused by then.
    before: Duration,
}

impl LastUse {
    pub fn now(now: Uptime) -> LastUse {
        LastUse { at: now, before: Duration::ZERO }
    }

    /// In an earlier run, which was `before` ago.
    pub fn earlier(now: Uptime, before: Duration) -> LastUse {
        LastUse { at: now, before }
    }

    /// For how long it is unused, restarts included.
    pub fn age(self, now: Uptime) -> Duration {
        self.idle(now).saturating_add(self.before)
    }

    /// For how long it is unused in this run of the node.
    pub fn idle(self, now: Uptime) -> Duration {
        now.since(self.at)
    }
}

/// What the order of removal depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Bytes received.
    pub bytes: u64,
    pub used: LastUse,
}

impl Facts {
    /// Whether it may be removed so that others find a place. One without bytes costs its client nothing but another
    /// `POST`.
    pub fn may_go(self, now: Uptime) -> bool {
        self.bytes == 0 || self.used.idle(now) >= IDLE
    }

    /// The place in the order of removal; the smallest goes first: empty ones, then others, the longest unused first.
    pub fn rank(self, now: Uptime) -> impl Ord + use<> {
        (self.bytes > 0, Reverse(self.used.age(now)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Clock;
    use crate::run::clock::Timestamp;

    #[test]
    fn empty_sessions_go_first_and_then_the_longest_unused() {
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
        // A client whose node was restarted has its time to come back.
        assert_eq!(order.map(|facts| facts.may_go(now)), [true, true, false, true, false]);
    }
}
