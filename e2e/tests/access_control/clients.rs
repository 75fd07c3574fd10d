//! The command lines of the clients for a registry with access control and without TLS. Each client
//! keeps its credentials in a folder of its own.

use anyhow::{Context, Result};
use entrepot_e2e::commands;
use entrepot_e2e::tools::{self, Tool};
use std::fs;
use std::path::Path;
use tempfile::TempDir;
use tokio::process::Command;

/// Who a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// It has no credentials.
    Nobody,
    /// It has the password of this user.
    User(&'static str),
    /// It has a wrong password of a user that exists.
    WrongPassword,
}

impl Who {
    /// The user name and the password.
    pub fn credentials(self) -> Option<(&'static str, String)> {
        match self {
            Who::Nobody => None,
            Who::User(name) => Some((name, format!("{name}-password"))),
            Who::WrongPassword => Some(("alice", "wrong-password".to_owned())),
        }
    }
}

/// A client program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Crane,
    Oras,
    Skopeo,
    Podman,
    Regctl,
    Helm,
    Docker,
    Containerd,
}

impl Program {
    pub const ALL: [Program; 8] = [
        Program::Crane,
        Program::Oras,
        Program::Skopeo,
        Program::Podman,
        Program::Regctl,
        Program::Helm,
        Program::Docker,
        Program::Containerd,
    ];
}

/// The credentials of podman and skopeo.
const AUTH_FILE: &str = "auth.json";
/// The credentials of most other programs.
const DOCKER_FILE: &str = "config.json";

/// A client with its credentials.
pub struct Client {
    program: Program,
    who: Who,
    host: String,
    home: TempDir,
    /// Bytes per second and layer at which it pushes, where the program can be told.
    rate: Option<u64>,
}

impl Client {
    /// A client that is not logged in. Programs that keep no credentials get them with each command.
    pub fn new(program: Program, who: Who, host: &str) -> Result<Client> {
        let home = TempDir::new()?;
        // Podman requires the file that `REGISTRY_AUTH_FILE` names.
        fs::write(home.path().join(AUTH_FILE), "{}")?;
        Ok(Client { program, who, host: host.to_owned(), home, rate: None })
    }

    /// The same client, with the credentials that another one has stored in Docker's configuration
    /// file. Docker's command line reads them from there, and sends them to the engine.
    pub fn with_config_of(self, other: &Client) -> Result<Client> {
        for name in [AUTH_FILE, DOCKER_FILE] {
            fs::copy(other.home.path().join(DOCKER_FILE), self.home.path().join(name))?;
        }
        Ok(self)
    }

    /// The same client, which pushes each layer at this rate in bytes per second. Only Docker and
    /// containerd can.
    pub fn at_rate(mut self, rate: u64) -> Client {
        self.rate = Some(rate);
        self
    }

    /// A client that is logged in, if it has credentials and its program keeps them.
    pub async fn logged_in(program: Program, who: Who, host: &str) -> Result<Client> {
        let client = Client::new(program, who, host)?;
        if who != Who::Nobody {
            client.login().await?;
        }
        Ok(client)
    }

    fn file(&self, name: &str) -> Result<String> {
        Ok(self.home.path().join(name).to_str().context("the path is not UTF-8")?.to_owned())
    }

    fn command(&self) -> Result<Command> {
        let program = match self.program {
            Program::Crane => Tool::Crane.path()?,
            Program::Oras => Tool::Oras.path()?,
            Program::Skopeo => tools::system("skopeo")?,
            Program::Podman => tools::system("podman")?,
            Program::Regctl => Tool::Regctl.path()?,
            Program::Helm => Tool::Helm.path()?,
            Program::Docker => Tool::DockerPush.path()?,
            Program::Containerd => Tool::ContainerdClient.path()?,
        };
        let mut command = Command::new(program);
        let home = self.home.path();
        command.env("HOME", home).env("DOCKER_CONFIG", home).env("REGCTL_CONFIG", home.join("regctl.json"));
        command.env("REGISTRY_AUTH_FILE", home.join(AUTH_FILE)).env("HELM_REGISTRY_CONFIG", home.join("helm.json"));
        command.env("XDG_RUNTIME_DIR", home);
        match self.program {
            Program::Regctl => drop(command.arg("--host").arg(format!("reg={},tls=disabled", self.host))),
            Program::Podman => {
                command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
                command.arg("--root").arg(home.join("root")).arg("--runroot").arg(home.join("run"));
            }
            Program::Docker | Program::Containerd => {
                if let Some((user, password)) = self.who.credentials() {
                    command.env("REGISTRY_USER", user).env("REGISTRY_PASSWORD", password);
                }
                if let Some(rate) = self.rate {
                    command.env("RATE", rate.to_string());
                }
            }
            _ => {}
        }
        Ok(command)
    }

    async fn run(&self, arguments: &[&str]) -> Result<String> {
        commands::run(self.command()?.args(arguments)).await
    }

    /// Logs in. containerd has no login.
    pub async fn login(&self) -> Result<()> {
        let Some((user, password)) = self.who.credentials() else { return Ok(()) };
        let (host, password) = (self.host.as_str(), password.as_str());
        let given = ["-u", user, "-p", password];
        let arguments = match self.program {
            Program::Crane => [&["auth", "login", host][..], &given].concat(),
            Program::Oras => [&["login", "--plain-http", host][..], &given].concat(),
            Program::Skopeo | Program::Podman => [&["login", "--tls-verify=false", host][..], &given].concat(),
            Program::Regctl => [&["registry", "login", host][..], &given].concat(),
            Program::Helm => [&["registry", "login", "--plain-http", host][..], &given].concat(),
            Program::Docker => vec!["login", host],
            Program::Containerd => return Ok(()),
        };
        self.run(&arguments).await.map(drop)
    }

