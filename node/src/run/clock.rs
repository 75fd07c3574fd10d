//! The only place that asks the system what time it is, so that tests can say.
#![allow(clippy::disallowed_methods)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
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

/// A point in time of this process. Setting the system's clock does not move it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Monotonic(Duration);

impl Monotonic {
    /// How long ago `earlier` was; zero when it lies ahead.
    pub fn since(self, earlier: Monotonic) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// When this process first asked for monotonic time.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Tells the time. Clones of a manual clock show the same time.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    manual: Option<Arc<Manual>>,
}

/// The time of a manual clock, in milliseconds.
#[derive(Debug)]
struct Manual {
    wall: AtomicU64,
    monotonic: AtomicU64,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Clock {
        Clock { manual: None }
    }

    /// A clock that stands still until it is told to [`Clock::advance`].
    pub fn manual(start: Timestamp) -> Clock {
        let manual = Manual { wall: AtomicU64::new(start.0), monotonic: AtomicU64::new(0) };
        Clock { manual: Some(Arc::new(manual)) }
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

    /// Time for spans within this process: it goes on evenly whatever is done to the system's clock.
    pub fn monotonic(&self) -> Monotonic {
        Monotonic(match &self.manual {
            Some(manual) => Duration::from_millis(manual.monotonic.load(Ordering::SeqCst)),
            None => ORIGIN.elapsed(),
        })
    }

    /// Lets time pass on a manual clock; the system's clock is not moved.
    pub fn advance(&self, by: Duration) {
        if let Some(manual) = &self.manual {
            let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            manual.wall.fetch_add(by, Ordering::SeqCst);
            manual.monotonic.fetch_add(by, Ordering::SeqCst);
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
