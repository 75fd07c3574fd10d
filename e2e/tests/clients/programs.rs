//! The command lines of the clients, for a registry without TLS.

use anyhow::{Context, Result};
use entrepot_e2e::tools::{self, Tool};
use entrepot_e2e::{Registry, commands};
use std::path::Path;
use tempfile::TempDir;
use tokio::process::Command;

/// A client that copies between an OCI layout and a registry without changing a byte.
pub trait Client {
    fn name(&self) -> &'static str;
    /// Copies `tag` of a layout to `reference` (`host/name:tag`), with everything that an index
    /// lists.
    async fn push(&self, layout: &Path, tag: &str, reference: &str) -> Result<()>;
    /// Copies `reference` to a layout.
    async fn pull(&self, reference: &str, layout: &Path, tag: &str) -> Result<()>;
}

pub struct Skopeo;

impl Skopeo {
    async fn copy(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(tools::system("skopeo")?);
        // Without --preserve-digests, skopeo compresses layers while it pushes.
        command.args(["copy", "--quiet", "--all", "--preserve-digests"]).args(arguments);
        commands::run(&mut command).await.map(|_| ())
    }
}

impl Client for Skopeo {
    fn name(&self) -> &'static str {
        "skopeo"
    }

    async fn push(&self, layout: &Path, tag: &str, reference: &str) -> Result<()> {
        let (from, to) = (format!("oci:{}:{tag}", layout.display()), format!("docker://{reference}"));
        self.copy(&["--dest-tls-verify=false", &from, &to]).await
    }

    async fn pull(&self, reference: &str, layout: &Path, tag: &str) -> Result<()> {
        let (from, to) = (format!("docker://{reference}"), format!("oci:{}:{tag}", layout.display()));
        self.copy(&["--src-tls-verify=false", &from, &to]).await
    }
}

pub struct Crane;

impl Client for Crane {
    fn name(&self) -> &'static str {
        "crane"
    }

    async fn push(&self, layout: &Path, _tag: &str, reference: &str) -> Result<()> {
        let mut command = Command::new(Tool::Crane.path()?);
        commands::run(command.args(["push", "--insecure"]).arg(layout).arg(reference)).await.map(|_| ())
    }

    async fn pull(&self, reference: &str, layout: &Path, _tag: &str) -> Result<()> {
        let mut command = Command::new(Tool::Crane.path()?);
        commands::run(command.args(["pull", "--insecure", "--format=oci", reference]).arg(layout)).await.map(|_| ())
    }
}

pub struct Oras;

impl Oras {
    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(Tool::Oras.path()?);
        command.args(arguments);
        Ok(command)
    }

    /// Attaches `report.txt` in a folder to an image.
    pub async fn attach(&self, subject: &str, kind: &str, folder: &Path) -> Result<()> {
        let arguments = ["attach", "--plain-http", "--artifact-type", kind, subject, "report.txt:text/plain"];
        commands::run(self.command(&arguments)?.current_dir(folder)).await.map(|_| ())
    }

    /// The artifacts that are attached to an image, as JSON.
    pub async fn discover(&self, subject: &str) -> Result<String> {
        commands::run(&mut self.command(&["discover", "--plain-http", "--format", "json", subject])?).await
    }

    /// The content of the only layer of the artifact with this type and this image as its subject.
    pub async fn fetch(&self, registry: &Registry, repository: &str, subject: &str, kind: &str) -> Result<String> {
        let arguments = ["discover", "--plain-http", "--format", "json", "--artifact-type", kind, subject];
        let found: serde_json::Value = serde_json::from_str(&commands::run(&mut self.command(&arguments)?).await?)?;
        let entry = found["referrers"].as_array().or(found["manifests"].as_array()).and_then(|all| all.first());
        let digest = entry
            .and_then(|entry| entry["digest"].as_str())
            .with_context(|| format!("no artifact of this type in {found}"))?;
        let reference = format!("{}/{repository}@{digest}", registry.host());
        let manifest = commands::run(&mut self.command(&["manifest", "fetch", "--plain-http", &reference])?).await?;
        let manifest: serde_json::Value = serde_json::from_str(&manifest)?;
        let layer = manifest["layers"][0]["digest"].as_str().context("the artifact has no layer")?;
        let blob = format!("{}/{repository}@{layer}", registry.host());
        commands::run(&mut self.command(&["blob", "fetch", "--plain-http", "--output", "-", &blob])?).await
    }
}

impl Client for Oras {
    fn name(&self) -> &'static str {
        "oras"
    }

    async fn push(&self, layout: &Path, tag: &str, reference: &str) -> Result<()> {
        let from = format!("{}:{tag}", layout.display());
        let arguments = ["cp", "--recursive", "--from-oci-layout", &from, "--to-plain-http", reference];
        commands::run(&mut self.command(&arguments)?).await.map(|_| ())
    }

    async fn pull(&self, reference: &str, layout: &Path, tag: &str) -> Result<()> {
        let to = format!("{}:{tag}", layout.display());
        let arguments = ["cp", "--recursive", "--from-plain-http", reference, "--to-oci-layout", &to];
        commands::run(&mut self.command(&arguments)?).await.map(|_| ())
    }
}

pub struct Regctl {
    /// Its own configuration, not the user's.
    home: TempDir,
}

impl Regctl {
    pub fn new() -> Result<Regctl> {
        Ok(Regctl { home: TempDir::new()? })
    }

    fn command(&self, reference: &str, arguments: &[&str]) -> Result<Command> {
        let host = reference.split('/').next().unwrap_or(reference);
        let mut command = Command::new(Tool::Regctl.path()?);
        command.arg("--host").arg(format!("reg={host},tls=disabled")).args(arguments);
        command.env("REGCTL_CONFIG", self.home.path().join("config.json")).env("HOME", self.home.path());
        Ok(command)
    }

    /// Attaches `report.txt` in a folder to an image.
    pub async fn attach(&self, subject: &str, kind: &str, folder: &Path) -> Result<()> {
        let arguments = ["artifact", "put", "--artifact-type", kind, "--subject", subject, "--file", "report.txt"];
        commands::run(self.command(subject, &arguments)?.current_dir(folder)).await.map(|_| ())
    }

    /// The artifacts that are attached to an image, as JSON.
    pub async fn discover(&self, subject: &str) -> Result<String> {
        commands::run(&mut self.command(subject, &["artifact", "list", subject, "--format", "{{json .}}"])?).await
    }

    /// The content of the artifact with this type and this image as its subject.
    pub async fn fetch(&self, subject: &str, kind: &str) -> Result<String> {
        let arguments = ["artifact", "get", "--subject", subject, "--filter-artifact-type", kind];
        commands::run(&mut self.command(subject, &arguments)?).await
    }
}

impl Client for Regctl {
    fn name(&self) -> &'static str {
        "regctl"
    }

    async fn push(&self, layout: &Path, tag: &str, reference: &str) -> Result<()> {
        let from = format!("ocidir://{}:{tag}", layout.display());
        commands::run(&mut self.command(reference, &["image", "copy", &from, reference])?).await.map(|_| ())
    }

    async fn pull(&self, reference: &str, layout: &Path, tag: &str) -> Result<()> {
        let to = format!("ocidir://{}:{tag}", layout.display());
        commands::run(&mut self.command(reference, &["image", "copy", reference, &to])?).await.map(|_| ())
    }
}
