//! The only module that reads the system's time, so that tests can set it.
#![allow(clippy::disallowed_methods)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A point in time that survives restarts: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Time since `earlier`; zero if that is in the future, for example after the system's clock
    /// was set back.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The text of RFC 3339 in UTC, such as `2026-01-31T12:00:00.25Z`. Empty after the year 9999.
    pub fn rfc3339(self) -> String {
        let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000).ok();
        time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
    }
}

/// A point in time since the machine booted, in milliseconds. Setting the system's clock does not
/// affect it, and it advances while the machine is suspended. Ages that decisions depend on are
/// measured with it. It is valid across restarts of the process, but not of the machine: [`boot`]
/// distinguishes boots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uptime(pub u64);

impl Uptime {
    /// Time since `earlier`.
    pub fn since(self, earlier: Uptime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The ID of this boot of the machine. It is random if the system has none, so that no value of an
/// earlier process is taken as one of this boot.
pub fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned());
    id.ok().filter(|id| !id.is_empty()).unwrap_or_else(|| uuid::Uuid::new_v4().to_string())
}

/// Reads the time. Clones of a manual clock share their time.
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

    /// A clock that does not move until [`Clock::advance`] is called.
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

    /// Time since the machine booted.
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

    /// Advances a manual clock. Does nothing to the system's clock.
    pub fn advance(&self, by: Duration) {
        if let Some(manual) = &self.manual {
            let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            manual.wall.fetch_add(by, Ordering::SeqCst);
            manual.uptime.fetch_add(by, Ordering::SeqCst);
        }
    }

    /// Sets the wall clock of a manual clock, as an administrator sets the system's. The uptime
    /// does not change.
    pub fn set(&self, to: Timestamp) {
        if let Some(manual) = &self.manual {
            manual.wall.store(to.0, Ordering::SeqCst);
        }
    }
}

/// Measures a duration for a metric or a deadline. Setting the clock does not affect it. Of two, the
/// one that was started first is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// A stopwatch that was started `span` ago, for tests of long durations.
    #[cfg(any(test, feature = "test-support"))]
    pub fn started_before(span: Duration) -> Stopwatch {
        let now = Instant::now();
        Stopwatch(now.checked_sub(span).unwrap_or(now))
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_utc_to_the_millisecond() {
        assert_eq!(Timestamp(0).rfc3339(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp(1_769_860_800_250).rfc3339(), "2026-01-31T12:00:00.25Z");
        assert_eq!(Timestamp(u64::MAX).rfc3339(), "");
    }
}
