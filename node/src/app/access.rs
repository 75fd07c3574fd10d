//! Access control from the configuration and the files that it names. They are read every few
//! seconds, so a changed user, key or rule takes effect without a restart. Files that are invalid
//! change nothing: the policy before stays in force.

use super::error::StartError;
use super::issuers::Issuers;
use crate::observe::audit::{Audit, Event, Line, Outcome};
use entrepot_access::Rules;
use entrepot_access::kubernetes::Reviews;
use entrepot_access::token::{KeyFileError, Keys, Settings, Tokens};
use entrepot_access::users::{Passwords, Users};
use entrepot_access::{AccessControl, Authenticator, Policy};
use entrepot_config::{Auth, AuthStatus, AuthTokens, ConfigError, NodeConfig};
use entrepot_oci::{Algorithm, Digest};
use entrepot_runtime::Clock;
use entrepot_runtime::clock::Timestamp;
use parking_lot::Mutex;
use prometheus::{IntGauge, Opts, Registry};
use secrecy::ExposeSecret;
use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the file in the store with the key that a node without `auth.tokens.keyFile` generates.
const GENERATED_KEY: &str = "token-key";

/// Keeps the access control of a node as its configuration and files say. Clones share it.
#[derive(Clone)]
pub struct AccessFiles {
    inner: Arc<Inner>,
}

struct Inner {
    control: AccessControl,
    clock: Clock,
    audit: Arc<Audit>,
    /// Where the generated key is.
    key: PathBuf,
    state: Mutex<State>,
    issuers: Issuers,
    refused: IntGauge,
}

struct State {
    /// What the configuration says.
    wanted: Option<Auth>,
    built: Option<Built>,
    status: AuthStatus,
}

/// A policy and what it was built from.
struct Built {
    sources: Sources,
    /// Identifies the configuration in `/status` and in the audit log.
    hash: String,
    policy: Arc<Policy>,
}

/// What a policy is built from.
#[derive(Clone, PartialEq)]
struct Sources {
    auth: Auth,
    keys: String,
    users: String,
}

impl AccessFiles {
    /// The access control of a node that starts.
    ///
    /// # Errors
    /// If a file cannot be read or is invalid, or if the metric is already registered.
    pub fn start(
        config: &NodeConfig,
        control: AccessControl,
        clock: Clock,
        audit: Arc<Audit>,
        registry: &Registry,
    ) -> Result<AccessFiles, StartError> {
        let help = "1 if a file of access control is invalid and the previous policy is in force, else 0.";
        let refused = IntGauge::with_opts(Opts::new("access_refused", help).namespace("entrepot"))?;
        registry.register(Box::new(refused.clone()))?;
        let issuers = Issuers::default();
        issuers.register(registry)?;
        let state = State { wanted: config.auth.clone(), built: None, status: AuthStatus::default() };
        let key = config.store.path.join(GENERATED_KEY);
        let files = AccessFiles {
            inner: Arc::new(Inner { control, clock, audit, key, state: Mutex::new(state), issuers, refused }),
        };
        files.inner.apply(config.auth.clone())?;
        Ok(files)
    }

    /// What is in force.
    pub fn status(&self) -> AuthStatus {
        self.inner.state.lock().status.clone()
    }

    /// Keeps the access control of a changed configuration for the next [`Self::refresh`].
    pub fn want(&self, auth: Option<Auth>) {
        self.inner.state.lock().wanted = auth;
    }

    /// Applies what the configuration and the files say now. Blocking.
    pub fn refresh(&self) {
        let inner = &*self.inner;
        let wanted = inner.state.lock().wanted.clone();
        let Err(error) = inner.apply(wanted) else { return };
        inner.refused.set(1);
        let mut state = inner.state.lock();
        let error = error.to_string();
        // Logged once, not at every read.
        if state.status.refused.as_ref() != Some(&error) {
            tracing::error!(%error, "invalid access control; keeping the previous policy");
            inner.audit.write(Line { reason: Some(error.clone()), ..Line::new(Event::Policy, Outcome::Failed) });
        }
        state.status.refused = Some(error);
    }
}

