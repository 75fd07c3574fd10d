//! Answers over HTTP/2 that their client does not take. Its connection may be busy with others and its socket never
//! full, so that what holds for HTTP/1.1, a write that makes no progress, is not seen: here an answer is stalled when
//! a piece of it was handed over and the next is not asked for.

use crate::run::clock::Stopwatch;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// The answers of one connection.
#[derive(Default)]
pub struct Answers(Mutex<Vec<Weak<Taken>>>);

/// How long the client has had what was handed over last; nothing while the server itself is waited for.
pub struct Taken(Mutex<Option<Stopwatch>>);

impl Answers {
    /// A new answer, which its client is to take from now on.
    pub fn begin(&self) -> Arc<Taken> {
        let taken = Arc::new(Taken(Mutex::new(Some(Stopwatch::start()))));
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|answer| answer.strong_count() > 0);
        answers.push(Arc::downgrade(&taken));
        taken
    }

    /// Resolves when an answer was not taken for `stall`, at most a quarter of it late.
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
    /// The client has room for more.
    pub fn asked(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A piece was handed over.
    pub fn handed(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Stopwatch::start());
    }

    fn waits(&self) -> Duration {
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}
