//! The delay before a failed reconciliation of a cluster is retried. It grows with each failure and
//! has jitter, so that clusters do not retry at the same moment.
#![allow(clippy::disallowed_methods)] // Spans of time, which a paused runtime of a test controls as well.

use crate::metrics::Metrics;
use crate::names::Identity;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

const FIRST_DELAY: Duration = Duration::from_secs(1);
/// The cause may be gone at any time, and a failed reconciliation costs only a few requests.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// Consecutive failures by the cluster's uid.
#[derive(Debug, Default)]
pub struct Backoff(Mutex<HashMap<String, Failed>>);

#[derive(Debug)]
struct Failed {
    times: u32,
    /// When the next reconciliation is due.
    due: Instant,
}

impl Backoff {
    /// Records a failure and returns the delay before the retry. A failure before the retry was
    /// due, of a reconciliation that a change triggered, leaves the delay as it is: the delay grows
    /// with time and not with the number of changes.
    pub fn failed(&self, identity: &Identity, metrics: &Metrics) -> Duration {
        let now = Instant::now();
        let mut failures = self.0.lock();
        let failed = failures.entry(identity.uid.clone()).or_insert(Failed { times: 0, due: now });
        if failed.due <= now {
            let delay = FIRST_DELAY.saturating_mul(2_u32.saturating_pow(failed.times)).min(MAX_DELAY);
            failed.times = failed.times.saturating_add(1);
            failed.due = now + jittered(delay);
        }
        let delay = failed.due.duration_since(now);
        metrics.retrying.set(i64::try_from(failures.len()).unwrap_or(i64::MAX));
        delay
    }

    /// Whether the cluster's last reconciliation failed.
    pub fn has_failed(&self, identity: &Identity) -> bool {
        self.0.lock().contains_key(&identity.uid)
    }

    /// Records a success: the next failure counts as the first.
    pub fn succeeded(&self, identity: &Identity, metrics: &Metrics) {
        let mut failures = self.0.lock();
        failures.remove(&identity.uid);
        metrics.retrying.set(i64::try_from(failures.len()).unwrap_or(i64::MAX));
    }

    /// Removes clusters that no longer exist.
    pub fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.0.lock().retain(|uid, _| exists(uid));
    }
}

/// The delay with 20 % jitter in either direction.
pub(super) fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(rand::random_range(0.8..1.2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    fn identity(uid: &str) -> Identity {
        Identity { name: "a".into(), namespace: "b".into(), uid: uid.into() }
    }

    #[tokio::test(start_paused = true)]
    async fn it_grows_per_cluster_up_to_a_limit_and_restarts_after_a_success() {
        let (one, other) = (identity("1"), identity("2"));
        let (backoff, metrics) = (Backoff::default(), Metrics::new().unwrap());
        let mut delays = Vec::new();
        for _ in 0..40 {
            let delay = backoff.failed(&one, &metrics);
            delays.push(delay);
            advance(delay).await;
        }
        assert!(delays[0] < Duration::from_secs(2) && delays[3] > Duration::from_secs(6));
        assert!(delays[39] <= MAX_DELAY.mul_f64(1.2) && delays[39] >= MAX_DELAY.mul_f64(0.8));
        assert!(backoff.failed(&other, &metrics) < Duration::from_secs(2));
        assert_eq!(metrics.retrying.get(), 2);
        assert!(backoff.has_failed(&one));
        backoff.succeeded(&one, &metrics);
        assert!(!backoff.has_failed(&one));
        assert!(backoff.failed(&one, &metrics) < Duration::from_secs(2));
        backoff.retain(|uid| uid == "2");
        assert_eq!(backoff.0.lock().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_before_the_retry_is_due_does_not_lengthen_the_delay() {
        let (one, backoff, metrics) = (identity("1"), Backoff::default(), Metrics::new().unwrap());
        let first = backoff.failed(&one, &metrics);
        for _ in 0..10 {
            assert_eq!(backoff.failed(&one, &metrics), first);
        }
        advance(first).await;
        assert!(backoff.failed(&one, &metrics) < Duration::from_secs(3));
    }
}
