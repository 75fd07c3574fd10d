use super::{START, free_port};
use crate::pki::Authority;
use crate::process::Process;
use crate::s3::{ACCESS_KEY, REGION, S3, SECRET_KEY};
use crate::tools::Tool;
use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::process::Command;
use tempfile::TempDir;

/// Versity's S3 gateway over a folder, with one bucket.
pub struct Versitygw {
    pub s3: S3,
    process: Process,
    _folder: TempDir,
    _users: Option<TempDir>,
}

impl Versitygw {
    /// # Errors
    /// If it does not start.
    pub async fn start() -> Result<Versitygw> {
        Versitygw::run(&[], |address| Ok(S3::new(&format!("http://{address}")))).await
    }

    /// Over HTTPS only, with a certificate of this authority.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn over_tls(authority: &Authority) -> Result<Versitygw> {
        let identity = authority.issue("versitygw", "tests", &["127.0.0.1".to_owned()])?;
        let options = ["--cert".as_ref(), identity.certificate.as_os_str(), "--key".as_ref(), identity.key.as_os_str()];
        let s3 = |address: &str| S3::trusting(&format!("https://{address}"), &authority.certificate());
        Versitygw::run(&options, s3).await
    }

    /// With users that can be added and removed.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn with_users() -> Result<Versitygw> {
        let users = TempDir::new()?;
        // Without the cache, a removed user is rejected at once.
        let options = ["--iam-dir".as_ref(), users.path().as_os_str(), "--iam-cache-disable".as_ref()];
        let server = Versitygw::run(&options, |address| Ok(S3::new(&format!("http://{address}")))).await?;
        Ok(Versitygw { _users: Some(users), ..server })
    }

    async fn run(options: &[&OsStr], s3: impl FnOnce(&str) -> Result<S3>) -> Result<Versitygw> {
        let folder = TempDir::new()?;
        let root = folder.path().join("data");
        std::fs::create_dir(&root)?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut command = Command::new(Tool::Versitygw.path()?);
        // Without --keep-alive it closes the connection after each request.
        command.args(["--keep-alive", "--quiet", "--port", &address, "--region", REGION]);
        command.args(["--access", ACCESS_KEY, "--secret", SECRET_KEY]);
        command.args(options).arg("posix").arg(&root);
        let mut process = Process::start("versitygw", &mut command, &folder.path().join("log"))?;
        let s3 = s3(&address)?;
        process.until_ready(START, || s3.answers()).await?;
        s3.make_bucket().await?;
        Ok(Versitygw { s3, process, _folder: folder, _users: None })
    }

    /// Adds a user with all permissions to a server created by
    /// [`with_users`](Versitygw::with_users).
    ///
    /// # Errors
    /// If the server rejects it.
    pub fn add_user(&self, access_key: &str, secret_key: &str) -> Result<()> {
        self.administer(&["create-user", "--access", access_key, "--secret", secret_key, "--role", "admin"])
    }

    /// Removes a user, whose keys are rejected from now on.
    ///
    /// # Errors
    /// If the server rejects it.
    pub fn remove_user(&self, access_key: &str) -> Result<()> {
        self.administer(&["delete-user", "--access", access_key])
    }

    fn administer(&self, words: &[&str]) -> Result<()> {
        let mut command = Command::new(Tool::Versitygw.path()?);
        command.args(["admin", "--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION]);
        let output = command
            .args(["--endpoint-url", &self.s3.endpoint])
            .args(words)
            .output()
            .context("cannot start versitygw admin")?;
        ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}
