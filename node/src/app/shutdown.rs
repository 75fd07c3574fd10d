//! Shutdown: after SIGTERM or SIGINT the node is no longer ready, then drains, then stops. A second
//! signal stops it immediately.

use entrepot_config as config;
use entrepot_runtime::clock::Stopwatch;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Whether load balancers may send requests to this node; false at first. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Whether the node accepts requests: between its start and its stop.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets what `/readyz` reports.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }
}

/// SIGTERM and SIGINT, caught from the creation of this value on.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// # Errors
    /// If the system does not let them be caught.
    pub fn catch() -> io::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal and returns its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// The rest of the grace period, which all shutdown steps share.
#[derive(Clone, Copy, Debug)]
pub struct Grace {
    period: Duration,
    spent: Stopwatch,
}

impl Grace {
    /// Starts the period now.
    pub fn begin(period: Duration) -> Grace {
        Grace { period, spent: Stopwatch::start() }
    }

    /// Zero if the period is over.
    pub fn left(&self) -> Duration {
        self.period.saturating_sub(self.spent.elapsed())
    }
}

/// Makes the node not ready, and keeps serving for the drain delay, so that load balancers notice.
/// Then the grace period begins.
pub async fn drain(readiness: &Readiness, config: &config::Shutdown) -> Grace {
    readiness.set(false);
    tokio::time::sleep(config.drain_delay.get()).await;
    Grace::begin(config.grace_period.get())
}

/// Runs the orderly shutdown. Returns `None` if another signal ends it.
pub async fn unless_again<T>(signals: &mut Signals, orderly: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = orderly => Some(done),
        name = signals.next() => {
            tracing::warn!(signal = name, "received a second signal; stopping immediately");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    #[tokio::test(start_paused = true)]
    async fn a_draining_node_is_not_ready_and_serves_until_the_delay_is_over() {
        let readiness = Readiness::default();
        readiness.set(true);
        let config = config::Shutdown {
            drain_delay: config::Duration::from_secs(5),
            grace_period: config::Duration::from_secs(25),
        };
        let mut draining = pin!(drain(&readiness, &config));
        assert!(futures::poll!(&mut draining).is_pending());
        assert!(!readiness.is_ready());
        tokio::time::advance(Duration::from_millis(4900)).await;
        assert!(futures::poll!(&mut draining).is_pending());
        tokio::time::advance(Duration::from_millis(200)).await;
        let grace = draining.await;
        assert!(grace.left() <= Duration::from_secs(25) && grace.left() > Duration::from_secs(20));
    }

    #[test]
    fn a_grace_period_that_is_over_has_nothing_left() {
        assert_eq!(Grace::begin(Duration::ZERO).left(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_second_signal_ends_the_orderly_shutdown() {
        let mut signals = Signals::catch().unwrap();
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::TERM).unwrap();
        assert_eq!(signals.next().await, "SIGTERM");
        assert_eq!(unless_again(&mut signals, async { 1 }).await, Some(1));
        rustix::process::kill_process(own, rustix::process::Signal::INT).unwrap();
        assert_eq!(unless_again(&mut signals, std::future::pending::<()>()).await, None);
    }
}
