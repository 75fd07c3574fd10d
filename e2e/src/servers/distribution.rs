use super::{START, free_port};
use crate::client::Registry;
use crate::process::Process;
use crate::s3::{ACCESS_KEY, BUCKET, REGION, S3, SECRET_KEY};
use crate::tools::Tool;
use anyhow::Result;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Where a Distribution registry keeps its content.
pub enum Driver<'a> {
    FileSystem(&'a Path),
    S3(&'a S3),
}

/// The registry of CNCF Distribution v3.
pub struct Distribution {
    pub registry: Registry,
    _process: Process,
    _folder: TempDir,
}

impl Distribution {
    /// # Errors
    /// When it does not start.
    pub async fn start(driver: Driver<'_>) -> Result<Distribution> {
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
            "version: 0.1\nstorage:\n  {storage}\n  delete: {{enabled: true}}\n  redirect: {{disable: true}}\n\
             http: {{addr: '{address}'}}\nlog: {{level: warn}}\n"
        );
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config)?;
        let mut command = Command::new(Tool::Registry.path()?);
        command.arg("serve").arg(&file).env("OTEL_TRACES_EXPORTER", "none");
        let mut process = Process::start("distribution", &mut command, &folder.path().join("log"))?;
        let registry = Registry::new(&format!("http://{address}"));
        process.until_ready(START, || registry.answers()).await?;
        Ok(Distribution { registry, _process: process, _folder: folder })
    }
}
