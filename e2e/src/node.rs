//! A registry node as a process.

use crate::client::Registry;
use crate::node_binary::Variant;
use crate::process::Process;
use crate::usage;
use anyhow::{Context, Result, bail};
use entrepot_config as config;
use entrepot_config::{BucketConfig, NodeConfig};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;
use tempfile::TempDir;

/// Time limit for a node to become ready. It normally takes far less, but not on a loaded machine.
const START: Duration = Duration::from_secs(30);

/// How to run a node.
#[derive(Clone)]
pub struct Plan {
    pub config: NodeConfig,
    pub variant: Variant,
    pub environment: Vec<(String, String)>,
}

impl Plan {
    /// A release node over that bucket, on any free port, with defaults for everything else.
    pub fn over(bucket: config::Bucket) -> Plan {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let http = config::Http { listen: any, ..config::Http::default() };
        let operations = config::Operations { listen: any };
        let config = NodeConfig { bucket, http, operations, ..NodeConfig::default() };
        Plan { config, variant: Variant::Release, environment: Vec::new() }
    }

    /// A node with a folder as its bucket.
    pub fn over_folder(path: &Path) -> Plan {
        Plan::over(config::Bucket::of(BucketConfig::FileSystem(config::FileSystem { path: path.to_owned() })))
    }

    /// The plan with a change of the configuration.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut NodeConfig)) -> Plan {
        change(&mut self.config);
        self
    }

    /// A node that crashes at a crash point.
    #[must_use]
    pub fn crashing_at(mut self, point: &str) -> Plan {
        self.variant = Variant::CrashPoints;
        self.environment.push(("ENTREPOT_CRASH_AT".into(), point.into()));
        self
    }

    /// Starts the node with a new store.
    ///
    /// # Errors
    /// If it is not ready in time.
    pub async fn start(self) -> Result<Node> {
        let folder = TempDir::new()?;
        let store = folder.path().join("store");
        self.start_in(folder, &store).await
    }

    /// Starts the node with its store at a path that may be on another file system.
    ///
    /// # Errors
    /// If it is not ready in time.
    pub async fn start_at(self, store: &Path) -> Result<Node> {
        self.start_in(TempDir::new()?, store).await
    }

    async fn start_in(mut self, folder: TempDir, store: &Path) -> Result<Node> {
        self.config.store.path = store.to_owned();
        let file = folder.path().join("node.yaml");
        let mut node = Node {
            process: spawn(&self, &file, &folder)?,
            plan: self,
            folder,
            registry: Registry::new("http://127.0.0.1:1"),
            operations: Registry::new("http://127.0.0.1:1"),
            starts: 1,
        };
        node.until_ready().await?;
        Ok(node)
    }
}

fn spawn(plan: &Plan, file: &Path, folder: &TempDir) -> Result<Process> {
    fs::write(file, plan.config.to_yaml()?)?;
    let mut command = Command::new(plan.variant.path()?);
    command.arg("--config").arg(file).current_dir(folder);
    command.envs(plan.environment.iter().map(|(name, value)| (name, value)));
    Process::start(&format!("node {}", plan.config.node.name), &mut command, &folder.path().join("log"))
}

/// A running node.
pub struct Node {
    pub registry: Registry,
    operations: Registry,
    pub plan: Plan,
    process: Process,
    folder: TempDir,
    /// Number of starts; the node prints its addresses at each of them.
    starts: usize,
}

impl Node {
    async fn until_ready(&mut self) -> Result<()> {
        let log = self.folder.path().join("log");
        let starts = self.starts;
        let addresses = || {
            let text = fs::read_to_string(&log).unwrap_or_default();
            Some((announced(&text, "registry", starts)?, announced(&text, "operations", starts)?))
        };
        self.process.until_ready(START, || async { addresses().is_some() }).await?;
        let (registry, operations) = addresses().context("the node did not print its addresses")?;
        self.registry = Registry::new(&registry);
        self.operations = Registry::new(&operations);
        let operations = self.operations.clone();
        let ready = || async { operations.get("/readyz").await.is_ok_and(|reply| reply.status == 200) };
        self.process.until_ready(START, ready).await
    }

    /// Starts the node again after it has exited, with the store that it left.
    ///
    /// # Errors
    /// If it is not ready in time.
    pub async fn start_again(&mut self) -> Result<()> {
        if self.process.ended()?.is_none() {
            bail!("the node is still running");
        }
        self.process = spawn(&self.plan, &self.folder.path().join("node.yaml"), &self.folder)?;
        self.starts += 1;
        self.until_ready().await
    }

