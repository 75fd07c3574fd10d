//! What the installation of the operator does not allow is refused, and the registry that runs goes on.

use super::fixture::Fixture;
use crate::cluster::Cluster;
use crate::push::Image;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

const REGISTRY: Fixture = Fixture::new("allowed");

/// Changes that the chart does not allow by default, each with the field and the setting that the
/// condition has to name, and its reverse.
fn changes() -> [(Value, &'static str, &'static str, Value); 5] {
    let snippet = "nginx.ingress.kubernetes.io/configuration-snippet";
    let load_balancer = "service.beta.kubernetes.io/aws-load-balancer-extra-security-groups";
    let role = json!({"bucket": {"auth": {"secretRef": null, "workloadIdentity": {
        "serviceAccountAnnotations": {"example.com/role": "admin"}}}}});
    let keys = json!({"bucket": {"auth": {"secretRef": {"name": "s3-credentials"}, "workloadIdentity": null}}});
    [
        (json!({"nodeImage": "attacker.example/node:1"}), "spec.nodeImage", "nodeImages", json!({"nodeImage": null})),
        (
            json!({"scheduling": {"priorityClassName": "system-cluster-critical"}}),
            "spec.scheduling.priorityClassName",
            "priorityClasses",
            json!({"scheduling": null}),
        ),
        (
            json!({"ingress": {"host": "a.test", "annotations": {snippet: "x"}}}),
            "spec.ingress.annotations",
            "ingressAnnotations",
            json!({"ingress": null}),
        ),
        (
            json!({"service": {"annotations": {load_balancer: "x"}}}),
            "spec.service.annotations",
            "serviceAnnotations",
            json!({"service": null}),
        ),
        (role, "spec.bucket.auth.workloadIdentity.serviceAccountAnnotations", "serviceAccountAnnotations", keys),
    ]
}

/// Each change is refused with its field, its value and the setting, and changes no object. A change
/// that is allowed is applied again.
pub async fn a_spec_that_is_not_allowed_changes_nothing(cluster: &dyn Cluster) -> Result<()> {
    let registry = REGISTRY.create(cluster, &json!({})).await?;
    let (image, set) = (Image::fresh(&[10_000]), REGISTRY.stateful_set(cluster).await?);
    registry.push_image("kept", "1", &image).await?;
    for (change, field, setting, reverse) in changes() {
        REGISTRY.change(cluster, &change).await?;
        let message = REGISTRY.becomes(cluster, "Ready", "False", "NotAllowed").await.context(field)?;
        println!("{message}");
        ensure!(message.contains(field) && message.contains(&format!("allowed.{setting}")), "{message}");
        REGISTRY.becomes(cluster, "Applied", "False", "NotAllowed").await?;
        registry.pull_image("kept", "1", &image).await?;
        let present = REGISTRY.stateful_set(cluster).await?;
        ensure!(present.metadata.generation == set.metadata.generation, "the StatefulSet was changed by {change}");
        REGISTRY.change(cluster, &reverse).await?;
        REGISTRY.becomes(cluster, "Ready", "True", "AllNodesReady").await?;
    }
    // Another tag of the default image is allowed.
    let other = format!("{}-other", REGISTRY.node_image(cluster).await?);
    REGISTRY.change(cluster, &json!({"nodeImage": other})).await?;
    REGISTRY.becomes(cluster, "Applied", "True", "AllApplied").await?;
    REGISTRY.remove(cluster).await
}
