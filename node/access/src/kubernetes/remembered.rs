//! Answers with their age. Of callers with the same question, one asks and the others wait for its
//! answer, also if it is a failure: a service that hangs costs every caller one timeout.

use crate::AuthError;
use entrepot_runtime::Clock;
use entrepot_runtime::clock::Uptime;
use quick_cache::sync::Cache;
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

/// The most answers that are remembered.
const MAX_ANSWERS: usize = 10_000;

/// A question, as a hash that only this process can compute.
pub(super) type Key = [u8; 32];

/// Answers, by question.
pub(super) struct Remembered<T> {
    answers: Cache<Key, (T, Uptime)>,
    /// Questions in progress.
    asking: Cache<Key, Result<T, AuthError>>,
    clock: Clock,
}

impl<T: Clone> Remembered<T> {
    pub(super) fn new(clock: Clock) -> Remembered<T> {
        Remembered { answers: Cache::new(MAX_ANSWERS), asking: Cache::new(MAX_ANSWERS), clock }
    }

    /// The last answer and its age.
    pub(super) fn last(&self, key: &Key) -> Option<(T, Duration)> {
        self.answers.get(key).map(|(answer, at)| (answer, self.clock.uptime().since(at)))
    }

    /// The last answer, if it is younger than `lifetime` says.
    pub(super) fn fresh(&self, key: &Key, lifetime: impl Fn(&T) -> Duration) -> Option<T> {
        self.last(key).filter(|(answer, age)| *age < lifetime(answer)).map(|(answer, _)| answer)
    }

    /// The fresh answer, or the one to `question`. A failure is not remembered.
    pub(super) async fn get(
        &self,
        key: &Key,
        lifetime: impl Fn(&T) -> Duration,
        question: impl Future<Output = Result<T, AuthError>>,
    ) -> Result<T, AuthError> {
        if let Some(answer) = self.fresh(key, &lifetime) {
            return Ok(answer);
        }
        let mut leads = false;
        let lead = async {
            leads = true;
            // Another caller may have got an answer since.
            if let Some(answer) = self.fresh(key, &lifetime) {
                return Ok::<_, Infallible>(Ok(answer));
            }
            let answer = question.await;
            if let Ok(answer) = &answer {
                self.answers.insert(*key, (answer.clone(), self.clock.uptime()));
            }
            Ok(answer)
        };
        let answer = self.asking.get_or_insert_async(key, lead).await;
        // Only the caller that asked removes its question: another may be in progress already.
        if leads {
            self.asking.remove(key);
        }
        match answer {
            Ok(answer) => answer,
            Err(impossible) => match impossible {},
        }
    }
}
