//! Retries: growing pauses with jitter, within one time budget for the whole operation.

use backon::{BackoffBuilder, ExponentialBuilder};
use std::future::Future;
use std::time::Duration;

use super::clock::Stopwatch;

/// First pause. It is short, because most failures of object storage are brief.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause, so that a long outage ends soon after the bucket is reachable again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Pauses between attempts: exponential, with jitter, without end. The budget ends the retries.
pub fn pauses() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Runs `attempt` until it succeeds, fails with an error that is not transient, or the next pause
/// would exceed the budget.
///
/// # Errors
/// The error of the last attempt.
pub async fn within<T, E, F>(
    budget: Duration,
    is_transient: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let spent = Stopwatch::start();
    let mut pauses = pauses();
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let Some(pause) = pauses.next() else { return Err(error) };
        if !is_transient(&error) || spent.elapsed() + pause > budget {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
    }
}
