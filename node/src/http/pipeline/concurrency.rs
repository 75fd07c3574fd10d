//! The limit of concurrent requests (`http.maxRequests`).

use crate::http::error::ApiError;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The requests that this node handles at the same time.
pub struct Concurrency(Arc<Semaphore>);

impl Concurrency {
    pub fn new(most: u32) -> Concurrency {
        Concurrency(Arc::new(Semaphore::new(most as usize)))
    }

    /// A permit for one request, to be held until the last byte of its response was sent.
    ///
    /// # Errors
    /// `TooManyRequests` if there is none. A request is never queued.
    pub fn admit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| ApiError::TooManyRequests)
    }
}
