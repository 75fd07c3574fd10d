use super::{START, free_port};
use crate::process::Process;
use crate::s3::{ACCESS_KEY, REGION, S3, SECRET_KEY};
use crate::tools::Tool;
use anyhow::Result;
use std::process::Command;
use tempfile::TempDir;

/// Versity's S3 gateway over a folder, with one bucket.
pub struct Versitygw {
    pub s3: S3,
    process: Process,
    _folder: TempDir,
}

impl Versitygw {
    /// # Errors
    /// When it does not start.
    pub async fn start() -> Result<Versitygw> {
        let folder = TempDir::new()?;
        let root = folder.path().join("data");
        std::fs::create_dir(&root)?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut command = Command::new(Tool::Versitygw.path()?);
        // Without --keep-alive it closes the connection after each request.
        command.args(["--keep-alive", "--quiet", "--port", &address, "--region", REGION]);
        command.args(["--access", ACCESS_KEY, "--secret", SECRET_KEY, "posix"]).arg(&root);
        let mut process = Process::start("versitygw", &mut command, &folder.path().join("log"))?;
        let s3 = S3::new(&format!("http://{address}"));
        process.until_ready(START, || s3.answers()).await?;
        s3.make_bucket().await?;
        Ok(Versitygw { s3, process, _folder: folder })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}
