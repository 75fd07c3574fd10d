//! A slow line between the proxy and the server, and the traffic over it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Properties of a line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line {
    /// Delay of each request.
    pub delay: Duration,
    /// Bytes per second of all responses together, and of all requests together; `None` for no
    /// limit.
    pub rate: Option<u64>,
    /// One of this many requests gets 503 SlowDown and is not forwarded; `None` for none.
    pub refused_one_in: Option<u64>,
}

/// Traffic over the line since the last call of `take`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub requests: u64,
    /// Bytes of request bodies, which are written to the server.
    pub written: u64,
    /// Bytes of response bodies, which are read from the server.
    pub read: u64,
}

/// Direction of a body.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    ToServer,
    FromServer,
}

/// The state of a line.
#[derive(Debug, Default)]
pub struct Meter {
    line: Line,
    requests: AtomicU64,
    written: AtomicU64,
    read: AtomicU64,
    /// When each direction is free again.
    free: [Mutex<Option<Instant>>; 2],
}

impl Meter {
    pub fn new(line: Line) -> Meter {
        Meter { line, ..Meter::default() }
    }

    /// Counts a request; returns whether to refuse it.
    pub fn request(&self) -> bool {
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        self.line.refused_one_in.is_some_and(|one_in| number.is_multiple_of(one_in))
    }

    pub fn delay(&self) -> Duration {
        self.line.delay
    }

    /// Counts bytes; returns when the last of them has passed.
    pub fn pass(&self, way: Way, bytes: u64) -> Option<Instant> {
        let counter = match way {
            Way::ToServer => &self.written,
            Way::FromServer => &self.read,
        };
        counter.fetch_add(bytes, Ordering::Relaxed);
        let rate = self.line.rate?;
        let mut free = self.free[way as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let over = free.unwrap_or(now).max(now) + Duration::from_secs_f64(bytes as f64 / rate as f64);
        *free = Some(over);
        Some(over)
    }

    /// The traffic since the last call.
    pub fn take(&self) -> Traffic {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        Traffic { requests: take(&self.requests), written: take(&self.written), read: take(&self.read) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_refuses_and_queues() {
        let meter = Meter::new(Line { delay: Duration::ZERO, rate: Some(1000), refused_one_in: Some(3) });
        let refused: Vec<_> = (0..6).map(|_| meter.request()).collect();
        assert_eq!(refused, [false, false, true, false, false, true]);
        let first = meter.pass(Way::FromServer, 1000).unwrap();
        let second = meter.pass(Way::FromServer, 500).unwrap();
        assert_eq!(second - first, Duration::from_millis(500), "pieces in one direction queue");
        assert!(meter.pass(Way::ToServer, 1).unwrap() < first, "each direction has its own rate");
        assert_eq!(meter.take(), Traffic { requests: 6, written: 1, read: 1500 });
        assert_eq!(meter.take(), Traffic::default());
    }
}
