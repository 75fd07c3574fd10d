//! Waiting for a condition, never for a time.

use anyhow::{Result, bail};
use std::future::Future;
use std::time::{Duration, Instant};

/// How often a condition is looked at. Short, for it is what a test waits too long at the most.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until the condition holds.
///
/// # Errors
/// When it does not within `deadline`; the message says what was waited for.
pub async fn until<F, C>(what: &str, deadline: Duration, mut condition: F) -> Result<()>
where
    F: FnMut() -> C,
    C: Future<Output = bool>,
{
    let start = Instant::now();
    while !condition().await {
        if start.elapsed() > deadline {
            bail!("waited {deadline:?} in vain until {what}");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Waits until there is a value.
///
/// # Errors
/// When there is none within `deadline`.
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
            bail!("waited {deadline:?} in vain until {what}");
        }
        tokio::time::sleep(LOOK).await;
    }
}
