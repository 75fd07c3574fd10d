//! Users with passwords in a file.
//!
//! Verifying a password is expensive by design, so it happens once: the result is remembered for a
//! minute under a hash that only this process can compute. Wrong passwords are counted for each
//! address, and refused without hashing when there are too many. A wrong pair that is remembered is
//! not counted again, because a stale secret that many clients of one machine repeat must not lock out
//! the others.

mod attempts;
mod file;
mod hash;
mod queue;

pub use file::{Users, UsersFileError};
pub use hash::HashError;

use crate::memory_key::MemoryKey;
use crate::{AuthError, Authenticator, Credential, Identity, Via};
use async_trait::async_trait;
use attempts::{Attempt, Attempts};
use entrepot_runtime::Clock;
use entrepot_runtime::clock::Uptime;
use file::Candidates;
use queue::Queue;
use quick_cache::sync::Cache;
use secrecy::{ExposeSecret, SecretString};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// The time for which the result of a verification is remembered.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The most results that are remembered.
const MAX_RESULTS: usize = 10_000;

/// The longest password in bytes. Longer ones are tokens that no issuer has claimed.
const MAX_PASSWORD: usize = 1024;

/// Verifies passwords of the users of a file.
pub struct Passwords {
    file: RwLock<Arc<File>>,
    groups: RwLock<Arc<Groups>>,
    key: MemoryKey,
    attempts: Arc<Attempts>,
    queue: Queue,
    hashed: Arc<AtomicU64>,
    clock: Clock,
}

/// The groups of each user.
type Groups = HashMap<String, Vec<String>>;

/// The content of the file with the results of its verifications. A new content begins without
/// results, so nothing of the old one is remembered, not even of a verification under way.
struct File {
    users: Users,
    results: Cache<[u8; 32], Outcome>,
}

#[derive(Clone, Copy)]
struct Outcome {
    right: bool,
    at: Uptime,
}

impl File {
    fn new(users: Users) -> Arc<File> {
        Arc::new(File { users, results: Cache::new(MAX_RESULTS) })
    }
}

impl Passwords {
    /// Verifies passwords of these users. `groups` has the members of each group, as `auth.groups`.
    ///
    /// # Errors
    /// If the system provides no random bytes.
    pub fn new(users: Users, groups: &BTreeMap<String, Vec<String>>, clock: Clock) -> Result<Passwords, AuthError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Passwords {
            file: RwLock::new(File::new(users)),
            groups: RwLock::new(Arc::new(by_member(groups))),
            key: MemoryKey::new().ok_or_else(|| unavailable("there are no random bytes"))?,
            attempts: Arc::new(Attempts::new(clock.clone())),
            queue: Queue::new(cores),
            hashed: Arc::default(),
            clock,
        })
    }

    /// Replaces the users and forgets all results.
    pub fn replace(&self, users: Users) {
        *self.file.write().unwrap_or_else(PoisonError::into_inner) = File::new(users);
    }

    /// Replaces the groups.
    pub fn replace_groups(&self, groups: &BTreeMap<String, Vec<String>>) {
        *self.groups.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(by_member(groups));
    }

    /// Whether there is a user of this name. A token of a user who was deleted is refused.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.file().users.contains(name)
    }

    /// The user of this name with the groups of now. `None` if there is none.
    #[must_use]
    pub fn identity(&self, name: &str) -> Option<Identity> {
        self.contains(name).then(|| self.identity_of(name))
    }

    /// How many hashes were computed since the start.
    #[must_use]
    pub fn hashed(&self) -> u64 {
        self.hashed.load(Ordering::Relaxed)
    }

    fn file(&self) -> Arc<File> {
        Arc::clone(&self.file.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn identity_of(&self, name: &str) -> Identity {
        let groups = Arc::clone(&self.groups.read().unwrap_or_else(PoisonError::into_inner));
        let groups = groups.get(name).cloned().unwrap_or_default();
        Identity { name: name.to_owned(), groups, via: Via::File, claims: BTreeMap::new() }
    }

    async fn check(&self, name: &str, password: &SecretString, peer: IpAddr) -> Result<Identity, AuthError> {
        if name.len() > file::MAX_NAME || password.expose_secret().len() > MAX_PASSWORD {
            return Err(AuthError::refused("the name or the password is too long"));
        }
        let file = self.file();
        let pair = self.key.hash(&[name.as_bytes(), password.expose_secret().as_bytes()]);
        let now = self.clock.uptime();
        file.results.remove_if(&pair, |outcome| now.since(outcome.at) >= REMEMBERED);
        // Of clients that send the same pair at the same time, one verifies it and the others wait.
        let verify = self.verify(&file, name, password, peer);
        let outcome = file.results.get_or_insert_async(&pair, verify).await?;
        if outcome.right { Ok(self.identity_of(name)) } else { Err(AuthError::refused("wrong name or password")) }
    }

    async fn verify(
        &self,
        file: &File,
        name: &str,
        password: &SecretString,
        peer: IpAddr,
    ) -> Result<Outcome, AuthError> {
        let attempt = self.attempts.begin(peer, name).map_err(too_many)?;
        let place = self.queue.enter().ok_or_else(|| too_many(Duration::from_secs(1)))?;
        let candidates = file.users.candidates(name);
        let (password, hashed) = (password.clone(), Arc::clone(&self.hashed));
        let right = place.run(move || is_right(&candidates, &password, attempt, &hashed)).await;
        let right = right.map_err(|error| unavailable(&error.to_string()))?;
        Ok(Outcome { right, at: self.clock.uptime() })
    }
}

fn is_right(candidates: &Candidates, password: &SecretString, attempt: Attempt, hashed: &AtomicU64) -> bool {
    let matches = candidates.hashes.iter().any(|hash| {
        hashed.fetch_add(1, Ordering::Relaxed);
        hash.verify(password)
    });
    let right = matches && candidates.known;
    if !right {
        attempt.keep();
    }
    right
}

fn too_many(wait: Duration) -> AuthError {
    let seconds = wait.as_millis().div_ceil(1000).max(1);
    AuthError::TooMany { retry_after_seconds: u32::try_from(seconds).unwrap_or(u32::MAX) }
}

fn unavailable(reason: &str) -> AuthError {
    AuthError::Unavailable { service: "the check of passwords".to_owned(), reason: reason.to_owned() }
}

fn by_member(groups: &BTreeMap<String, Vec<String>>) -> Groups {
    let mut of: Groups = HashMap::new();
    for (group, members) in groups {
        for member in members {
            of.entry(member.clone()).or_default().push(group.clone());
        }
    }
    of
}

#[async_trait]
impl Authenticator for Passwords {
    /// Claims every password: of the ways to prove an identity with one, this is the last.
    async fn authenticate(&self, credential: &Credential, peer: IpAddr) -> Option<Result<Identity, AuthError>> {
        match credential {
            Credential::Password { name, password } => Some(self.check(name, password, peer).await),
            Credential::Bearer(_) => None,
        }
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("users", &self.file().users).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
