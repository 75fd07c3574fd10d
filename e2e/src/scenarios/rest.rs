//! Actions of the operator that no other scenario causes: optional objects are created and deleted,
//! additions by others are removed, and objects that are no longer built are deleted.

use super::pods;
use crate::cluster::Cluster;
use crate::wait;
use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serde_json::{Value, json};

const NAMESPACE: &str = "permissions";

/// Additions to objects in maps and lists that only the operator may write, so that an apply would
/// keep them.
const ADDITIONS: [(&str, &str, &str); 5] = [
    ("configmap/images-config", "/data/more", r#""added""#),
    ("service/images", "/spec/selector/more", r#""added""#),
    ("poddisruptionbudget/images", "/spec/selector/matchLabels/more", r#""added""#),
    ("servicemonitor/images", "/spec/selector/matchLabels/more", r#""added""#),
    ("statefulset/images", "/spec/template/spec/containers/0/env/-", r#"{"name": "ADDED", "value": "more"}"#),
];

/// Causes all of these actions for a registry of one pod.
pub async fn actions_that_no_other_scenario_causes(cluster: &Cluster) -> Result<()> {
    cluster.apply(&monitors().to_string()).await?;
    let established = ["wait", "--for=condition=Established", "crd/servicemonitors.monitoring.coreos.com"];
    cluster.kubectl(established).await?;
    pods::make(cluster, NAMESPACE, &json!({"replicas": 1})).await?;
    let optional = json!({"ingress": {"host": "images.test"}, "monitoring": {"serviceMonitor": true}});
    pods::change(cluster, NAMESPACE, &optional).await?;
    for child in ["ingress/images", "servicemonitor/images"] {
        until_there(cluster, child, true).await?;
    }
    let changed = json!({"ingress": {"host": "other.test"}, "monitoring": {"interval": "1m"}});
    pods::change(cluster, NAMESPACE, &changed).await?;
    pods::until_settled(cluster, NAMESPACE).await?;
    additions(cluster).await?;
    leftovers(cluster).await?;
    pods::change(cluster, NAMESPACE, &json!({"ingress": null, "monitoring": null})).await?;
    for child in ["ingress/images", "servicemonitor/images"] {
        until_there(cluster, child, false).await?;
    }
    pods::until_settled(cluster, NAMESPACE).await?;
    pods::remove(cluster, NAMESPACE).await
}

async fn additions(cluster: &Cluster) -> Result<()> {
    for (child, path, value) in ADDITIONS {
        let patch = format!(r#"[{{"op": "add", "path": "{path}", "value": {value}}}]"#);
        cluster.kubectl(["-n", NAMESPACE, "patch", child, "--type=json", "-p", &patch]).await?;
        wait::until(&format!("the addition to {child} is removed"), pods::SOON, || async {
            let found = cluster.kubectl(["-n", NAMESPACE, "get", child, "-o", "jsonpath={.data}{.spec}"]).await;
            found.is_ok_and(|found| !found.contains("more"))
        })
        .await?;
    }
    pods::until_settled(cluster, NAMESPACE).await
}

/// Objects with names that no present version of the operator uses.
async fn leftovers(cluster: &Cluster) -> Result<()> {
    let registry = pods::look(cluster, NAMESPACE).await?;
    let labels = json!({"app.kubernetes.io/managed-by": "entrepot-operator", "app.kubernetes.io/instance": "images"});
    let pod = json!({
        "metadata": {"labels": {"app": "former"}},
        "spec": {"containers": [{"name": "former", "image": "none"}]},
    });
    let selector = json!({"matchLabels": {"app": "former"}});
    let former = [
        ("v1", "ServiceAccount", json!({})),
        ("v1", "ConfigMap", json!({})),
        ("v1", "Service", json!({"spec": {"ports": [{"port": 80}]}})),
        ("policy/v1", "PodDisruptionBudget", json!({"spec": {"maxUnavailable": 1, "selector": selector}})),
        (
            "apps/v1",
            "StatefulSet",
            json!({"spec": {"replicas": 0, "serviceName": "former", "selector": selector, "template": pod}}),
        ),
        (
            "networking.k8s.io/v1",
            "Ingress",
            json!({"spec": {"defaultBackend": {"service": {"name": "former", "port": {"number": 80}}}}}),
        ),
    ];
    let uid = registry.uid().context("the registry has no uid")?;
    let owner = json!({"apiVersion": "entrepot.dev/v1alpha1", "kind": "RegistryCluster", "name": "images", "uid": uid});
    for (version, kind, mut object) in former {
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind);
        object["metadata"] =
            json!({"name": "former", "namespace": NAMESPACE, "labels": labels, "ownerReferences": [owner]});
        cluster.apply(&object.to_string()).await?;
        until_there(cluster, &format!("{}/former", kind.to_lowercase()), false).await?;
    }
    let rest = pods::nodes(cluster, NAMESPACE).await?;
    ensure!(rest.len() == 1, "unexpected pods after the deletions: {rest:?}");
    Ok(())
}

async fn until_there(cluster: &Cluster, child: &str, there: bool) -> Result<()> {
    let what = format!("{child} is {}", if there { "created" } else { "deleted" });
    wait::until(&what, pods::SOON, || async {
        let found = cluster.kubectl(["-n", NAMESPACE, "get", child, "--ignore-not-found", "-o", "name"]).await;
        found.is_ok_and(|found| found.trim().is_empty() != there)
    })
    .await
}

/// The ServiceMonitor CRD, as far as the operator needs it.
fn monitors() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com",
            "scope": "Namespaced",
            "names": {
                "plural": "servicemonitors", "singular": "servicemonitor",
                "kind": "ServiceMonitor", "listKind": "ServiceMonitorList",
            },
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}
