//! A cluster of our own: its start, its end, and the faults that only it can have.

use super::audit::Audit;
use super::kubectl::Kubectl;
use super::machine::{Lifetime, Machine};
use super::plan::Plan;
use super::s3_keys::{self, S3Request};
use super::state::{ProcessId, State, remove_unwanted};
use super::{Cluster, START, control, network, node, push_image, services, storage};
use crate::container::{self, Image};
use crate::pki::Authority;
use crate::s3::S3;
use crate::tools::{self, Tool};
use crate::wait;
use anyhow::{Context, Result};
use futures::future::{BoxFuture, FutureExt};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::api::{Api, ListParams};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio::signal::unix::{SignalKind, signal};

/// Options of a cluster.
pub struct Options {
    pub lifetime: Lifetime,
    /// Number of Kubernetes nodes, at least one; the first also runs the control plane.
    pub nodes: u8,
    /// The `cargo e2e` program, which also runs in the cluster as the volume provisioner.
    pub program: PathBuf,
}

/// A running cluster of our own.
pub struct OwnCluster {
    plan: Plan,
    folder: PathBuf,
    storage: Machine,
    nodes: Vec<Machine>,
    s3: S3,
    client: kube::Client,
    kubeconfig: PathBuf,
    audit: Audit,
}

/// Runs `body` with a cluster and removes the cluster afterwards, whatever happens: a failure, a
/// panic of another task, Ctrl-C or SIGTERM. The logs are kept after a failure. With
/// `Lifetime::Kept`, only a cluster that failed is removed.
///
/// # Errors
/// If the cluster does not start, `body` fails, or the cluster cannot be removed.
pub async fn with<T>(options: Options, body: impl AsyncFnOnce(&OwnCluster) -> Result<T>) -> Result<T> {
    remove_unwanted().await?;
    install()?;
    let (mut state, folder) = State::claim(Some(ProcessId::of(std::process::id())?))?;
    let work = async {
        let cluster = OwnCluster::start(&options, &mut state, &folder).await?;
        body(&cluster).await
    };
    let result = tokio::select! {
        result = work => result,
        error = interrupted() => Err(error),
    };
    if result.is_ok() && options.lifetime == Lifetime::Kept {
        state.owner = None;
        state.complete = true;
        state.write(&folder)?;
        return result;
    }
    if let Err(error) = &result {
        println!("the cluster's logs are kept in {}: {error}", keep_logs(&folder)?.display());
    }
    state.remove(&folder).await.and(result)
}

async fn interrupted() -> anyhow::Error {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => anyhow::anyhow!("interrupted"),
        _ = terminate.recv() => anyhow::anyhow!("terminated"),
    }
}

/// Installs everything that a cluster needs, so that the deadlines of its start do not include this
/// time.
fn install() -> Result<()> {
    for program in
        ["unshare", "catatonit", "containerd", "runc", "/usr/lib/cni/ptp", "etcd", "iptables", "ip", "skopeo"]
    {
        tools::system(program)?;
    }
    for tool in [
        Tool::KubeApiserver,
        Tool::KubeControllerManager,
        Tool::KubeScheduler,
        Tool::Kubelet,
        Tool::KubeProxy,
        Tool::Kubectl,
        Tool::Coredns,
        Tool::MetricsServer,
        Tool::Versitygw,
    ] {
        tool.path()?;
    }
    crate::node_binary::Variant::Release.path().map(drop)
}

/// Moves the logs of a failed cluster to a folder that its removal does not delete.
fn keep_logs(folder: &Path) -> Result<PathBuf> {
    let kept = State::home()?.join("failed");
    match std::fs::remove_dir_all(&kept) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => std::fs::create_dir_all(&kept)?,
    }
    for machine in std::fs::read_dir(folder)? {
        let machine = machine?;
        let log = machine.path().join("log");
        if log.is_dir() {
            std::fs::rename(log, kept.join(machine.file_name()))?;
        }
    }
    Ok(kept)
}

