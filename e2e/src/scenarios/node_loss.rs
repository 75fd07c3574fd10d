//! Nodes are lost in the ways in which clusters lose them: by a drain, by SIGKILL, and with their
//! volumes. Afterwards every acknowledged image is available on every node.

use super::fixture::{Fixture, TIMEOUT};
use crate::client::{empty, streamed};
use crate::cluster::{Cluster, Kubectl, OwnCluster};
use crate::push::Image;
use crate::{Registry, wait};
use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use futures::stream;
use http::Method;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

const REGISTRY: Fixture = Fixture::named("node-loss", "node-loss");
/// Selects the registry's pods, for `kubectl drain`, which looks for them in every namespace.
const PODS: &str = "--pod-selector=app.kubernetes.io/instance=node-loss";

/// Acknowledged images by their tags.
type Pushed = Vec<(String, Image)>;

/// A drain, a kill during a push, and the loss of a volume, one after the other.
pub async fn lost_nodes_lose_no_image(cluster: &OwnCluster) -> Result<()> {
    // On different Kubernetes nodes, so that a drain evicts one of them.
    let affinity = json!({"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {"app.kubernetes.io/instance": REGISTRY.name}},
        }],
    }});
    let spec = json!({"replicas": 2, "scheduling": {"affinity": affinity}});
    let registry = REGISTRY.create(cluster, &spec).await?;
    let mut pushed = drained(cluster, &registry).await?;
    can_pull_all(cluster, &pushed).await.context("after the drain")?;
    pushed.extend(killed(cluster, &registry).await?);
    can_pull_all(cluster, &pushed).await.context("after the kill")?;
    without_volume(cluster).await?;
    can_pull_all(cluster, &pushed).await.context("after the loss of a volume")?;
    println!("{} acknowledged images are available on every registry node", pushed.len());
    REGISTRY.remove(cluster).await
}

/// Pulls every image by its tag from every node, and verifies every byte.
async fn can_pull_all(cluster: &OwnCluster, pushed: &Pushed) -> Result<()> {
    for node in REGISTRY.node_registries(cluster).await? {
        for (tag, image) in pushed {
            node.pull_image("kept", tag, image)
                .await
                .with_context(|| format!("cannot pull {tag} from {}", node.url()))?;
        }
    }
    Ok(())
}