    /// Pushes the image `v1` of a layout; helm pushes a chart that it makes.
    pub async fn push(&self, layout: &Path, repository: &str) -> Result<()> {
        let reference = format!("{}/{repository}:v1", self.host);
        let (from, to) = (format!("oci:{}:v1", layout.display()), format!("docker://{reference}"));
        let layout = layout.to_str().context("the path is not UTF-8")?;
        let done = match self.program {
            Program::Crane => self.run(&["push", "--insecure", layout, &reference]).await,
            Program::Oras => {
                let from = format!("{layout}:v1");
                self.run(&["cp", "--from-oci-layout", &from, "--to-plain-http", &reference]).await
            }
            Program::Skopeo => self.run(&["copy", "--quiet", "--dest-tls-verify=false", &from, &to]).await,
            Program::Podman => {
                let id = self.run(&["pull", "--quiet", &from]).await?;
                self.run(&["push", "--quiet", "--tls-verify=false", id.trim(), &to]).await
            }
            Program::Regctl => self.run(&["image", "copy", &format!("ocidir://{layout}:v1"), &reference]).await,
            Program::Helm => {
                let package = self.chart(repository).await?;
                let parent = repository.rsplit_once('/').map_or("", |(parent, _)| parent);
                self.run(&["push", "--plain-http", &package, &format!("oci://{}/{parent}", self.host)]).await
            }
            Program::Docker => self.run(&[layout, "v1", &reference]).await,
            Program::Containerd => self.run(&["push", layout, "v1", &reference]).await,
        };
        done.map(drop)
    }

    /// A package of a chart with the name and the version that helm derives the reference from.
    async fn chart(&self, repository: &str) -> Result<String> {
        let name = repository.rsplit('/').next().unwrap_or(repository);
        let folder = self.home.path().join("chart").join(name);
        fs::create_dir_all(folder.join("templates"))?;
        fs::write(folder.join("Chart.yaml"), format!("apiVersion: v2\nname: {name}\nversion: 0.0.1\n"))?;
        let (folder, home) = (self.file(&format!("chart/{name}"))?, self.file("")?);
        self.run(&["package", &folder, "--destination", &home]).await?;
        self.file(&format!("{name}-0.0.1.tgz"))
    }

    /// Pulls the tag that [`Client::push`] has made.
    pub async fn pull(&self, repository: &str) -> Result<()> {
        let reference = format!("{}/{repository}:v1", self.host);
        let target = TempDir::new()?;
        let folder = target.path().to_str().context("the path is not UTF-8")?;
        let done = match self.program {
            Program::Crane => self.run(&["pull", "--insecure", "--format=oci", &reference, folder]).await,
            Program::Oras => {
                let to = format!("{folder}:v1");
                self.run(&["cp", "--from-plain-http", &reference, "--to-oci-layout", &to]).await
            }
            Program::Skopeo => {
                let (from, to) = (format!("docker://{reference}"), format!("oci:{folder}:v1"));
                self.run(&["copy", "--quiet", "--src-tls-verify=false", &from, &to]).await
            }
            Program::Podman => self.run(&["pull", "--quiet", "--tls-verify=false", &reference]).await,
            Program::Regctl => self.run(&["image", "copy", &reference, &format!("ocidir://{folder}:v1")]).await,
            Program::Helm => {
                let chart = format!("oci://{}/{repository}", self.host);
                self.run(&["pull", "--plain-http", &chart, "--version", "0.0.1", "--destination", folder]).await
            }
            Program::Docker => self.run(&["pull", &reference]).await,
            Program::Containerd => self.run(&["pull", folder, "v1", &reference]).await,
        };
        done.map(drop)
    }

    /// The repositories that the client sees. `None` if its program cannot list them.
    pub async fn catalog(&self) -> Option<Result<String>> {
        match self.program {
            Program::Crane => Some(self.run(&["catalog", "--insecure", &self.host]).await),
            Program::Oras => Some(self.run(&["repo", "ls", "--plain-http", &self.host]).await),
            Program::Regctl => Some(self.run(&["repo", "ls", &self.host]).await),
            _ => None,
        }
    }

    /// Copies an image to another repository of the same registry, for which clients mount its blobs.
    /// `None` if the program cannot.
    pub async fn copy(&self, from: &str, to: &str) -> Option<Result<String>> {
        let [from, to] = [from, to].map(|repository| format!("{}/{repository}:v1", self.host));
        match self.program {
            Program::Crane => Some(self.run(&["copy", "--insecure", &from, &to]).await),
            Program::Oras => Some(self.run(&["cp", "--from-plain-http", "--to-plain-http", &from, &to]).await),
            Program::Regctl => Some(self.run(&["image", "copy", &from, &to]).await),
            Program::Skopeo => {
                let [from, to] = [from, to].map(|reference| format!("docker://{reference}"));
                let insecure = ["--src-tls-verify=false", "--dest-tls-verify=false"];
                Some(self.run(&[&["copy", "--quiet"][..], &insecure, &[&from, &to]].concat()).await)
            }
            _ => None,
        }
    }
}