impl OwnCluster {
    async fn start(options: &Options, state: &mut State, folder: &Path) -> Result<OwnCluster> {
        let start = Instant::now();
        let plan = state.plan();
        let authority = Authority::new(&folder.join("pki"))?;
        let mut machines = Vec::new();
        for name in std::iter::once("storage".to_owned()).chain((1..=options.nodes).map(node::name)) {
            let machine = Machine::start(&name, &folder.join(&name), options.lifetime).await?;
            state.machines.push(machine.init());
            state.write(folder)?;
            machines.push(machine);
        }
        let storage = machines.remove(0);
        let nodes = machines;
        let first = nodes.first().context("a cluster needs at least one Kubernetes node")?;
        network::connect(plan, &storage, &nodes).await?;
        let (s3, control) =
            tokio::try_join!(storage::start(&storage, plan), control::start(first, plan, folder, &authority))?;
        println!("control plane ready after {:.1?}", start.elapsed());
        let cluster = OwnCluster {
            plan,
            folder: folder.to_owned(),
            storage,
            nodes,
            s3,
            client: control.client.clone(),
            kubeconfig: control.kubeconfig.clone(),
            audit: Audit::new(&control.audit_log),
        };
        let (authority, server) = (&authority, control.server.as_str());
        let kubelets = cluster.nodes.iter().zip(1..).map(|(machine, number)| async move {
            node::Setup { machine, plan, number, folder, authority, server }.start().await
        });
        tokio::try_join!(
            futures::future::try_join_all(kubelets),
            services::start(&cluster.nodes[0], plan, folder, authority, &control, &options.program),
            async { cluster.load_image(&container::pause()?, "pause:1").await },
            async { cluster.apply(&services::manifests(plan).to_string()).await },
        )?;
        cluster.until_nodes_are_ready().await?;
        println!("{} Kubernetes nodes ready after {:.1?}", cluster.nodes.len(), start.elapsed());
        Ok(cluster)
    }

    /// The API server's audit log.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The names of the Kubernetes nodes; the first also runs the control plane.
    pub fn nodes(&self) -> Vec<&str> {
        self.nodes.iter().map(Machine::name).collect()
    }

    /// Host and port of the registry from which the cluster pulls images.
    pub fn images(&self) -> String {
        storage::registry(self.plan)
    }

    /// The address of the host for Kubernetes nodes and pods.
    pub fn host(&self) -> Ipv4Addr {
        self.plan.host()
    }

    /// Drops every packet to the S3 server, of existing and new connections.
    ///
    /// # Errors
    /// If iptables is not available.
    pub async fn cut_s3(&self) -> Result<()> {
        storage::cut(&self.storage).await
    }

    /// Reverts `cut_s3`.
    ///
    /// # Errors
    /// If the S3 server was not cut off.
    pub async fn restore_s3(&self) -> Result<()> {
        storage::restore(&self.storage).await
    }

    /// Sets the pairs of access key and secret key that the S3 server accepts in addition to the
    /// default pair, from the next request on.
    ///
    /// # Errors
    /// If the accounts file of the server cannot be written.
    pub fn accept_s3_keys(&self, keys: &[(&str, &str)]) -> Result<()> {
        s3_keys::accept(&self.storage, keys)
    }

    /// The requests to the S3 server for keys with the prefix.
    ///
    /// # Errors
    /// If the log does not exist.
    pub fn s3_requests(&self, prefix: &str) -> Result<Vec<S3Request>> {
        s3_keys::requests(&self.storage, prefix)
    }

    /// Lets every Kubernetes node pull from a registry without TLS. `name` is the host (and port)
    /// in image names, of any form; `address` is the host and port at which the registry listens.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn trust(&self, name: &str, address: &str) -> Result<()> {
        self.nodes.iter().try_for_each(|node| node::trust(node, name, &format!("http://{address}")))
    }
}

impl OwnCluster {
    async fn until_nodes_are_ready(&self) -> Result<()> {
        let nodes = Api::<Node>::all(self.client().clone());
        let wanted: Vec<_> = (1..).map(node::name).take(self.nodes.len()).collect();
        wait::until(&format!("{} are ready", wanted.join(", ")), START, || async {
            let Ok(list) = nodes.list(&ListParams::default()).await else { return false };
            let ready = list.iter().filter(|node| is_ready(node)).filter_map(|node| node.metadata.name.as_ref());
            let ready: Vec<_> = ready.collect();
            wanted.iter().all(|name| ready.contains(&name))
        })
        .await?;
        // No pod is admitted before this service account exists.
        let accounts = Api::<ServiceAccount>::default_namespaced(self.client().clone());
        wait::until("the default service account exists", START, || async { accounts.get("default").await.is_ok() })
            .await
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}

impl Cluster for OwnCluster {
    fn client(&self) -> &kube::Client {
        &self.client
    }

    fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    fn folder(&self) -> &Path {
        &self.folder
    }

    fn s3(&self) -> &S3 {
        &self.s3
    }

    fn load_image<'a>(&'a self, image: &'a Image, name: &'a str) -> BoxFuture<'a, Result<String>> {
        push_image(image, format!("{}/{name}", self.images())).boxed()
    }

    fn own(&self) -> Option<&OwnCluster> {
        Some(self)
    }
}