    /// Changes the configuration file of the running node, in one step.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn reconfigure(&mut self, change: impl FnOnce(&mut NodeConfig)) -> Result<()> {
        change(&mut self.plan.config);
        let next = self.folder.path().join("node.yaml.next");
        fs::write(&next, self.plan.config.to_yaml()?)?;
        Ok(fs::rename(next, self.folder.path().join("node.yaml"))?)
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The log of all runs so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// # Errors
    /// If the node has already exited.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits until the node exits by itself.
    ///
    /// # Errors
    /// If it does not exit in time.
    pub async fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.process.wait(deadline).await
    }

    /// Kills the node with SIGKILL.
    ///
    /// # Errors
    /// If the system does not report the exit.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.process.kill()
    }

    /// Sends SIGTERM and waits for the node to exit.
    ///
    /// # Errors
    /// If it does not exit in time.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(Duration::from_secs(60)).await
    }

    /// Whether the node has exited.
    ///
    /// # Errors
    /// If the system does not report it.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.process.ended()?.is_some())
    }

    pub fn store(&self) -> PathBuf {
        self.plan.config.store.path.clone()
    }

    /// The operations listener, for probes and metrics.
    pub fn operations(&self) -> &Registry {
        &self.operations
    }

    /// # Errors
    /// If the node does not respond.
    pub async fn metrics(&self) -> Result<Metrics> {
        let reply = self.operations.get("/metrics").await?.expect(200)?;
        Ok(Metrics::parse(std::str::from_utf8(&reply.body)?))
    }

    /// Memory that the process uses now, in bytes.
    ///
    /// # Errors
    /// If it has exited.
    pub fn memory(&self) -> Result<u64> {
        usage::memory(self.id())
    }

    /// The most memory that the process has used since [`Node::forget_peak`], in bytes.
    ///
    /// # Errors
    /// If it has exited.
    pub fn peak_memory(&self) -> Result<u64> {
        usage::peak_memory(self.id())
    }

    /// # Errors
    /// If it has exited.
    pub fn forget_peak(&self) -> Result<()> {
        usage::forget_peak(self.id())
    }
}

/// The URL after `word` that the node printed at its `nth` start.
fn announced(log: &str, word: &str, nth: usize) -> Option<String> {
    let lines = log.lines().filter_map(|line| line.trim_start().strip_prefix(word));
    let urls = lines.map(str::trim).filter(|rest| rest.starts_with("http://") || rest.starts_with("https://"));
    let host = |url: &str| {
        let (scheme, rest) = url.split_once("://")?;
        Some(format!("{scheme}://{}", rest.split('/').next()?))
    };
    urls.filter_map(|rest| host(rest.split_whitespace().next()?)).nth(nth - 1)
}

/// The metrics of a node at one moment.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Values by name and labels, as in the text format.
    values: BTreeMap<String, f64>,
}

impl Metrics {
    fn parse(text: &str) -> Metrics {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let values = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Metrics { values: values.collect() }
    }

    /// The sum of all series of a metric that have every one of `labels` (such as
    /// `operation="get"`). The name is without the prefix `entrepot_`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let name = format!("entrepot_{name}");
        let series = self.values.iter().filter(|(series, _)| {
            let (own, rest) = series.split_once('{').unwrap_or((series, ""));
            own == name && labels.iter().all(|label| rest.contains(label))
        });
        series.map(|(_, value)| value).sum()
    }

    /// Requests to the bucket by operation, without operations that have none.
    pub fn bucket_requests(&self) -> BTreeMap<String, u64> {
        let mut requests = BTreeMap::new();
        for (series, value) in &self.values {
            let Some(labels) = series.strip_prefix("entrepot_bucket_requests_total{") else { continue };
            let operation = labels.split("operation=\"").nth(1).and_then(|rest| rest.split('"').next());
            if let Some(operation) = operation
                && *value > 0.0
            {
                *requests.entry(operation.to_owned()).or_default() += *value as u64;
            }
        }
        requests
    }

    pub fn series(&self) -> usize {
        self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_each_start_is_found() {
        let log =
            "registry    http://127.0.0.1:1\noperations  http://127.0.0.1:2/metrics\nregistry http://127.0.0.1:3 x\n";
        assert_eq!(announced(log, "registry", 1).as_deref(), Some("http://127.0.0.1:1"));
        assert_eq!(announced(log, "registry", 2).as_deref(), Some("http://127.0.0.1:3"));
        assert_eq!(announced(log, "operations", 1).as_deref(), Some("http://127.0.0.1:2"));
        assert_eq!(announced(log, "operations", 2), None);
    }

    #[test]
    fn metrics_are_summed_over_the_labels_that_are_not_given() {
        let text = "# HELP x\nentrepot_bucket_requests_total{operation=\"get\",result=\"ok\"} 3\n\
                    entrepot_bucket_requests_total{operation=\"get\",result=\"timeout\"} 2\n\
                    entrepot_bucket_requests_total{operation=\"put\",result=\"ok\"} 0\nentrepot_pending_blobs 1\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.sum("bucket_requests_total", &["operation=\"get\""]), 5.0);
        assert_eq!(metrics.sum("pending_blobs", &[]), 1.0);
        assert_eq!(metrics.bucket_requests(), BTreeMap::from([("get".into(), 5)]));
    }
}
