//! How long a cluster whose pass failed waits for its next: longer each time, and never in step with others.

use crate::metrics::Metrics;
use crate::names::Identity;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Failures in a row, by the cluster's uid.
#[derive(Debug, Default)]
pub struct Backoff(Mutex<HashMap<String, u32>>);

impl Backoff {
    /// A pass failed: how long to wait.
    pub fn failed(&self, identity: &Identity, metrics: &Metrics) -> Duration {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(identity.uid.clone()).or_default();
        let pause = FIRST.saturating_mul(2_u32.saturating_pow(*count)).min(LONGEST);
        *count = count.saturating_add(1);
        metrics.retrying.set(i64::try_from(failures.len()).unwrap_or(i64::MAX));
        jittered(pause)
    }

    /// A pass succeeded: the next failure is the first again.
    pub fn succeeded(&self, identity: &Identity, metrics: &Metrics) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.remove(&identity.uid);
        metrics.retrying.set(i64::try_from(failures.len()).unwrap_or(i64::MAX));
    }

    /// Forgets clusters that are gone.
    pub fn keep(&self, is_there: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| is_there(uid));
    }
}

/// A fifth more or less.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.8..1.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_for_one_cluster_up_to_a_limit_and_begins_anew_after_a_success() {
        let identity = |uid: &str| Identity { name: "a".into(), namespace: "b".into(), uid: uid.into() };
        let (one, other) = (identity("1"), identity("2"));
        let (backoff, metrics) = (Backoff::default(), Metrics::new().unwrap());
        let pauses: Vec<_> = (0..40).map(|_| backoff.failed(&one, &metrics)).collect();
        assert!(pauses[0] < Duration::from_secs(2) && pauses[3] > Duration::from_secs(6));
        assert!(pauses[39] <= LONGEST.mul_f64(1.2) && pauses[39] >= LONGEST.mul_f64(0.8));
        assert!(backoff.failed(&other, &metrics) < Duration::from_secs(2));
        assert_eq!(metrics.retrying.get(), 2);
        backoff.succeeded(&one, &metrics);
        assert!(backoff.failed(&one, &metrics) < Duration::from_secs(2));
        backoff.keep(|uid| uid == "2");
        assert_eq!(backoff.0.lock().unwrap().len(), 1);
    }
}
