//! What tests of several modules need.

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
