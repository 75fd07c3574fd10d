//! Runs podman with a home folder of its own.

use crate::{commands, tools};
use anyhow::{Context, Result};
use std::path::Path;
use tempfile::TempDir;
use tokio::process::Command;

/// podman of a user without images.
pub struct Podman {
    /// Images and state, not shared with any other podman.
    home: TempDir,
    /// How the registry is reached.
    tls: String,
}

impl Podman {
    /// For a registry without TLS.
    ///
    /// # Errors
    /// If its folder cannot be created.
    pub fn new() -> Result<Podman> {
        Ok(Podman { home: TempDir::new()?, tls: "--tls-verify=false".to_owned() })
    }

    /// For a registry with TLS, whose certificate an authority in this folder signed (`ca.crt`).
    ///
    /// # Errors
    /// If its folder cannot be created.
    pub fn over_tls(authorities: &Path) -> Result<Podman> {
        Ok(Podman { home: TempDir::new()?, tls: format!("--cert-dir={}", authorities.display()) })
    }

    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(tools::system("podman")?);
        let home = self.home.path();
        // vfs needs no kernel feature that a container may lack.
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
        command.arg("--root").arg(home.join("root")).arg("--runroot").arg(home.join("run")).args(arguments);
        commands::run(&mut command).await.map(|said| said.trim().to_owned())
    }

    /// Pushes an image of a layout. Returns its id and the digest of the manifest that podman
    /// created.
    ///
    /// # Errors
    /// If podman fails; the message contains all of its output.
    pub async fn push(&self, layout: &Path, tag: &str, reference: &str) -> Result<(String, String)> {
        let id = self.run(&["pull", "--quiet", &format!("oci:{}:{tag}", layout.display())]).await?;
        let file = self.home.path().join("digest");
        let file = file.to_str().context("path is not valid UTF-8")?;
        let to = format!("docker://{reference}");
        self.run(&["push", "--quiet", &self.tls, "--format=oci", "--digestfile", file, &id, &to]).await?;
        // Removed, so that a pull has to download it.
        self.run(&["rmi", "--force", &id]).await?;
        Ok((id, std::fs::read_to_string(file)?))
    }

    /// Pulls an image and returns its id.
    ///
    /// # Errors
    /// If podman fails; the message contains all of its output.
    pub async fn pull(&self, reference: &str) -> Result<String> {
        self.run(&["pull", "--quiet", &self.tls, reference]).await
    }

    /// Pushes the index of a layout with everything that it lists.
    ///
    /// # Errors
    /// If podman fails; the message contains all of its output.
    pub async fn push_index(&self, layout: &Path, tag: &str, reference: &str) -> Result<()> {
        self.run(&["manifest", "create", "index"]).await?;
        self.run(&["manifest", "add", "--all", "index", &format!("oci:{}:{tag}", layout.display())]).await?;
        let to = format!("docker://{reference}");
        self.run(&["manifest", "push", "--quiet", "--all", &self.tls, "index", &to]).await.map(|_| ())
    }
}
