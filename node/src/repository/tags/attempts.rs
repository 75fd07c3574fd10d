//! The attempts of one change of a tag, within one time budget.

use super::TagError;
use entrepot_bucket::{BucketError, BucketErrorKind, ETag};
use entrepot_runtime::clock::Stopwatch;
use entrepot_runtime::retry;
use std::time::Duration;

pub(super) struct Attempts {
    spent: Stopwatch,
    budget: Duration,
    pauses: Box<dyn Iterator<Item = Duration> + Send>,
    /// The version that an unanswered attempt named. It is unknown whether that attempt took
    /// effect.
    unanswered: Option<Option<ETag>>,
}

impl Attempts {
    pub(super) fn begin(budget: Duration) -> Attempts {
        Attempts { spent: Stopwatch::start(), budget, pauses: Box::new(retry::pauses()), unanswered: None }
    }

    /// Whether any attempt got no answer.
    pub(super) fn any_unanswered(&self) -> bool {
        self.unanswered.is_some()
    }

    /// Whether an attempt got no answer and the tag has another version since. Either the attempt
    /// took effect and was overwritten, or it did not and another write came first.
    pub(super) fn were_overtaken(&self, now: Option<&ETag>) -> bool {
        self.unanswered.as_ref().is_some_and(|version| version.as_ref() != now)
    }

    /// Waits before the next attempt. `version` is the version that the last attempt named.
    /// `failed` is the error if it got no answer, and `None` if it was rejected because another
    /// change came first.
    ///
    /// # Errors
    /// If there must be no other attempt. An attempt that timed out is not repeated: it may arrive
    /// after its repetition was acknowledged, and after other writes have restored the version that
    /// it was based on.
    pub(super) async fn next(&mut self, version: Option<ETag>, failed: Option<BucketError>) -> Result<(), TagError> {
        let pause = self.pauses.next().unwrap_or_default();
        let over = self.spent.elapsed() + pause > self.budget;
        match failed {
            Some(error) if over || !error.is_transient() || error.kind == BucketErrorKind::Timeout => {
                return Err(error.into());
            }
            None if over => return Err(TagError::OutcomeUnknown),
            Some(_) => self.unanswered = Some(version),
            None => {}
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
