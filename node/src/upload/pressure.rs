//! Sessions that are removed: because they expired, because there are too many, or because the store has no room.
//!
//! Never one that a request is writing to. The client of a removed session is told that there is none, and begins again:
//! nothing of it was acknowledged but its progress.

use super::Uploads;
use super::age::Facts;
use super::session::{Session, Writing};
use crate::clean::UnusedSessions;
use async_trait::async_trait;
use std::sync::Arc;

/// Expired sessions are removed before stored content, and other unused sessions after it.
#[async_trait]
impl UnusedSessions for Uploads {
    async fn expire(&self) -> u64 {
        Uploads::expire(self).await
    }

    async fn give_way(&self, bytes: u64) -> u64 {
        Uploads::give_way(self, bytes).await
    }
}

impl Uploads {
    /// Removes sessions that received nothing for `upload.sessionExpiry`. Returns the bytes freed.
    pub async fn expire(&self) -> u64 {
        let now = self.inner.clock.uptime();
        let expiry = self.inner.config.session_expiry.get();
        let mut freed = 0;
        for session in self.sessions() {
            if let Some(writing) = session.idle().filter(|_| session.used().age(now) > expiry) {
                freed += self.remove(&session, writing, "it expired").await;
            }
        }
        freed
    }

    /// Removes sessions that nobody used for a while, the longest unused first, until so many bytes are freed. Returns
    /// the bytes freed.
    pub async fn give_way(&self, bytes: u64) -> u64 {
        let mut freed = 0;
        for session in self.in_order() {
            if freed >= bytes {
                break;
            }
            if let Some(writing) = self.removable(&session).filter(|writing| writing.offset() > 0) {
                freed += self.remove(&session, writing, "the store has no room").await;
            }
        }
        freed
    }

    /// Removes one session so that another finds a place: an empty one if there is one. `false`: all are in use.
    pub(super) async fn make_place(&self) -> bool {
        for session in self.in_order() {
            if let Some(writing) = self.removable(&session) {
                self.remove(&session, writing, "there are as many as upload.maxSessions").await;
                return true;
            }
        }
        false
    }

    fn sessions(&self) -> Vec<Arc<Session>> {
        self.inner.sessions.iter().map(|session| session.clone()).collect()
    }

    /// All sessions, in the order in which they go.
    fn in_order(&self) -> Vec<Arc<Session>> {
        let now = self.inner.clock.uptime();
        let mut sessions = self.sessions();
        sessions.sort_by_cached_key(|session| facts(session, session.offset()).rank(now));
        sessions
    }

    /// The right to write to the session, if nobody has it and the session may be removed: looked at only now that it
    /// cannot change.
    fn removable(&self, session: &Session) -> Option<Writing> {
        let now = self.inner.clock.uptime();
        session.idle().filter(|writing| self.is_open(&session.id) && facts(session, writing.offset()).may_go(now))
    }

    async fn remove(&self, session: &Session, writing: Writing, why: &'static str) -> u64 {
        let bytes = writing.offset();
        tracing::info!(session = %session.id, repository = %session.repository, bytes, why, "removing an upload session");
        self.inner.metrics.evictions.with_label_values(&["session"]).inc();
        match self.end(session, writing).await {
            Ok(()) => bytes,
            Err(error) => {
                tracing::error!(%error, "a removed session stays on the disk until the next start");
                0
            }
        }
    }
}

fn facts(session: &Session, bytes: u64) -> Facts {
    Facts { bytes, used: session.used() }
}
