//! Whether the operator sees what there is: which kinds it has listed, and whose lists or watches keep failing.
#![allow(clippy::disallowed_methods)] // Spans of time, which a paused runtime of a test controls as well.

use crate::reconcile::words;
use kube::runtime::watcher;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A list or watch that fails for longer makes the operator not ready. Between two tries are 30 s at the most: it has
/// failed three times at least by then.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A watch that is begun anew says nothing while nothing happens: without another failure for this long, which is more
/// than twice the longest pause between two tries, it is taken to work.
const QUIET: Duration = Duration::from_secs(75);

/// The lists and watches of all kinds. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Lists(Arc<Mutex<BTreeMap<String, List>>>);

/// Of one kind.
#[derive(Debug, Default)]
struct List {
    /// It was listed once: there is something to go by.
    listed: bool,
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    /// It was the list that failed: one that succeeds says so.
    listing: bool,
    error: String,
}

impl List {
    /// A failure that goes on.
    fn current(&self, now: Instant) -> Option<&Failing> {
        self.failing.as_ref().filter(|failing| failing.listing || now.duration_since(failing.last) < QUIET)
    }
}

impl Lists {
    /// A kind that is going to be listed: until it was, the operator is not ready.
    pub fn expect(&self, kind: &str) {
        self.with(kind, |_| {});
    }

    /// Takes note of what a watch brought.
    pub fn note<K>(&self, kind: &str, outcome: &watcher::Result<watcher::Event<K>>) {
        match outcome {
            Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
            Ok(_) => self.succeeded(kind),
            Err(error) => {
                let listing = matches!(error, watcher::Error::InitialListFailed(_) | watcher::Error::NoResourceVersion);
                self.failed(kind, listing, &said(error));
            }
        }
    }

    fn failed(&self, kind: &str, listing: bool, error: &str) {
        let now = Instant::now();
        self.with(kind, |list| {
            let before = list.current(now).map(|failing| (failing.since, failing.listing));
            // Once for all the tries that follow: how long it lasts the metric tells.
            if before.is_none() {
                tracing::warn!(kind, error, "a list or watch fails and is tried again");
            } else {
                tracing::debug!(kind, error, "a list or watch still fails");
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
                tracing::info!(kind, after = ?failing.since.elapsed(), "it is listed and watched again");
            }
        });
    }

    /// Each kind, and why it is not seen, if it is not: it was never listed, or its list or watch fails for longer than
    /// [`PATIENCE`].
    pub fn problems(&self) -> Vec<(String, Option<String>)> {
        let now = Instant::now();
        let lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lists
            .iter()
            .map(|(kind, list)| {
                let failing = list.current(now);
                let why = match failing {
                    Some(failing) if !list.listed => Some(format!("cannot list {kind}: {}", failing.error)),
                    None if !list.listed => Some(format!("{kind} is not listed yet")),
                    Some(failing) if now.duration_since(failing.since) >= PATIENCE => {
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
        let mut lists = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(lists.entry(kind.to_owned()).or_default());
    }
}

/// What went wrong, without the form that the error has in the program.
fn said(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(source)
        | watcher::Error::WatchStartFailed(source)
        | watcher::Error::WatchFailed(source) => words(source),
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
    async fn until_the_first_list_there_is_a_problem_and_its_words_are_the_errors() {
        let lists = Lists::default();
        lists.expect("Pod");
        assert_eq!(problem(&lists).as_deref(), Some("Pod is not listed yet"));
        lists.note("Pod", &list_fails());
        assert!(problem(&lists).unwrap().starts_with("cannot list Pod: "));
        lists.note("Pod", &Outcome::Ok(watcher::Event::Init));
        assert!(problem(&lists).is_some(), "that a list begins is no success");
        lists.note("Pod", &Outcome::Ok(watcher::Event::InitDone));
        assert_eq!(problem(&lists), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_keeps_failing_is_a_problem_after_the_bound_and_until_it_succeeds() {
        let lists = Lists::default();
        lists.note("Pod", &Outcome::Ok(watcher::Event::InitDone));
        lists.note("Pod", &list_fails());
        advance(PATIENCE - Duration::from_secs(1)).await;
        assert_eq!(problem(&lists), None);
        advance(Duration::from_secs(1)).await;
        assert!(problem(&lists).unwrap().starts_with("cannot list or watch Pod for 60 s: "));
        advance(QUIET * 2).await;
        assert!(problem(&lists).is_some(), "a list that hangs has not succeeded");
        lists.note("Pod", &Outcome::Ok(watcher::Event::InitDone));
        assert_eq!(problem(&lists), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_keeps_failing_is_a_problem_and_one_that_went_quiet_is_not() {
        let lists = Lists::default();
        lists.note("Pod", &Outcome::Ok(watcher::Event::InitDone));
        for _ in 0..3 {
            lists.note("Pod", &watch_fails());
            advance(Duration::from_secs(30)).await;
        }
        assert!(problem(&lists).is_some());
        advance(QUIET).await;
        assert_eq!(problem(&lists), None);
        lists.note("Pod", &watch_fails());
        assert_eq!(problem(&lists), None, "another failure, much later, is the first again");
    }
}
