//! Responses over HTTP/2 that their client does not read. The connection may be busy with other
//! responses, so its socket may never be full, and the rule of HTTP/1.1 (a write makes no progress)
//! does not detect them. Here a response is stalled when a piece of it was handed to hyper and the
//! next one is not requested.

use entrepot_runtime::clock::Stopwatch;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// The responses of one connection.
#[derive(Default)]
pub struct Answers(Mutex<Vec<Weak<Taken>>>);

/// How long the client has had the last piece. `None` while the client waits for the server.
pub struct Taken(Mutex<Option<Stopwatch>>);

impl Answers {
    /// Starts a response, which its client should read from now on.
    pub fn begin(&self) -> Arc<Taken> {
        let taken = Arc::new(Taken(Mutex::new(Some(Stopwatch::start()))));
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|answer| answer.strong_count() > 0);
        answers.push(Arc::downgrade(&taken));
        taken
    }

    /// Resolves when the client read nothing of a response for `stall`, at most `stall / 4` late.
    pub async fn stalled(&self, stall: Duration) {
        loop {
            tokio::time::sleep(stall / 4).await;
            let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if answers.iter().filter_map(Weak::upgrade).any(|answer| answer.waits() > stall) {
                return;
            }
        }
    }
}

impl Taken {
    /// The client can receive more.
    pub fn asked(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A piece was handed to hyper.
    pub fn handed(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Stopwatch::start());
    }

    fn waits(&self) -> Duration {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}
