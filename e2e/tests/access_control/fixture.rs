//! A registry with access control: its files, its rules and an image to push.

use crate::clients::{Client, Program, Who};
use anyhow::{Result, anyhow, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use entrepot_config::{Auth, AuthTokens, AuthUsers, NodeConfig, Rule};
use entrepot_e2e::Node;
use entrepot_e2e::images::Layout;
use entrepot_e2e::node::Plan;
use entrepot_e2e::node_binary::Variant;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Everybody may pull `public/**`; Alice may do everything there and in `team-a/**`, Bob may pull
/// `team-a/**`.
const RULES: &str = "auth:
  rules:
    - {who: [anonymous], may: [pull], in: ['public/**']}
    - {who: ['user:alice'], may: [delete], in: ['public/**', 'team-a/**']}
    - {who: ['user:bob'], may: [pull], in: ['team-a/**']}";

/// The users of [`Files::new`].
const USERS: [&str; 2] = ["alice", "bob"];

/// The files of a registry with access control.
pub struct Files {
    folder: TempDir,
}

impl Files {
    pub fn new() -> Result<Files> {
        let files = Files { folder: TempDir::new()? };
        files.set_users(&USERS)?;
        files.rotate(&[1])?;
        Ok(files)
    }

    fn users(&self) -> PathBuf {
        self.folder.path().join("users")
    }

    fn keys(&self) -> PathBuf {
        self.folder.path().join("keys")
    }

    /// Writes the users file with these users.
    pub fn set_users(&self, names: &[&str]) -> Result<()> {
        // The lowest cost of bcrypt: the tests measure no passwords.
        let line = |name: &&str| {
            let hash = bcrypt::hash(format!("{name}-password"), 4).map_err(|error| anyhow!("{error}"))?;
            Ok(format!("{name}:{hash}\n"))
        };
        let text: Result<String> = names.iter().map(line).collect();
        self.write_users(&text?)
    }

    /// Writes the users file with this text.
    pub fn write_users(&self, text: &str) -> Result<()> {
        self.write(&self.users(), text)
    }

    /// Writes the key file, with these keys in this order.
    pub fn rotate(&self, keys: &[u8]) -> Result<()> {
        self.write(&self.keys(), &keys.iter().map(|key| STANDARD.encode([*key; 32]) + "\n").collect::<String>())
    }

    /// In one step, so that no node reads a part of it.
    fn write(&self, file: &Path, text: &str) -> Result<()> {
        let next = self.folder.path().join("next");
        fs::write(&next, text)?;
        Ok(fs::rename(next, file)?)
    }

    pub fn auth(&self) -> Auth {
        let rules: Vec<Rule> = NodeConfig::from_yaml(RULES).unwrap().auth.unwrap().rules;
        let tokens = AuthTokens { key_file: Some(self.keys()), ..AuthTokens::default() };
        Auth { users: Some(AuthUsers { file: self.users() }), tokens, rules, ..Auth::default() }
    }

    /// Checks that a log contains no password, no hash, no key and no token.
    pub fn no_secret_in(&self, log: &str) {
        let users = fs::read_to_string(self.users()).unwrap();
        let hashes = users.lines().filter_map(|line| line.split_once(':')).map(|(_, hash)| hash);
        let keys = fs::read_to_string(self.keys()).unwrap();
        // Tokens and foreign JWTs begin with "eyJ"; passwords are also sent in base64.
        let passwords = ["alice", "bob", "carol"].map(|name| [format!("{name}-password"), basic(name)[6..].to_owned()]);
        let passwords: Vec<String> = passwords.into_iter().flatten().collect();
        let others = ["wrong-password", "eyJ"].into_iter();
        for secret in others.chain(passwords.iter().map(String::as_str)).chain(hashes).chain(keys.lines()) {
            assert!(!log.contains(secret), "the log contains {secret}");
        }
        assert!(log.contains("\"log\":\"audit\""), "the log is not that of a node: {log}");
    }
}

/// The `Authorization` header of a user.
pub fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{user}-password")))
}

/// An image with a layer of this size.
pub fn image(layer: u64) -> Result<Layout> {
    let mut layout = Layout::new()?;
    let named = layout.image("amd64", &[layout.layer("a", layer)?, layout.layer("b", 1000)?])?;
    layout.tag(&named, "v1")?;
    Ok(layout)
}

/// A node with access control over a directory.
pub struct Registry {
    pub node: Node,
    pub files: Files,
    pub image: Layout,
    _bucket: TempDir,
}

impl Registry {
    pub async fn start() -> Result<Registry> {
        Registry::with(|_| {}).await
    }

    /// With a change of the access control.
    pub async fn with(change: impl FnOnce(&mut Auth)) -> Result<Registry> {
        let (files, bucket) = (Files::new()?, TempDir::new()?);
        let mut auth = files.auth();
        change(&mut auth);
        let node = plan(Plan::over_folder(bucket.path()), auth).start().await?;
        Ok(Registry { node, files, image: image(100_000)?, _bucket: bucket })
    }

    pub fn host(&self) -> &str {
        self.node.registry.host()
    }

    pub async fn client(&self, program: Program, who: Who) -> Result<Client> {
        Client::logged_in(program, who, self.host()).await
    }

    pub fn no_secret_in_its_log(&self) {
        self.files.no_secret_in(&self.node.log());
    }
}

/// A node with this access control. The unoptimised build: what counts here is its behaviour.
pub fn plan(mut plan: Plan, auth: Auth) -> Plan {
    plan.variant = Variant::CrashPoints;
    plan.with(|config| config.auth = Some(auth))
}

/// Checks that a command was refused with one of these texts.
pub fn refused(what: &str, done: Result<impl Debug>, texts: &[&str]) -> Result<()> {
    match done {
        Ok(output) => bail!("{what} succeeded: {output:?}"),
        Err(error) => {
            let text = format!("{error:#}").to_lowercase();
            ensure!(texts.iter().any(|expected| text.contains(expected)), "{what}: {text}");
            Ok(())
        }
    }
}
