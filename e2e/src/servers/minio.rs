use super::{OpenId, START, free_port};
use crate::pki::Authority;
use crate::process::Process;
use crate::s3::{ACCESS_KEY, S3, SECRET_KEY};
use crate::tools::Tool;
use anyhow::Result;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// MinIO over a folder, with one bucket.
pub struct Minio {
    pub s3: S3,
    _process: Process,
    _folder: TempDir,
}

impl Minio {
    /// The role of clients with a token of its OpenID provider. Its last part is the SHA-1 of the
    /// client's name, [`OpenId::AUDIENCE`].
    pub const ROLE: &str = "arn:minio:iam:::role/85hlBPr79r49F7l7USkEjQcHS0M";

    /// # Errors
    /// If it does not start.
    pub async fn start() -> Result<Minio> {
        Minio::run(|_, _| Ok(()), |address| Ok(S3::new(&format!("http://{address}")))).await
    }

    /// MinIO over HTTPS only, with a certificate of this authority. Its security token service
    /// issues keys for every bucket to clients with a token of this provider.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn with_roles(authority: &Authority, provider: &OpenId) -> Result<Minio> {
        let identity = authority.issue("minio", "tests", &["127.0.0.1".to_owned()])?;
        let options = |command: &mut Command, folder: &Path| {
            // MinIO requires these file names.
            let certificates = folder.join("certs");
            std::fs::create_dir(&certificates)?;
            std::fs::copy(&identity.certificate, certificates.join("public.crt"))?;
            std::fs::copy(&identity.key, certificates.join("private.key"))?;
            command.arg("--certs-dir").arg(&certificates);
            command.env("MINIO_IDENTITY_OPENID_CONFIG_URL", provider.config_url());
            command.env("MINIO_IDENTITY_OPENID_CLIENT_ID", OpenId::AUDIENCE);
            command.env("MINIO_IDENTITY_OPENID_ROLE_POLICY", "readwrite");
            Ok(())
        };
        Minio::run(options, |address| S3::trusting(&format!("https://{address}"), &authority.certificate())).await
    }

    async fn run(
        options: impl FnOnce(&mut Command, &Path) -> Result<()>,
        s3: impl FnOnce(&str) -> Result<S3>,
    ) -> Result<Minio> {
        let folder = TempDir::new()?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut command = Command::new(Tool::Minio.path()?);
        command.args(["server", "--address", &address, "--console-address", "127.0.0.1:0"]);
        options(&mut command, folder.path())?;
        command.arg(folder.path().join("data")).current_dir(&folder).env("HOME", folder.path());
        command.envs([("MINIO_ROOT_USER", ACCESS_KEY), ("MINIO_ROOT_PASSWORD", SECRET_KEY)]);
        // Otherwise it checks for newer releases, which needs the internet.
        command.env("MINIO_UPDATE", "off");
        let mut process = Process::start("minio", &mut command, &folder.path().join("log"))?;
        let s3 = s3(&address)?;
        process.until_ready(START, || s3.answers()).await?;
        s3.make_bucket().await?;
        Ok(Minio { s3, _process: process, _folder: folder })
    }
}
