//! The attempts of one change of a tag, within one budget of time.

use super::TagError;
use crate::run::clock::Stopwatch;
use crate::run::retry;
use crate::store::bucket::{BucketError, BucketErrorKind, ETag};
use std::time::Duration;

pub(super) struct Attempts {
    spent: Stopwatch,
    budget: Duration,
    pauses: Box<dyn Iterator<Item = Duration> + Send>,
    /// The version that an attempt named which got no answer: whether it took effect is not known.
    unanswered: Option<Option<ETag>>,
}

impl Attempts {
    pub(super) fn begin(budget: Duration) -> Attempts {
        Attempts { spent: Stopwatch::start(), budget, pauses: Box::new(retry::pauses()), unanswered: None }
    }

    /// Whether an attempt got no answer.
    pub(super) fn any_unanswered(&self) -> bool {
        self.unanswered.is_some()
    }

    /// Whether an attempt got no answer and the tag has a different version since. Either the attempt took effect and
    /// something was written after it, or it did not and something else was written.
    pub(super) fn were_overtaken(&self, now: Option<&ETag>) -> bool {
        self.unanswered.as_ref().is_some_and(|version| version.as_ref() != now)
    }

    /// Waits before the next attempt. `version` is what the last one named, and `failed` why it got no answer; none if
    /// it was refused because another change was first.
    ///
    /// # Errors
    /// When there is to be no other attempt. One that hung is not repeated: it may arrive after its repetition was
    /// acknowledged, and after others have brought the tag back to what it was based on.
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