impl Inner {
    fn apply(&self, wanted: Option<Auth>) -> Result<(), ConfigError> {
        let sources = wanted.map(|auth| self.read(auth)).transpose()?;
        let mut state = self.state.lock();
        if state.built.as_ref().map(|built| &built.sources) != sources.as_ref() {
            let built = sources.map(|sources| self.build(sources, state.built.as_ref())).transpose()?;
            if built.is_none() {
                self.issuers.clear();
            }
            self.control.replace(built.as_ref().map(|built| Arc::clone(&built.policy)));
            tracing::info!(enforced = built.is_some(), "applied access control");
            let policy = built.as_ref().map_or_else(|| "open".to_owned(), |built| built.hash.clone());
            self.audit.write(Line { rule: Some(policy), ..Line::new(Event::Policy, Outcome::Ok) });
            state.built = built;
        }
        state.status = AuthStatus { policy: state.built.as_ref().map(|built| built.hash.clone()), refused: None };
        self.refused.set(0);
        Ok(())
    }

    fn read(&self, auth: Auth) -> Result<Sources, ConfigError> {
        let keys = match &auth.tokens.key_file {
            Some(file) => read("auth.tokens.keyFile", file)?,
            None => self.generated_key()?,
        };
        let users = auth.users.as_ref().map(|users| read("auth.users.file", &users.file)).transpose()?;
        Ok(Sources { auth, keys, users: users.unwrap_or_default() })
    }

    /// The key that this node generated, now or at an earlier start.
    fn generated_key(&self) -> Result<String, ConfigError> {
        let failed = |error: io::Error| {
            let why = format!("not set, and the key of this node cannot be stored at {}: {error}", self.key.display());
            invalid("auth.tokens.keyFile", why)
        };
        match fs::read_to_string(&self.key) {
            Ok(text) if Keys::parse(&text).is_ok() => Ok(text),
            // Missing, or damaged: clients of the old key ask for new tokens.
            _ => {
                let text = Keys::generate().map_err(|error| failed(io::Error::other(error)))?.to_text();
                write_private(&self.key, text.expose_secret()).map_err(failed)?;
                Ok(text.expose_secret().to_owned())
            }
        }
    }

    fn build(&self, sources: Sources, before: Option<&Built>) -> Result<Built, ConfigError> {
        let auth = &sources.auth;
        let tokens = match before.filter(|before| before.sources.tokens() == sources.tokens()) {
            // The same object, because it remembers verified tokens.
            Some(before) => before.policy.tokens.clone(),
            None => tokens(&auth.tokens, &sources.keys)?,
        };
        let users = Users::parse(&sources.users).map_err(|error| invalid("auth.users.file", error))?;
        // The same object, because it remembers verified passwords and counts wrong ones.
        let passwords = match before {
            Some(before) => {
                let passwords = Arc::clone(&before.policy.passwords);
                if before.sources.users != sources.users {
                    passwords.replace(users);
                }
                passwords.replace_groups(&auth.groups);
                passwords
            }
            None => Arc::new(
                Passwords::new(users, &auth.groups, self.clock.clone())
                    .map_err(|error| invalid("auth.users.file", error))?,
            ),
        };
        let kubernetes = self.kubernetes(auth, before)?;
        let rules = Rules::compile(auth);
        let issuers = self.issuers.replace(auth, &rules, &self.clock);
        let issuers = issuers.map_err(|error| invalid("auth.oidc", error))?;
        let mut authenticators: Vec<Arc<dyn Authenticator>> = Vec::new();
        authenticators.extend(issuers.into_iter().map(|issuer| issuer as Arc<dyn Authenticator>));
        authenticators.extend(kubernetes.clone().map(|reviews| reviews as Arc<dyn Authenticator>));
        authenticators.push(passwords.clone());
        let policy = Policy {
            service: auth.service.clone(),
            realm: auth.realm.clone(),
            tokens,
            passwords,
            authenticators,
            rules,
            kubernetes,
            clock: self.clock.clone(),
        };
        Ok(Built { hash: hash(auth), policy: Arc::new(policy), sources })
    }

