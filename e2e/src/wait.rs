//! Waits for a condition instead of a fixed time.

use anyhow::{Result, bail};
use std::future::Future;
use std::time::{Duration, Instant};

/// Interval between checks of the condition. It is short, because a test may wait up to this much
/// too long.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until the condition holds.
///
/// # Errors
/// If it does not hold within `deadline`; the message contains `what`.
pub async fn until<F, C>(what: &str, deadline: Duration, mut condition: F) -> Result<()>
where
    F: FnMut() -> C,
    C: Future<Output = bool>,
{
    let start = Instant::now();
    while !condition().await {
        if start.elapsed() > deadline {
            bail!("timed out after {deadline:?} waiting until {what}");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Waits until `attempt` returns a value.
///
/// # Errors
/// If it returns none within `deadline`; the message contains `what`.
pub async fn value<T, F, C>(what: &str, deadline: Duration, mut attempt: F) -> Result<T>
where
    F: FnMut() -> C,
    C: Future<Output = Option<T>>,
{
    let start = Instant::now();
    loop {
        if let Some(value) = attempt().await {
            return Ok(value);
        }
        if start.elapsed() > deadline {
            bail!("timed out after {deadline:?} waiting until {what}");
        }
        tokio::time::sleep(LOOK).await;
    }
}
