//! Actions of the operator that no other scenario causes: optional objects are created and deleted,
//! additions by others are removed, and objects that are no longer built are deleted.

use super::fixture::{Fixture, TIMEOUT};
use crate::cluster::{Cluster, Kubectl};
use crate::wait;
use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serde_json::{Value, json};

const REGISTRY: Fixture = Fixture::new("permissions");

/// Additions to objects in maps and lists that only the operator may write, so that an apply would
/// keep them.
const ADDITIONS: [(&str, &str, &str); 6] = [
    ("configmap/images-config", "/data/more", r#""added""#),
    ("service/images", "/spec/selector/more", r#""added""#),
    ("poddisruptionbudget/images", "/spec/selector/matchLabels/more", r#""added""#),
    ("networkpolicy/images", "/spec/podSelector/matchLabels/more", r#""added""#),
    ("servicemonitor/images", "/spec/selector/matchLabels/more", r#""added""#),
    ("statefulset/images", "/spec/template/spec/containers/0/env/-", r#"{"name": "ADDED", "value": "more"}"#),
];

/// Objects that are created only on request.
const OPTIONAL: [&str; 3] = ["ingress/images", "networkpolicy/images", "servicemonitor/images"];

/// Causes all of these actions for a registry of one pod.
pub async fn optional_objects_are_created_and_deleted(cluster: &dyn Cluster) -> Result<()> {
    cluster.apply(&monitors().to_string()).await?;
    let established = ["wait", "--for=condition=Established", "crd/servicemonitors.monitoring.coreos.com"];
    cluster.kubectl(established).await?;
    REGISTRY.create(cluster, &json!({"replicas": 1})).await?;
    let clients = json!([{"namespaceSelector": {}}, {"ipBlock": {"cidr": "0.0.0.0/0"}}]);
    let optional = json!({
        "ingress": {"host": "images.test"}, "monitoring": {"serviceMonitor": true},
        "networkPolicy": {"enabled": true, "registryFrom": clients},
    });
    REGISTRY.change(cluster, &optional).await?;
    for child in OPTIONAL {
        until_there(cluster, child, true).await?;
    }
    let changed = json!({
        "ingress": {"host": "other.test"}, "monitoring": {"interval": "1m"}, "networkPolicy": {"registryFrom": []},
    });
    REGISTRY.change(cluster, &changed).await?;
    REGISTRY.until_settled(cluster).await?;
    additions(cluster).await?;
    leftovers(cluster).await?;
    REGISTRY.change(cluster, &json!({"ingress": null, "monitoring": null, "networkPolicy": null})).await?;
    for child in OPTIONAL {
        until_there(cluster, child, false).await?;
    }
    REGISTRY.until_settled(cluster).await?;
    REGISTRY.remove(cluster).await
}

async fn additions(cluster: &dyn Cluster) -> Result<()> {
    for (child, path, value) in ADDITIONS {
        let patch = format!(r#"[{{"op": "add", "path": "{path}", "value": {value}}}]"#);
        cluster.kubectl(["-n", REGISTRY.namespace, "patch", child, "--type=json", "-p", &patch]).await?;
        wait::until(&format!("the addition to {child} is removed"), TIMEOUT, || async {
            let found =
                cluster.kubectl(["-n", REGISTRY.namespace, "get", child, "-o", "jsonpath={.data}{.spec}"]).await;
            found.is_ok_and(|found| !found.contains("more"))
        })
        .await?;
    }
    REGISTRY.until_settled(cluster).await
}

/// Objects with names that no present version of the operator uses.
async fn leftovers(cluster: &dyn Cluster) -> Result<()> {
    let registry = REGISTRY.object(cluster).await?;
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
        ("networking.k8s.io/v1", "NetworkPolicy", json!({"spec": {"podSelector": selector}})),
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
            json!({"name": "former", "namespace": REGISTRY.namespace, "labels": labels, "ownerReferences": [owner]});
        cluster.apply(&object.to_string()).await?;
        until_there(cluster, &format!("{}/former", kind.to_lowercase()), false).await?;
    }
    let rest = REGISTRY.nodes(cluster).await?;
    ensure!(rest.len() == 1, "unexpected pods after the deletions: {rest:?}");
    Ok(())
}

async fn until_there(cluster: &dyn Cluster, child: &str, there: bool) -> Result<()> {
    let what = format!("{child} is {}", if there { "created" } else { "deleted" });
    wait::until(&what, TIMEOUT, || async {
        let found = cluster.kubectl(["-n", REGISTRY.namespace, "get", child, "--ignore-not-found", "-o", "name"]).await;
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