    /// Kubernetes as it is configured. The same object as before if its configuration has not
    /// changed, because it remembers answers.
    fn kubernetes(&self, auth: &Auth, before: Option<&Built>) -> Result<Option<Arc<Reviews>>, ConfigError> {
        let Some(config) = &auth.kubernetes else { return Ok(None) };
        let same = |before: &&Built| {
            before.sources.auth.kubernetes.as_ref() == Some(config) && before.sources.auth.service == auth.service
        };
        if let Some(known) = before.filter(same).and_then(|before| before.policy.kubernetes.clone()) {
            return Ok(Some(known));
        }
        // Only the review of tokens needs an audience, and a configuration with it has one.
        let audience = config.audience.as_ref().or(auth.service.as_ref()).map_or("", String::as_str);
        let reviews = Reviews::new(config, audience, &self.clock).map_err(|error| invalid("auth.kubernetes", error))?;
        Ok(Some(Arc::new(reviews)))
    }
}

impl Sources {
    /// What tokens depend on.
    fn tokens(&self) -> (&AuthTokens, &str) {
        (&self.auth.tokens, &self.keys)
    }
}

fn tokens(config: &AuthTokens, keys: &str) -> Result<Tokens, ConfigError> {
    let failed = |error: KeyFileError| invalid("auth.tokens.keyFile", error);
    let keys = Keys::parse(keys).map_err(failed)?;
    let settings = Settings {
        keys,
        lifetime: config.lifetime.get(),
        not_before: config.not_before.as_ref().map(|time| Timestamp(time.milliseconds())),
    };
    Tokens::new(settings).map_err(failed)
}

fn invalid(field: &str, problem: impl Display) -> ConfigError {
    ConfigError::Value { field: field.to_owned(), problem: problem.to_string() }
}

fn read(field: &str, path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|error| invalid(field, format_args!("cannot read {}: {error}", path.display())))
}

/// Writes a file that only the user of this process can read.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Identifies a configuration, so that the operator sees whether all nodes enforce the same one.
fn hash(auth: &Auth) -> String {
    let text = serde_json::to_vec(auth).unwrap_or_default();
    Digest::of(Algorithm::Sha256, &text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts access control of `auth` with a store in `folder`.
    fn start(folder: &Path, auth: &str) -> Result<(AccessFiles, AccessControl), StartError> {
        let yaml = format!("store: {{path: '{}'}}\nauth: {auth}", folder.display());
        let (config, control) = (NodeConfig::from_yaml(&yaml).unwrap(), AccessControl::default());
        let audit = Audit::new("a".into(), config.audit.clone(), Clock::system(), Box::new(io::sink()));
        let files = AccessFiles::start(&config, control.clone(), Clock::system(), Arc::new(audit), &Registry::new())?;
        Ok((files, control))
    }

    #[test]
    fn kubernetes_needs_an_audience_only_to_review_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let (files, control) = start(folder.path(), "{kubernetes: {review: false}}").unwrap();
        assert!(control.policy().unwrap().kubernetes.is_some());
        assert_eq!(files.status().refused, None);
    }

    #[test]
    fn a_policy_is_replaced_only_by_a_change_that_is_valid() {
        let folder = tempfile::tempdir().unwrap();
        let users = folder.path().join("users");
        fs::write(&users, "").unwrap();
        let auth = format!("{{users: {{file: '{}'}}}}", users.display());
        let (files, control) = start(folder.path(), &auth).unwrap();
        let (policy, status) = (control.policy().unwrap(), files.status());
        files.refresh();
        assert!(Arc::ptr_eq(&policy, &control.policy().unwrap()), "nothing changed");
        fs::write(&users, "alice:plain").unwrap();
        files.refresh();
        assert!(Arc::ptr_eq(&policy, &control.policy().unwrap()), "the file is invalid");
        let refused = files.status();
        assert!(refused.refused.as_ref().unwrap().starts_with("auth.users.file: "), "{refused:?}");
        assert_eq!(refused.policy, status.policy);
        files.want(None);
        files.refresh();
        assert!(control.policy().is_none(), "access control was turned off");
        assert_eq!(files.status(), AuthStatus::default());
    }
}
