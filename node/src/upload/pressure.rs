//! Removal of sessions: because they expired, because there are too many, or because the store has
//! no space.
//!
//! A client that opens sessions or sends bytes beyond its share loses its own unused sessions first.
//! Those of other clients are removed only if nothing is left for anybody.
//!
//! A session that a request writes to is never removed. The client of a removed session gets
//! "unknown session" and starts again. It loses only the upload progress, because no blob was
//! acknowledged.

use super::age::{Candidate, Facts};
use super::session::{Session, Writing};
use super::space::{Charge, Full};
use super::{UploadError, Uploads};
use crate::store::UnusedSessions;
use async_trait::async_trait;
use entrepot_runtime::share::Holder;
use std::collections::HashMap;
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
    /// Whether a client has fewer sessions than are free.
    pub(super) fn has_place(&self, holder: &Holder) -> bool {
        let sessions = &self.inner.sessions;
        let held = sessions.iter().filter(|session| session.holder.as_ref() == Some(holder)).count();
        held < self.most().saturating_sub(sessions.len())
    }

    fn most(&self) -> usize {
        self.inner.env.config.upload.max_sessions as usize
    }

    /// Removes one session to make place for another one of a client. `false`: all that may be
    /// removed for it are in use.
    pub(super) async fn make_place(&self, holder: &Holder) -> bool {
        let (now, sessions) = (self.inner.env.clock.uptime(), self.sessions());
        let mut held: HashMap<Option<&Holder>, usize> = HashMap::new();
        for session in &sessions {
            *held.entry(session.holder.as_ref()).or_default() += 1;
        }
        let own = held.get(&Some(holder)).copied().unwrap_or_default();
        let candidate = |session: &Session, bytes: u64| Candidate {
            facts: facts(session, bytes),
            is_own: session.holder.as_ref() == Some(holder),
            has_more: session
                .holder
                .as_ref()
                .map_or(0, |other| held.get(&Some(other)).copied().unwrap_or_default().saturating_sub(own + 1)),
        };
        let is_full = sessions.len() >= self.most();
        let mut in_order: Vec<&Arc<Session>> = sessions.iter().collect();
        in_order.sort_by_cached_key(|session| candidate(session, session.offset()).rank(now));
        for session in in_order {
            // Checked again with the right to write, because the session cannot change then.
            let writing = session.idle().filter(|writing| {
                self.is_open(&session.id) && candidate(session, writing.offset()).may_go(now, is_full)
            });
            if let Some(writing) = writing {
                self.remove(session, writing, "limit upload.maxSessions reached").await;
                return true;
            }
        }
        false
    }

    /// Takes space for bytes of a client. If it has none left, its unused sessions are removed, or
    /// those of all clients if there is none for anybody.
    ///
    /// # Errors
    /// `ShareUsed` if all of these sessions are in use.
    pub(super) async fn charge(&self, holder: &Option<Holder>, bytes: u64) -> Result<Charge, UploadError> {
        loop {
            let capacity = self.inner.env.store.room.usage().capacity;
            let full = match self.inner.part.charge(holder, bytes, capacity) {
                Ok(charge) => return Ok(charge),
                Err(full) => full,
            };
            let unused = self.in_order().into_iter().filter(|session| full == Full::Part || session.holder == *holder);
            let unused = unused.filter_map(|session| {
                let writing = self.removable(&session).filter(|writing| writing.offset() > 0)?;
                Some((session, writing))
            });
            let Some((session, writing)) = { unused }.next() else { return Err(UploadError::ShareUsed) };
            self.remove(&session, writing, "too many bytes of unfinished uploads").await;
        }
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
