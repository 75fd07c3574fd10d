//! Trying again: growing pauses with jitter, under one budget of time for the whole operation.

use backon::{BackoffBuilder, ExponentialBuilder};
use std::future::Future;
use std::time::Duration;

use super::clock::Stopwatch;

/// First pause; small, for most failures of object storage are gone at once.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause, so that a long outage ends soon after the bucket is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Pauses between tries: exponential, with jitter, without end. The budget ends the retries.
pub fn pauses() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Runs `attempt` until it succeeds, fails in a way that `is_transient` denies, or the budget would be exceeded by the
/// next pause.
///
/// # Errors
/// The last attempt's.
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