/// Drains a Kubernetes node while images are pushed; the PodDisruptionBudget prevents the drain of
/// the other one meanwhile.
async fn drained(cluster: &OwnCluster, registry: &Registry) -> Result<Pushed> {
    let machines = cluster.nodes();
    let &[staying, drained] = machines.as_slice() else {
        anyhow::bail!("expected two Kubernetes nodes with registry pods, found {machines:?}")
    };
    let stop = AtomicBool::new(false);
    let drain = async {
        let outcome = async {
            cluster.kubectl(["drain", drained, PODS, "--timeout=120s"]).await?;
            let refused = cluster.kubectl(["drain", staying, PODS, "--timeout=3s"]).await;
            let refused = format!("{:#}", refused.err().context("the Kubernetes node of the last pod was drained")?);
            ensure!(refused.contains("disruption budget"), "{refused}");
            REGISTRY.becomes(cluster, "Ready", "False", "NodesUnschedulable").await
        };
        let outcome = outcome.await;
        for machine in &machines {
            cluster.kubectl(["uncordon", machine]).await?;
        }
        outcome?;
        REGISTRY.becomes(cluster, "Ready", "True", "AllNodesReady").await?;
        stop.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let push = async {
        let mut pushed = Vec::new();
        // A few per second, because each image is pulled from every node three times afterwards.
        let mut pushes = tokio::time::interval(Duration::from_millis(250));
        while !stop.load(Ordering::Relaxed) {
            pushes.tick().await;
            let (tag, image) = (format!("drain-{}", pushed.len()), Image::fresh(&[100_000]));
            registry.retrying(TIMEOUT).push_image("kept", &tag, &image).await.context("during the drain")?;
            pushed.push((tag, image));
        }
        println!("{} images pushed without a failure during the drain of a Kubernetes node", pushed.len());
        anyhow::Ok(pushed)
    };
    let ((), pushed) = tokio::try_join!(drain, push)?;
    Ok(pushed)
}

/// Kills a node during an upload. The client resumes the upload where it stopped.
async fn killed(cluster: &OwnCluster, registry: &Registry) -> Result<Pushed> {
    let before = Image::fresh(&[500_000]);
    registry.push_image("kept", "before", &before).await?;
    let during = Image::fresh(&[8_000_000]);
    let (pods, nodes) = (REGISTRY.pods(cluster).await?, REGISTRY.node_registries(cluster).await?);
    let (pod, node) = pods.first().zip(nodes.first()).context("the registry has no pod")?;
    let layer = during.layers[0];
    let session = node.open_session("kept").await?;
    let (killed, wait_for_kill) = oneshot::channel::<()>();
    // Half of the layer is sent; the rest would follow after the kill.
    let half = layer.stream(0..layer.size / 2);
    let rest: Vec<_> = layer.pieces(layer.size / 2..layer.size).collect();
    let rest = stream::once(async {
        // Whether the kill failed is checked below.
        let _ = wait_for_kill.await;
        stream::iter(rest)
    });
    let send = node.send(Method::PATCH, &session, &[], streamed(half.chain(rest.flatten())));
    let kill = async {
        wait::until("the node has received a part of the upload", TIMEOUT, || async {
            received(registry, &session).await.is_some_and(|bytes| bytes > layer.size / 4)
        })
        .await?;
        cluster.kill(pod, "entrepot-node")?;
        killed.send(()).ok().context("the push ended before the node was killed")
    };
    let (answer, outcome) = tokio::join!(send, kill);
    outcome?;
    ensure!(answer.is_err(), "the killed node responded with {answer:?}");
    wait::until("the node is running again", TIMEOUT, || async {
        restarts(cluster).await.is_ok_and(|count| count == 1)
    })
    .await?;
    REGISTRY.becomes(cluster, "Ready", "True", "AllNodesReady").await?;
    wait::until("the node responds again", TIMEOUT, || node.answers()).await?;
    let at = received(node, &session).await.context("the session does not exist")?;
    ensure!(at > 0 && at < layer.size, "the session has {at} of {} bytes", layer.size);
    node.append(&session, &layer, at, layer.size).await?.expect(202)?;
    node.finish(&session, &layer.digest).await?.expect(201)?;
    println!("upload resumed at byte {at} of {} after the node was killed", layer.size);
    registry.push_image("kept", "during", &during).await?;
    Ok(vec![("before".to_owned(), before), ("during".to_owned(), during)])
}

/// Number of bytes that a session has received.
async fn received(node: &Registry, session: &str) -> Option<u64> {
    let reply = node.send(Method::GET, session, &[], empty()).await.ok().filter(|reply| reply.status == 204)?;
    reply.header("range")?.strip_prefix("0-")?.parse::<u64>().ok().map(|last| last + 1)
}

async fn restarts(cluster: &OwnCluster) -> Result<i32> {
    let count = |pod: &Pod| {
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        statuses.map_or(0, |all| all.iter().map(|status| status.restart_count).sum())
    };
    Ok(REGISTRY.pods(cluster).await?.iter().map(count).sum())
}

/// A node loses its volume: its claim is deleted, and then its pod.
async fn without_volume(cluster: &OwnCluster) -> Result<()> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client().clone(), REGISTRY.namespace);
    let pods: Api<Pod> = Api::namespaced(cluster.client().clone(), REGISTRY.namespace);
    let (claim, pod) = ("store-node-loss-0", "node-loss-0");
    let volume = || async { claims.get_opt(claim).await.ok().flatten()?.spec?.volume_name };
    let before = volume().await.context("the claim has no volume")?;
    claims.delete(claim, &DeleteParams::default()).await?;
    pods.delete(pod, &DeleteParams::default()).await?;
    wait::until("the node has a new volume", TIMEOUT, || async { volume().await.is_some_and(|now| now != before) })
        .await?;
    REGISTRY.becomes(cluster, "Ready", "True", "AllNodesReady").await.map(drop)
}
