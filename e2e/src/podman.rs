//! podman, with a home of its own, for a registry without TLS.

use crate::{commands, tools};
use anyhow::{Context, Result};
use std::path::Path;
use tempfile::TempDir;
use tokio::process::Command;

/// podman as a user has it, who has no images yet.
pub struct Podman {
    /// Its images and its state, which are nobody else's.
    home: TempDir,
}

impl Podman {
    /// # Errors
    /// When there is no folder for it.
    pub fn new() -> Result<Podman> {
        Ok(Podman { home: TempDir::new()? })
    }

    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(tools::system("podman")?);
        let home = self.home.path();
        // vfs needs nothing of the kernel that a container may lack.
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
        command.arg("--root").arg(home.join("root")).arg("--runroot").arg(home.join("run")).args(arguments);
        commands::run(&mut command).await.map(|said| said.trim().to_owned())
    }

    /// Pushes an image of a layout: its id, and the digest of the manifest that podman made.
    ///
    /// # Errors
    /// When podman fails; the message has all that it wrote.
    pub async fn push(&self, layout: &Path, tag: &str, reference: &str) -> Result<(String, String)> {
        let id = self.run(&["pull", "--quiet", &format!("oci:{}:{tag}", layout.display())]).await?;
        let file = self.home.path().join("digest");
        let file = file.to_str().context("a path of text")?;
        let to = format!("docker://{reference}");
        self.run(&["push", "--quiet", "--tls-verify=false", "--format=oci", "--digestfile", file, &id, &to]).await?;
        // Forgotten, so that a pull has to get it.
        self.run(&["rmi", "--force", &id]).await?;
        Ok((id, std::fs::read_to_string(file)?))
    }

    /// Pulls an image and returns its id.
    ///
    /// # Errors
    /// When podman fails; the message has all that it wrote.
    pub async fn pull(&self, reference: &str) -> Result<String> {
        self.run(&["pull", "--quiet", "--tls-verify=false", reference]).await
    }

    /// Pushes the index of a layout, and all that it lists.
    ///
    /// # Errors
    /// When podman fails; the message has all that it wrote.
    pub async fn push_index(&self, layout: &Path, tag: &str, reference: &str) -> Result<()> {
        self.run(&["manifest", "create", "index"]).await?;
        self.run(&["manifest", "add", "--all", "index", &format!("oci:{}:{tag}", layout.display())]).await?;
        let to = format!("docker://{reference}");
        self.run(&["manifest", "push", "--quiet", "--all", "--tls-verify=false", "index", &to]).await.map(|_| ())
    }
}
