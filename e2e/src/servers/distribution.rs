use super::{START, free_port};
use crate::client::Registry;
use crate::commands;
use crate::process::Process;
use crate::s3::{ACCESS_KEY, BUCKET, REGION, S3, SECRET_KEY};
use crate::tools::Tool;
use anyhow::Result;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// The storage of a Distribution registry.
pub enum Driver<'a> {
    FileSystem(&'a Path),
    S3(&'a S3),
}

/// A registry of CNCF Distribution v3.
pub struct Distribution {
    pub registry: Registry,
    process: Process,
    folder: TempDir,
}

impl Distribution {
    /// # Errors
    /// If it does not start.
    pub async fn start(driver: Driver<'_>) -> Result<Distribution> {
        Distribution::run(driver, "").await
    }

    /// The same with its in-memory cache of blob descriptors, which is its fastest setting.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn with_cache(driver: Driver<'_>) -> Result<Distribution> {
        Distribution::run(driver, "  cache: {blobdescriptor: inmemory}\n").await
    }

    /// A pull-through cache in front of another registry, with its content in that folder.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn mirror_of(remote: &str, folder: &Path) -> Result<Distribution> {
        let more = format!("  cache: {{blobdescriptor: inmemory}}\nproxy: {{remoteurl: '{remote}', ttl: 168h}}\n");
        Distribution::run(Driver::FileSystem(folder), &more).await
    }

    /// `more` continues the `storage` section of the configuration.
    async fn run(driver: Driver<'_>, more: &str) -> Result<Distribution> {
        let folder = TempDir::new()?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let storage = match driver {
            Driver::FileSystem(path) => format!("filesystem: {{rootdirectory: '{}'}}", path.display()),
            Driver::S3(s3) => format!(
                "s3: {{region: {REGION}, regionendpoint: '{}', bucket: {BUCKET}, accesskey: {ACCESS_KEY}, \
                 secretkey: {SECRET_KEY}, forcepathstyle: true, secure: false, rootdirectory: ''}}",
                s3.endpoint
            ),
        };
        let config = format!(
            "version: 0.1\nstorage:\n  {storage}\n  delete: {{enabled: true}}\n  redirect: {{disable: true}}\n{more}\
             http: {{addr: '{address}'}}\nlog: {{level: warn}}\n"
        );
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config)?;
        let mut command = Command::new(Tool::Registry.path()?);
        command.arg("serve").arg(&file).env("OTEL_TRACES_EXPORTER", "none");
        let mut process = Process::start("distribution", &mut command, &folder.path().join("log"))?;
        let registry = Registry::new(&format!("http://{address}"));
        process.until_ready(START, || registry.answers()).await?;
        Ok(Distribution { registry, process, folder })
    }

    /// Runs garbage collection, which removes what no manifest references. No push may run
    /// meanwhile (Distribution's documentation, "Garbage collection").
    ///
    /// # Errors
    /// If it fails.
    pub async fn collect(&self) -> Result<String> {
        let mut command = tokio::process::Command::new(Tool::Registry.path()?);
        command.arg("garbage-collect").arg(self.folder.path().join("config.yml")).env("OTEL_TRACES_EXPORTER", "none");
        commands::run(&mut command).await
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}
