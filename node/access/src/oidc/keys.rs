//! The keys of an issuer with their age, and when they are fetched. One fetch is in progress at a
//! time. It does not belong to the client that caused it, so a client that leaves cannot interrupt it.

use super::IssuerStatus;
use super::set::KeySet;
use super::source::{PATIENCE, Source};
use crate::AuthError;
use entrepot_config::OidcIssuer;
use entrepot_runtime::clock::Uptime;
use entrepot_runtime::{Clock, tasks};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Age at which keys of a service are fetched again. A withdrawn key is accepted that long.
const FRESH: Duration = Duration::from_secs(3600);

/// The same for keys in a file.
const FRESH_FILE: Duration = Duration::from_secs(30);

/// Age to which keys are used while the issuer cannot be reached.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// Time between two fetches while there are keys: tokens with made-up key IDs cause no more.
const PAUSE: Duration = Duration::from_secs(30);

/// Time after a failed fetch while there are no keys. Clients are told to wait as long.
const PAUSE_WITHOUT_KEYS: Duration = Duration::from_secs(5);

/// The keys of an issuer.
pub(super) struct Keys {
    source: Source,
    /// The name of the issuer in errors.
    service: String,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: Option<(Arc<KeySet>, Uptime)>,
    last: Option<Attempt>,
    /// Open while a fetch is in progress.
    running: Option<watch::Receiver<()>>,
    fetched: u64,
    failed: u64,
}

/// A fetch.
struct Attempt {
    /// When it ended; when it began, if it is in progress.
    at: Uptime,
    failure: Option<String>,
}

impl Keys {
    pub(super) fn new(config: &OidcIssuer, service: String, clock: Clock) -> Keys {
        Keys { source: Source::new(config), service, clock, state: Mutex::default() }
    }

    /// The keys, fetched if they are too old.
    ///
    /// # Errors
    /// `Unavailable` if there are none and they cannot be fetched.
    pub(super) async fn current(self: &Arc<Keys>) -> Result<Arc<KeySet>, AuthError> {
        let fresh = if self.source.is_local() { FRESH_FILE } else { FRESH };
        if let Some(keys) = self.younger_than(fresh) {
            return Ok(keys);
        }
        self.fetch().await;
        self.younger_than(STALE).ok_or_else(|| self.unavailable())
    }

    /// Keys that were fetched after these, for a token whose key is not among them.
    ///
    /// # Errors
    /// `Unavailable` if the last fetch failed: the key may be a new one.
    pub(super) async fn newer_than(self: &Arc<Keys>, seen: Arc<KeySet>) -> Result<Arc<KeySet>, AuthError> {
        let is_seen = |keys: &Arc<KeySet>| Arc::ptr_eq(keys, &seen);
        if let Some(keys) = self.younger_than(STALE).filter(|keys| !is_seen(keys)) {
            return Ok(keys);
        }
        self.fetch().await;
        let failed = self.state.lock().last.as_ref().is_some_and(|last| last.failure.is_some());
        if failed { Err(self.unavailable()) } else { Ok(self.younger_than(STALE).unwrap_or(seen)) }
    }

    /// What is known of the issuer.
    pub(super) fn status(&self) -> IssuerStatus {
        let state = self.state.lock();
        let age = state.known.as_ref().map(|(_, at)| self.clock.uptime().since(*at));
        IssuerStatus { age, fetched: state.fetched, failed: state.failed }
    }

    fn younger_than(&self, age: Duration) -> Option<Arc<KeySet>> {
        let state = self.state.lock();
        let (keys, at) = state.known.as_ref()?;
        (self.clock.uptime().since(*at) < age).then(|| Arc::clone(keys))
    }

    fn unavailable(&self) -> AuthError {
        let state = self.state.lock();
        let failure = state.last.as_ref().and_then(|last| last.failure.clone());
        let reason = failure.unwrap_or_else(|| "the fetch of its keys was interrupted".to_owned());
        AuthError::Unavailable { service: self.service.clone(), reason }
    }

    /// Waits for the fetch in progress, or begins one unless the last was a moment ago.
    async fn fetch(self: &Arc<Keys>) {
        let running = {
            let mut state = self.state.lock();
            match state.in_progress() {
                Some(running) => Some(running),
                None if self.is_pausing(&state) => None,
                None => Some(self.begin(&mut state)),
            }
        };
        if let Some(mut running) = running {
            // The sender sends nothing. It is dropped at the end.
            let _ = running.changed().await;
        }
    }

    fn is_pausing(&self, state: &State) -> bool {
        let now = self.clock.uptime();
        let usable = state.known.as_ref().is_some_and(|(_, at)| now.since(*at) < STALE);
        let pause = if usable { PAUSE } else { PAUSE_WITHOUT_KEYS };
        state.last.as_ref().is_some_and(|last| now.since(last.at) < pause)
    }

    fn begin(self: &Arc<Keys>, state: &mut State) -> watch::Receiver<()> {
        let (end, running) = watch::channel(());
        state.running = Some(running.clone());
        state.last = Some(Attempt { at: self.clock.uptime(), failure: None });
        let keys = Arc::clone(self);
        // The fetch has its own limit, and this one lets it end by itself.
        tasks::brief(2 * PATIENCE, async move {
            let result = keys.source.fetch().await.map_err(|error| error.to_string());
            keys.end(result);
            drop(end);
        });
        running
    }

    fn end(&self, result: Result<KeySet, String>) {
        let at = self.clock.uptime();
        let mut state = self.state.lock();
        let failure = match result {
            Ok(keys) => {
                state.fetched += 1;
                // The same object if nothing has changed, so that verified tokens stay verified.
                let same = state.known.take().map(|(known, _)| known).filter(|known| known.is_same(&keys));
                state.known = Some((same.unwrap_or_else(|| Arc::new(keys)), at));
                None
            }
            Err(error) => {
                state.failed += 1;
                tracing::warn!(service = self.service, error, "cannot fetch the keys of an issuer");
                Some(error)
            }
        };
        state.last = Some(Attempt { at, failure });
        state.running = None;
    }
}

impl State {
    /// The fetch in progress. One that was interrupted is none.
    fn in_progress(&self) -> Option<watch::Receiver<()>> {
        self.running.clone().filter(|running| running.has_changed().is_ok())
    }
}
