//! One operator with a hundred registries.

use super::conditions::registry_clusters;
use super::fixture::{Fixture, TIMEOUT};
use super::operator;
use crate::cluster::{Cluster, Kubectl, OwnCluster};
use crate::{usage, wait};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod};
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const NAMESPACE: &str = "many-registries";
/// A registry from which the manifests of all others are made.
const FIRST: Fixture = Fixture::named(NAMESPACE, "registry-0");
const REGISTRIES: usize = 100;
/// Time limit for all registries to be settled after they are applied.
const SETTLED: Duration = Duration::from_secs(60);
/// Memory limit of the operator in bytes.
const MEMORY: u64 = 100 << 20;

/// The pods of these registries fit on no Kubernetes node: the operator does all of its work, and
/// no pod has to run.
pub async fn a_hundred_registries_settle(cluster: &OwnCluster) -> Result<()> {
    cluster.apply(&FIRST.secret()).await?;
    let registries: Vec<_> = (0..REGISTRIES).map(manifest).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": registries});
    let begun = Instant::now();
    cluster.apply(&list.to_string()).await?;
    let applied = Instant::now();
    let mut largest = 0;
    let settled = async {
        // Reading a hundred registries costs the API server as much as settling them, so poll
        // rarely.
        let mut polls = tokio::time::interval(Duration::from_millis(500));
        loop {
            polls.tick().await;
            largest = largest.max(memory(cluster).await?);
            if are_settled(cluster).await? {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(SETTLED, settled).await.with_context(|| format!("not settled within {SETTLED:?}"))??;
    let (took, since) = (begun.elapsed(), applied.elapsed());
    largest = largest.max(memory(cluster).await?);
    println!(
        "{REGISTRIES} registries settled {since:.1?} after they were applied; applying them took {:.1?}",
        took - since
    );
    println!("peak memory of the operator: {:.1} MiB", largest as f64 / 1_048_576.0);
    ensure!(largest < MEMORY, "the operator used {largest} bytes of memory");
    FIRST.remove(cluster).await?;
    let namespaces: Api<Namespace> = Api::all(cluster.client().clone());
    wait::until("all registries are deleted", 2 * TIMEOUT, || async {
        namespaces.get_opt(NAMESPACE).await.is_ok_and(|found| found.is_none())
    })
    .await
}

fn manifest(number: usize) -> Value {
    let mut manifest = FIRST.manifest(&json!({}));
    manifest["metadata"]["name"] = json!(format!("registry-{number}"));
    manifest["spec"]["bucket"]["prefix"] = json!(format!("{NAMESPACE}/{number}/"));
    manifest["spec"]["scheduling"] = json!({"nodeSelector": {"kubernetes.io/hostname": "nowhere"}});
    manifest
}

/// Whether the status of every registry is of the present generation and reports why no pod is
/// ready, and all objects that the pods need exist.
async fn are_settled(cluster: &OwnCluster) -> Result<bool> {
    let registries = registry_clusters(cluster, NAMESPACE);
    let registries = registries.list(&ListParams::default()).await?.items;
    ensure!(registries.len() == REGISTRIES, "unexpected number of registries: {}", registries.len());
    let reported = registries.iter().all(|registry| {
        let status = &registry.data["status"];
        let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        status["observedGeneration"].as_i64() == registry.metadata.generation
            && conditions.iter().any(|known| known["type"] == "Ready" && known["reason"] == "NodesUnschedulable")
    });
    if !reported {
        return Ok(false);
    }
    let client = cluster.client().clone();
    let all = ListParams::default();
    let sets = Api::<StatefulSet>::namespaced(client.clone(), NAMESPACE).list(&all).await?.items.len();
    let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), NAMESPACE).list(&all).await?.items.len();
    let pods = Api::<Pod>::namespaced(client, NAMESPACE).list(&all).await?.items.len();
    Ok((sets, claims, pods) == (REGISTRIES, REGISTRIES, REGISTRIES))
}

/// Memory of the operator's largest process in bytes (proc_pid_status(5)).
async fn memory(cluster: &OwnCluster) -> Result<u64> {
    let mut largest = None;
    for pod in operator::all_pods(cluster).await? {
        for process in cluster.processes(&pod, operator::NAME)? {
            largest = largest.max(usage::memory(process.pid).ok());
        }
    }
    largest.context("no operator is running")
}
