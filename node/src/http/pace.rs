//! How slowly a client may send or receive: while the node waits for the client, a certain number
//! of bytes must move within the stall time. Time in which the client waits for the node does not
//! count.
//!
//! Without a rate, a client that moves one byte a minute keeps its place among the connections and
//! requests for ever.

use entrepot_config as config;
use entrepot_runtime::clock::Stopwatch;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Sleep;

/// The slowest allowed pace.
#[derive(Clone, Copy, Debug)]
pub struct PaceLimit {
    /// `http.stallTimeout`.
    stall: Duration,
    /// The bytes that must move within the stall time.
    least: u64,
}

impl PaceLimit {
    /// From `http.stallTimeout` and `http.minRate`.
    pub fn of(config: &config::Http) -> PaceLimit {
        PaceLimit::new(config.stall_timeout.get(), config.min_rate.get())
    }

    /// `rate` is in bytes per second.
    pub fn new(stall: Duration, rate: u64) -> PaceLimit {
        let milliseconds = u64::try_from(stall.as_millis()).unwrap_or(u64::MAX);
        PaceLimit { stall, least: (rate.saturating_mul(milliseconds) / 1000).max(1) }
    }

    pub fn stall(&self) -> Duration {
        self.stall
    }
}

/// The bytes that moved, and the time for which the node waited for them, since the last time that
/// enough bytes had moved.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    waited: Duration,
    moved: u64,
}

impl Progress {
    /// The client took `waited` for these bytes.
    pub fn add(&mut self, limit: PaceLimit, waited: Duration, bytes: usize) {
        self.waited += waited;
        self.moved = self.moved.saturating_add(bytes as u64);
        if self.moved >= limit.least {
            *self = Progress::default();
        }
    }

    /// How much longer the client may take.
    pub fn left(&self, limit: PaceLimit) -> Duration {
        limit.stall.saturating_sub(self.waited)
    }
}

/// Measures one direction of one body or connection.
pub struct Pace {
    limit: PaceLimit,
    progress: Progress,
    /// Runs while the node waits for the client.
    waiting: Option<(Stopwatch, Pin<Box<Sleep>>)>,
}

impl Pace {
    pub fn new(limit: PaceLimit) -> Pace {
        Pace { limit, progress: Progress::default(), waiting: None }
    }

    /// The client moved bytes, which ends the waiting.
    pub fn moved(&mut self, bytes: usize) {
        let waited = self.waiting.take().map_or(Duration::ZERO, |(since, _)| since.elapsed());
        self.progress.add(self.limit, waited, bytes);
    }

    /// The node waits for the client. Ready if that takes too long.
    pub fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let left = self.progress.left(self.limit);
        let start = || (Stopwatch::start(), Box::pin(tokio::time::sleep(left)));
        let (_, timer) = self.waiting.get_or_insert_with(start);
        timer.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(60);

    #[test]
    fn the_time_left_grows_only_when_enough_bytes_have_moved() {
        let limit = PaceLimit::new(STALL, 1024);
        let mut progress = Progress::default();
        progress.add(limit, Duration::from_secs(50), 60 * 1024 - 1);
        assert_eq!(progress.left(limit), Duration::from_secs(10));
        progress.add(limit, Duration::from_secs(20), 0);
        assert_eq!(progress.left(limit), Duration::ZERO);
        progress.add(limit, Duration::ZERO, 1);
        assert_eq!(progress.left(limit), STALL);
    }

    #[test]
    fn without_a_rate_one_byte_is_enough() {
        let limit = PaceLimit::new(STALL, 0);
        let mut progress = Progress::default();
        progress.add(limit, Duration::from_secs(59), 1);
        assert_eq!(progress.left(limit), STALL);
    }
}
