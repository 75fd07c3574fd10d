//! What tests of several crates share.

use std::time::Duration;

/// How long a condition may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a condition, and fails the test if it does not become true.
///
/// # Panics
/// If it is not true after 30 seconds.
#[allow(clippy::panic, reason = "a test ends where its condition does not become true")]
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !condition() {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("timed out waiting: {what}"));
}
