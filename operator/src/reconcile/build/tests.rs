use super::*;
use crate::reconcile::storage::Volume;
use crate::reconcile::validate::validate;
use crate::testing::installation;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The smallest valid spec.
fn minimal() -> Value {
    json!({
        "bucket": {"name": "images", "auth": {"secretRef": {"name": "s3-credentials"}}},
        "store": {"size": "200Gi"},
    })
}

/// A spec with every field set.
fn full() -> Value {
    json!({
        "replicas": 5,
        "nodeImage": "registry.example/entrepot-node:1",
        "bucket": {
            "name": "images", "prefix": "team/", "region": "eu-west-1", "endpoint": "https://s3.storage:7070",
            "pathStyle": true, "caBundleRef": {"kind": "Secret", "name": "ca"},
            "auth": {"workloadIdentity": {"serviceAccountAnnotations": {"eks.amazonaws.com/role-arn": "arn:x"}}},
        },
        "store": {
            "size": "1Ti", "storageClassName": "fast", "lowFree": "50Gi", "targetFree": "10%",
            "evictionPolicy": "LeastRecentlyUsed", "resizePolicy": "Recreate", "reclaimPolicy": "Retain",
        },
        "replication": "WriteBack",
        "links": {"freshFor": "10m", "staleIfError": "2h"},
        "tags": {"freshFor": "5s", "immutable": ["v*"]},
        "namespaces": ["registry.example.com"],
        "readOnly": true,
        "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}},
        "scheduling": {
            "nodeSelector": {"disk": "nvme"},
            "tolerations": [{"key": "registry", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {"nodeAffinity": {}},
            "priorityClassName": "system-cluster-critical",
        },
        "podDisruptionBudget": {"minAvailable": "60%"},
        "service": {"type": "NodePort", "port": 80, "nodePort": 30500, "annotations": {"a": "b"}},
        "ingress": {
            "host": "images.example", "className": "nginx", "tlsSecretName": "images-tls",
            "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "0"},
        },
        "networkPolicy": {
            "enabled": true,
            "registryFrom": [{"namespaceSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}],
            "operationsFrom": [{"podSelector": {"matchExpressions": [{"key": "scrapes", "operator": "Exists"}]}}],
        },
        "monitoring": {"serviceMonitor": true, "labels": {"release": "prometheus"}, "interval": "15s"},
    })
}

fn cluster(spec: &Value) -> RegistryCluster {
    let metadata = json!({"name": "images", "namespace": "registry", "uid": "0-0-0"});
    serde_json::from_value(json!({
        "apiVersion": "entrepot.dev/v1alpha1", "kind": "RegistryCluster", "metadata": metadata, "spec": spec,
    }))
    .unwrap()
}

fn children(spec: &Value) -> Vec<Child> {
    let cluster = cluster(spec);
    validate(&cluster).unwrap();
    let volume = Volume::desired(&cluster.spec.store);
    build(&cluster, &Identity::of(&cluster), &volume, &installation()).unwrap().children
}

fn set_of(spec: &Value) -> Value {
    children(spec).into_iter().find(|child| child.kind == Kind::StatefulSet).unwrap().object
}

/// Compares every child with a golden file of its own.
fn assert_golden(folder: &str, spec: &Value) {
    for child in children(spec) {
        let name = format!("{folder}-{}-{}", child.kind.name(), child.name);
        insta::with_settings!({snapshot_path => "../../../tests/golden", prepend_module_to_snapshot => false}, {
            insta::assert_snapshot!(name, serde_saphyr::to_string(&child.object).unwrap());
        });
    }
}

#[test]
fn children_of_the_minimal_cluster_match_the_golden_files() {
    assert_golden("minimal", &minimal());
}

#[test]
fn children_of_the_full_cluster_match_the_golden_files() {
    assert_golden("full", &full());
}

/// Asserts that the API's type has every field, under that name and in that form.
fn assert_no_unknown_fields<T: DeserializeOwned + Serialize>(object: &Value) {
    let read: T = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(&serde_json::to_value(read).unwrap(), object);
}

#[test]
fn every_child_has_only_fields_that_the_api_knows() {
    for child in children(&minimal()).iter().chain(&children(&full())) {
        match child.kind {
            Kind::ServiceAccount => assert_no_unknown_fields::<ServiceAccount>(&child.object),
            Kind::ConfigMap => assert_no_unknown_fields::<ConfigMap>(&child.object),
            Kind::Service => assert_no_unknown_fields::<Service>(&child.object),
            Kind::PodDisruptionBudget => assert_no_unknown_fields::<PodDisruptionBudget>(&child.object),
            Kind::StatefulSet => assert_no_unknown_fields::<StatefulSet>(&child.object),
            Kind::NetworkPolicy => assert_no_unknown_fields::<NetworkPolicy>(&child.object),
            Kind::Ingress => assert_no_unknown_fields::<Ingress>(&child.object),
            Kind::ServiceMonitor => assert_eq!(child.object["spec"]["endpoints"][0]["port"], "operations"),
        }
    }
}

#[test]
fn thresholds_do_not_restart_nodes_and_everything_else_does() {
    let template = |difference: &str, value: Value| {
        let mut spec = minimal();
        *spec.pointer_mut(difference).unwrap() = value;
        set_of(&spec)["spec"]["template"].clone()
    };
    let mut base = minimal();
    base["store"]["lowFree"] = json!("5%");
    assert_eq!(set_of(&base)["spec"]["template"], set_of(&minimal())["spec"]["template"]);
    assert_ne!(template("/bucket/name", json!("other")), set_of(&minimal())["spec"]["template"]);
    assert_ne!(template("/store/size", json!("300Gi")), set_of(&minimal())["spec"]["template"]);
}

#[test]
fn the_kubelet_waits_longer_than_a_node_takes_to_drain() {
    let set = set_of(&minimal());
    let pod = &set["spec"]["template"]["spec"];
    let delay = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
    let text = children(&minimal()).remove(1).object["data"]["config.yaml"].as_str().unwrap().to_owned();
    let config = entrepot_config::NodeConfig::from_yaml(&text.replace("${POD_NAME}", "images-0")).unwrap();
    let drain = config.shutdown.drain_delay.get() + config.shutdown.grace_period.get();
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > delay + drain.as_secs());
}

#[test]
fn a_cluster_that_nodes_would_reject_is_rejected_with_the_field() {
    let mut spec = minimal();
    spec["tags"] = json!({"immutable": ["["]});
    let cluster = cluster(&spec);
    let refusal = validate(&cluster).unwrap_err().to_string();
    assert!(refusal.contains("tags.immutable"), "{refusal}");
}

#[test]
fn a_quantity_that_kubernetes_cannot_store_is_rejected_with_the_field() {
    let mut spec = minimal();
    spec["resources"] = json!({"limits": {"memory": "8Ei"}});
    let refusal = validate(&cluster(&spec)).unwrap_err().to_string();
    assert!(refusal.starts_with("spec.resources.limits.memory: 8Ei is too large"), "{refusal}");
    spec["resources"] = json!({"limits": {"memory": 4_294_967_296_u64}});
    validate(&cluster(&spec)).unwrap();
}

#[test]
fn a_network_policy_opens_the_registry_to_everybody_unless_the_spec_names_its_clients() {
    let policy = |more: Value| {
        let mut spec = minimal();
        spec["networkPolicy"] = more;
        children(&spec).into_iter().find(|child| child.kind == Kind::NetworkPolicy).map(|child| child.object)
    };
    assert_eq!(policy(json!({})), None);
    let open = policy(json!({"enabled": true})).unwrap();
    let rules = &open["spec"]["ingress"];
    assert_eq!(rules[0], json!({"ports": [{"port": 5000, "protocol": "TCP"}]}));
    assert_eq!(
        rules[1]["from"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"],
        "entrepot-system"
    );
    let clients = json!({"enabled": true, "registryFrom": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]});
    let from = policy(clients).unwrap()["spec"]["ingress"][0]["from"].clone();
    // The pods themselves, because they forward requests of upload sessions to each other.
    assert_eq!(from[0]["podSelector"]["matchLabels"]["app.kubernetes.io/instance"], "images");
    assert_eq!(from[1], json!({"ipBlock": {"cidr": "10.0.0.0/8"}}));
}

#[test]
fn thresholds_for_the_new_size_are_valid_while_volumes_have_the_old_size() {
    let mut spec = minimal();
    spec["store"] = json!({"size": "100Gi", "lowFree": "10Gi", "targetFree": "20Gi"});
    let cluster = cluster(&spec);
    let small = Volume { size: "10Gi".parse().unwrap(), class: None };
    validate(&cluster).unwrap();
    let config = configuration(&cluster, &Identity::of(&cluster), &small).unwrap();
    let text = config.to_sparse_yaml().unwrap();
    entrepot_config::NodeConfig::from_yaml(&text.replace("${POD_NAME}", "images-0")).unwrap();
    assert!(text.contains("capacity: 100Gi"), "{text}");
}
