//! The only place that asks the system what time it is, so that tests can say.
#![allow(clippy::disallowed_methods)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time that survives restarts: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// How long ago `earlier` was; zero when it lies ahead, as after the system's clock was set back.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// A point in time since the machine was booted, in milliseconds. Setting the system's clock does not affect it, and it
/// goes on while the machine sleeps: ages that something relies on are measured with it. It survives a restart of the
/// process, but not of the machine: [`boot`] tells one boot from the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uptime(pub u64);

impl Uptime {
    /// How long ago `earlier` was.
    pub fn since(self, earlier: Uptime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The identifier of this boot of the machine; a random one where the system has none, so that nothing of an earlier
/// process is taken to be of this boot.
pub fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned());
    id.ok().filter(|id| !id.is_empty()).unwrap_or_else(|| uuid::Uuid::new_v4().to_string())
}

/// Tells the time. Clones of a manual clock show the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    manual: Option<Arc<Manual>>,
}

#[derive(Debug)]
struct Manual {
    wall: AtomicU64,
    uptime: AtomicU64,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Clock {
        Clock { manual: None }
    }

    /// A clock that stands still until it is told to [`Clock::advance`].
    pub fn manual(start: Timestamp) -> Clock {
        Clock { manual: Some(Arc::new(Manual { wall: AtomicU64::new(start.0), uptime: AtomicU64::new(start.0) })) }
    }

    /// Wall-clock time.
    pub fn now(&self) -> Timestamp {
        match &self.manual {
            Some(manual) => Timestamp(manual.wall.load(Ordering::SeqCst)),
            None => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
            }
        }
    }

    /// Time since the machine was booted.
    pub fn uptime(&self) -> Uptime {
        match &self.manual {
            Some(manual) => Uptime(manual.uptime.load(Ordering::SeqCst)),
            None => {
                let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                let (seconds, nanoseconds) = (since.tv_sec.unsigned_abs(), since.tv_nsec.unsigned_abs());
                Uptime(seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000))
            }
        }
    }

    /// Moves a manual clock; the system's clock is not moved.
    pub fn advance(&self, by: Duration) {
        if let Some(manual) = &self.manual {
            let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            manual.wall.fetch_add(by, Ordering::SeqCst);
            manual.uptime.fetch_add(by, Ordering::SeqCst);
        }
    }

    /// Sets the wall clock of a manual clock, as an administrator sets the system's: no time passes.
    pub fn set(&self, to: Timestamp) {
        if let Some(manual) = &self.manual {
            manual.wall.store(to.0, Ordering::SeqCst);
        }
    }
}

/// Measures a span of time for a metric or a deadline; not affected by setting the clock.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// One that has measured so much already, for tests of what takes long.
    #[cfg(test)]
    pub fn started_before(span: Duration) -> Stopwatch {
        let now = Instant::now();
        Stopwatch(now.checked_sub(span).unwrap_or(now))
    }

    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
