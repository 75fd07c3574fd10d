//! The limit of concurrent requests (`http.maxRequests`), of which one network may have as many as
//! are free.

use crate::http::client_address::ClientAddress;
use crate::http::error::ApiError;
use entrepot_runtime::share::{Share, Shares};
use std::time::Duration;

/// How long a request waits for a place. containerd repeats a refused request five times within 0.3 s
/// and does not read `Retry-After`, so a refusal at once would often be a failed pull.
const PATIENCE: Duration = Duration::from_secs(1);

/// The same for a request with a body. Most clients do not repeat those, and while they wait, the
/// node does not read what they send.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// The requests that this node handles at the same time.
pub struct Concurrency(Shares);

impl Concurrency {
    pub fn new(most: u32) -> Concurrency {
        Concurrency(Shares::new(most as usize))
    }

    /// A place for one request, to be held until the last byte of its response was sent. The request
    /// waits for a limited time.
    ///
    /// # Errors
    /// `AboveShare` if the client's network has its share of the places, `TooManyRequests` if all are
    /// taken. The former is never the answer to a body, because clients do not repeat a body after
    /// 429.
    pub async fn admit(&self, client: &ClientAddress, has_body: bool) -> Result<Share, ApiError> {
        let patience = if has_body { BODY_PATIENCE } else { PATIENCE };
        let share = self.0.take_within(&client.holder(), 1, patience).await;
        share.ok_or_else(
            || {
                if has_body || self.0.free() == 0 { ApiError::TooManyRequests } else { ApiError::AboveShare }
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn client(address: &str) -> ClientAddress {
        ClientAddress { address: address.parse().unwrap(), forwarded: false, https: false }
    }

    #[tokio::test(start_paused = true)]
    async fn a_network_above_its_share_is_refused_after_a_second_and_others_are_served() {
        let concurrency = Concurrency::new(4);
        let greedy = client("10.0.0.1");
        let held = [concurrency.admit(&greedy, false).await.unwrap(), concurrency.admit(&greedy, true).await.unwrap()];
        let start = tokio::time::sleep(Duration::ZERO).deadline();
        assert!(matches!(concurrency.admit(&client("10.0.0.2"), false).await, Err(ApiError::AboveShare)));
        assert!(tokio::time::sleep(Duration::ZERO).deadline() - start >= PATIENCE);
        assert!(
            matches!(concurrency.admit(&greedy, true).await, Err(ApiError::TooManyRequests)),
            "never 429 to a body"
        );
        assert!(concurrency.admit(&client("10.0.1.1"), false).now_or_never().is_some_and(|place| place.is_ok()));
        drop(held);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_gets_the_place_of_one_that_ends_in_time() {
        let concurrency = Concurrency::new(1);
        let held = concurrency.admit(&client("10.0.0.1"), false).await.unwrap();
        let other = client("10.0.1.1");
        let mut waiting = Box::pin(concurrency.admit(&other, false));
        assert!((&mut waiting).now_or_never().is_none());
        drop(held);
        assert!(waiting.now_or_never().is_some_and(|place| place.is_ok()));
    }
}
