//! What the cleaner promises.

mod concurrent;
mod reference;
mod waiting;

use super::ExpiredSessions;
use async_trait::async_trait;
use std::sync::Arc;

/// An upload flow without sessions.
struct NoSessions;

#[async_trait]
impl ExpiredSessions for NoSessions {
    async fn expire(&self) -> u64 {
        0
    }
}

fn no_sessions() -> Arc<dyn ExpiredSessions> {
    Arc::new(NoSessions)
}
