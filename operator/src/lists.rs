//! Whether the operator sees the whole cluster: which kinds it has listed, and which lists or
//! watches keep failing.
#![allow(clippy::disallowed_methods)] // Spans of time, which a paused runtime of a test controls as well.

use crate::api_error::message_of;
use kube::runtime::watcher;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A list or watch that fails for longer than this makes the operator not ready. Attempts are at
/// most 30 s apart, so at least three have failed by then.
pub const FAILURE_LIMIT: Duration = Duration::from_secs(60);

/// A restarted watch sends nothing while nothing changes. If there is no further failure for this
/// long, which is more than twice the longest pause between attempts, the watch counts as working.
const QUIET_PERIOD: Duration = Duration::from_secs(75);

/// The state of the lists and watches of all kinds. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Lists(Arc<Mutex<BTreeMap<String, List>>>);

/// The state of the list and watch of one kind.
#[derive(Debug, Default)]
struct List {
    /// Whether the kind was listed at least once.
    listed: bool,
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    /// Whether the list failed, not only the watch. Then a successful list ends the failure.
    listing: bool,
    error: String,
}

impl List {
    /// The failure, if it still lasts.
    fn current(&self, now: Instant) -> Option<&Failing> {
        self.failing.as_ref().filter(|failing| failing.listing || now.duration_since(failing.last) < QUIET_PERIOD)
    }
}

impl Lists {
    /// Registers a kind that will be listed. The operator is not ready until it was listed.
    pub fn expect(&self, kind: &str) {
        self.with(kind, |_| {});
    }

    /// Records the outcome of a list or watch.
    pub fn record<K>(&self, kind: &str, outcome: &watcher::Result<watcher::Event<K>>) {
        match outcome {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            Ok(_) => self.succeeded(kind),
            Err(error) => {
                let listing = matches!(error, watcher::Error::InitialListFailed(_) | watcher::Error::NoResourceVersion);
                self.failed(kind, listing, &cause_of(error));
            }
        }
    }

    fn failed(&self, kind: &str, listing: bool, error: &str) {
        let now = Instant::now();
        self.with(kind, |list| {
            let before = list.current(now).map(|failing| (failing.since, failing.listing));
            // Logged once, not for every attempt that follows; `lists_failing` shows how long it
            // lasts.
            if before.is_none() {
                tracing::warn!(kind, error, "list or watch failed; retrying");
            } else {
                tracing::debug!(kind, error, "list or watch still fails");
            }
            let (since, was_listing) = before.unwrap_or((now, false));
            let failing = Failing { since, last: now, listing: listing || was_listing, error: error.to_owned() };
            list.failing = Some(failing);
        });
    }

    fn succeeded(&self, kind: &str) {
        self.with(kind, |list| {
            list.listed = true;
            if let Some(failing) = list.failing.take() {
                tracing::info!(kind, after = ?failing.since.elapsed(), "list and watch work again");
            }
        });
    }

    /// Each kind, and why it is not seen, if it is not: it was never listed, or its list or watch
    /// has been failing for longer than [`FAILURE_LIMIT`].
    pub fn problems(&self) -> Vec<(String, Option<String>)> {
        let now = Instant::now();
        let lists = self.0.lock();
        lists
            .iter()
            .map(|(kind, list)| {
                let failing = list.current(now);
                let why = match failing {
                    Some(failing) if !list.listed => Some(format!("cannot list {kind}: {}", failing.error)),
                    None if !list.listed => Some(format!("{kind} has not been listed yet")),
                    Some(failing) if now.duration_since(failing.since) >= FAILURE_LIMIT => {
                        let seconds = now.duration_since(failing.since).as_secs();
                        Some(format!("cannot list or watch {kind} for {seconds} s: {}", failing.error))
                    }
                    _ => None,
                };
                (kind.clone(), why)
            })
            .collect()
    }

    fn with(&self, kind: &str, change: impl FnOnce(&mut List)) {
        let mut lists = self.0.lock();
        change(lists.entry(kind.to_owned()).or_default());
    }
}

/// The cause, without the wording of the error types around it.
fn cause_of(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => message_of(source),
        watcher::Error::WatchError(status) => status.message.clone(),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use tokio::time::advance;

    type Outcome = watcher::Result<watcher::Event<Pod>>;

    fn list_fails() -> Outcome {
        Err(watcher::Error::InitialListFailed(kube::Error::LinesCodecMaxLineLengthExceeded))
    }

    fn watch_fails() -> Outcome {
        Err(watcher::Error::WatchStartFailed(kube::Error::LinesCodecMaxLineLengthExceeded))
    }

    fn problem(lists: &Lists) -> Option<String> {
        lists.problems().remove(0).1
    }

    #[tokio::test(start_paused = true)]
    async fn a_kind_is_a_problem_until_its_first_list_and_the_problem_contains_the_error() {
        let lists = Lists::default();
        lists.expect("Pod");
        assert_eq!(problem(&lists).as_deref(), Some("Pod has not been listed yet"));
        lists.record("Pod", &list_fails());
        assert!(problem(&lists).unwrap().starts_with("cannot list Pod: "));
        lists.record("Pod", &Outcome::Ok(watcher::Event::Init));
        assert!(problem(&lists).is_some(), "the start of a list is not yet a success");
        lists.record("Pod", &Outcome::Ok(watcher::Event::InitDone));
        assert_eq!(problem(&lists), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_list_is_a_problem_from_the_limit_until_it_succeeds() {
        let lists = Lists::default();
        lists.record("Pod", &Outcome::Ok(watcher::Event::InitDone));
        lists.record("Pod", &list_fails());
        advance(FAILURE_LIMIT - Duration::from_secs(1)).await;
        assert_eq!(problem(&lists), None);
        advance(Duration::from_secs(1)).await;
        assert!(problem(&lists).unwrap().starts_with("cannot list or watch Pod for 60 s: "));
        advance(QUIET_PERIOD * 2).await;
        assert!(problem(&lists).is_some(), "a list without an outcome has not succeeded");
        lists.record("Pod", &Outcome::Ok(watcher::Event::InitDone));
        assert_eq!(problem(&lists), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_watch_is_a_problem_and_a_quiet_one_is_not() {
        let lists = Lists::default();
        lists.record("Pod", &Outcome::Ok(watcher::Event::InitDone));
        for _ in 0..3 {
            lists.record("Pod", &watch_fails());
            advance(Duration::from_secs(30)).await;
        }
        assert!(problem(&lists).is_some());
        advance(QUIET_PERIOD).await;
        assert_eq!(problem(&lists), None);
        lists.record("Pod", &watch_fails());
        assert_eq!(problem(&lists), None, "a failure long after the last one counts as the first");
    }
}
