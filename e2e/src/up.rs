//! `cargo e2e up`, `demo` and `down`: a cluster for manual use.

use crate::cluster::{self, Cluster, Kubectl, Lifetime, Options, OwnCluster, State};
use crate::s3;
use crate::scenarios::{self, REGISTRY};
use crate::tools::Tool;
use anyhow::Result;
use std::time::Instant;

/// Starts a cluster with everything that `RegistryCluster`s need, and keeps it running.
///
/// # Errors
/// If the cluster cannot be started.
pub async fn up() -> Result<()> {
    start(deploy).await
}

/// Starts a cluster that has nothing but Kubernetes, an S3 server and a registry for images, and
/// prints how to run scenarios on it as on an existing cluster ([`cluster::ExternalCluster`]).
///
/// # Errors
/// If the cluster cannot be started.
pub async fn empty() -> Result<()> {
    start(async |cluster| {
        // Scenarios create this namespace for the S3 server that the variable names.
        cluster.kubectl(["delete", "namespace", "storage"]).await?;
        println!("on it        {} cargo e2e test", cluster::variables(cluster).join(" "));
        Ok(())
    })
    .await
}

/// Runs [`up`], then pushes an image and runs it.
///
/// # Errors
/// If a step fails.
pub async fn demo() -> Result<()> {
    start(async |cluster| {
        deploy(cluster).await?;
        scenarios::show(cluster).await
    })
    .await
}

async fn deploy(cluster: &OwnCluster) -> Result<()> {
    scenarios::deploy(cluster).await?;
    println!("registry     http://{}", cluster.service(REGISTRY.namespace, REGISTRY.name).await?);
    Ok(())
}

async fn start(install: impl AsyncFnOnce(&OwnCluster) -> Result<()>) -> Result<()> {
    let begin = Instant::now();
    let running = State::all()?.into_iter().find(|(state, _)| state.owner.is_none() && state.is_wanted());
    if let Some((_, folder)) = running {
        println!("a cluster is already running; `cargo e2e down` stops it");
        println!("kubeconfig  {}", folder.join("kubeconfig").display());
        return Ok(());
    }
    let options = Options { lifetime: Lifetime::Kept, nodes: 2, program: std::env::current_exe()? };
    cluster::with(options, async |cluster| {
        install(cluster).await?;
        println!("up after     {:.0?}", begin.elapsed());
        println!("kubeconfig   {}", cluster.kubeconfig().display());
        println!("S3           {}, bucket {}", cluster.s3().endpoint, s3::BUCKET);
        let kubectl = Tool::Kubectl.path()?;
        println!("inspect      {} --kubeconfig {} get pods -A", kubectl.display(), cluster.kubeconfig().display());
        println!("stop         cargo e2e down");
        Ok(())
    })
    .await
}

/// Stops and removes every cluster that `up` or `demo` started, and the remains of clusters whose
/// process was killed.
///
/// # Errors
/// If something cannot be removed.
pub async fn down() -> Result<()> {
    let start = Instant::now();
    for (state, folder) in State::all()? {
        if state.owner.is_none_or(|owner| !owner.is_alive()) {
            state.remove(&folder).await?;
            println!("removed cluster {} ({:.1?})", state.index, start.elapsed());
        }
    }
    Ok(())
}
