//! What tests of several modules need.

use crate::allowed::{Allowed, Patterns};
use crate::installation::Installation;
use serde_json::{Value, json};

/// A valid RegistryCluster without a status, with the difference merged into its spec.
pub fn cluster(name: &str, difference: &Value) -> Value {
    let mut spec = json!({
        "bucket": {"name": "images", "auth": {"secretRef": {"name": "s3"}}}, "store": {"size": "10Gi"},
    });
    json_patch::merge(&mut spec, difference);
    json!({
        "apiVersion": "entrepot.dev/v1alpha1", "kind": "RegistryCluster", "spec": spec,
        "metadata": {"name": name, "namespace": "a", "uid": name, "resourceVersion": "7", "generation": 3},
    })
}

#[test]
fn the_cluster_of_the_tests_is_valid() {
    assert!(serde_json::from_value::<crate::crd::RegistryCluster>(cluster("good", &json!({}))).is_ok());
}

/// An installation with a few limits.
pub fn installation() -> Installation {
    let patterns = |list: &str| list.parse::<Patterns>().unwrap_or_default();
    Installation {
        node_image: "entrepot-node:1".into(),
        namespace: "entrepot-system".into(),
        monitoring: r#"[{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}}]"#
            .parse()
            .unwrap_or_default(),
        allowed: Allowed {
            node_images: patterns("mirror.example/entrepot-node:*"),
            service_account_annotations: patterns("eks.amazonaws.com/*"),
            ingress_annotations: patterns("nginx.ingress.kubernetes.io/proxy-body-size"),
            service_annotations: patterns(""),
            priority_classes: patterns(""),
            endpoints: patterns("*.svc,s3.*.amazonaws.com"),
        },
    }
}
