//! The guarantees of eviction.

mod concurrent;
mod reference;
mod waiting;

use crate::store::UnusedSessions;
use async_trait::async_trait;
use std::sync::Arc;

/// An upload flow without sessions.
struct NoSessions;

#[async_trait]
impl UnusedSessions for NoSessions {
    async fn expire(&self) -> u64 {
        0
    }

    async fn give_way(&self, _bytes: u64) -> u64 {
        0
    }
}

fn no_sessions() -> Arc<dyn UnusedSessions> {
    Arc::new(NoSessions)
}
