use super::{START, free_port};
use crate::process::Process;
use crate::s3::{ACCESS_KEY, S3, SECRET_KEY};
use crate::tools::Tool;
use anyhow::Result;
use std::process::Command;
use tempfile::TempDir;

/// MinIO on one folder, with one bucket.
pub struct Minio {
    pub s3: S3,
    _process: Process,
    _folder: TempDir,
}

impl Minio {
    /// # Errors
    /// When it does not start.
    pub async fn start() -> Result<Minio> {
        let folder = TempDir::new()?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut command = Command::new(Tool::Minio.path()?);
        command.args(["server", "--address", &address, "--console-address", "127.0.0.1:0"]);
        command.arg(folder.path().join("data")).current_dir(&folder).env("HOME", folder.path());
        command.envs([("MINIO_ROOT_USER", ACCESS_KEY), ("MINIO_ROOT_PASSWORD", SECRET_KEY)]);
        // It asks for newer releases otherwise, which is no business of a test.
        command.env("MINIO_UPDATE", "off");
        let mut process = Process::start("minio", &mut command, &folder.path().join("log"))?;
        let s3 = S3::new(&format!("http://{address}"));
        process.until_ready(START, || s3.answers()).await?;
        s3.make_bucket().await?;
        Ok(Minio { s3, _process: process, _folder: folder })
    }
}
