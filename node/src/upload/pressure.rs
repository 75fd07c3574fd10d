//! Removal of sessions: because they expired, because there are too many, or because the store has
//! no space.
//!
//! A session that a request writes to is never removed. The client of a removed session gets
//! "unknown session" and starts again. It loses only the upload progress, because no blob was
//! acknowledged.

use super::Uploads;
use super::age::Facts;
use super::session::{Session, Writing};
use crate::store::UnusedSessions;
use async_trait::async_trait;
use std::sync::Arc;

/// Expired sessions are removed before stored content, and other unused sessions after it.
#[async_trait]
impl UnusedSessions for Uploads {
    /// Removes sessions that were not used for `upload.sessionExpiry`.
    async fn expire(&self) -> u64 {
        let now = self.inner.env.clock.uptime();
        let expiry = self.inner.env.config.upload.session_expiry.get();
        let mut freed = 0;
        for session in self.sessions() {
            if let Some(writing) = session.idle().filter(|_| session.used().age(now) > expiry) {
                freed += self.remove(&session, writing, "expired").await;
            }
        }
        freed
    }

    async fn give_way(&self, bytes: u64) -> u64 {
        let mut freed = 0;
        for session in self.in_order() {
            if freed >= bytes {
                break;
            }
            if let Some(writing) = self.removable(&session).filter(|writing| writing.offset() > 0) {
                freed += self.remove(&session, writing, "not enough space in the store").await;
            }
        }
        freed
    }
}

impl Uploads {
    /// Removes one session to make place for another; empty sessions first. `false`: all are in
    /// use.
    pub(super) async fn make_place(&self) -> bool {
        for session in self.in_order() {
            if let Some(writing) = self.removable(&session) {
                self.remove(&session, writing, "limit upload.maxSessions reached").await;
                return true;
            }
        }
        false
    }

    fn sessions(&self) -> Vec<Arc<Session>> {
        self.inner.sessions.iter().map(|session| session.clone()).collect()
    }

    /// All sessions, in removal order.
    fn in_order(&self) -> Vec<Arc<Session>> {
        let now = self.inner.env.clock.uptime();
        let mut sessions = self.sessions();
        sessions.sort_by_cached_key(|session| facts(session, session.offset()).rank(now));
        sessions
    }

    /// The right to write to the session, if no request has it and the session may be removed. The
    /// check comes after taking the right to write, because the session cannot change then.
    fn removable(&self, session: &Session) -> Option<Writing> {
        let now = self.inner.env.clock.uptime();
        session.idle().filter(|writing| self.is_open(&session.id) && facts(session, writing.offset()).may_go(now))
    }

    async fn remove(&self, session: &Session, writing: Writing, why: &'static str) -> u64 {
        let bytes = writing.offset();
        tracing::info!(session = %session.id, repository = %session.repository, bytes, why,
            "removing an upload session");
        self.inner.env.metrics.store.evictions.with_label_values(&["session"]).inc();
        match self.end(session, writing).await {
            Ok(()) => bytes,
            Err(error) => {
                tracing::error!(%error, "cannot remove an upload session; it will be removed at the next start");
                0
            }
        }
    }
}

fn facts(session: &Session, bytes: u64) -> Facts {
    Facts { bytes, used: session.used() }
}
