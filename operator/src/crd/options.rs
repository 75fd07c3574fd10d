//! Everything about a cluster that is neither its bucket nor its stores.

use super::quantity::Quantity;
use super::strict;
use entrepot_config::Duration;
use k8s_openapi::api::core::v1::{Affinity, Toleration};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How tags are read and who may change them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tags {
    /// For how long a tag that was read is taken to be unchanged; 0s asks the bucket each time.
    #[schemars(length(max = 12))]
    pub fresh_for: Duration,
    /// While the bucket is away, the last known value of a tag is served up to this age.
    #[schemars(length(max = 12))]
    pub stale_if_error: Duration,
    /// Tags that match one of these patterns (`v*`) can be pushed once and never changed or deleted.
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)))]
    pub immutable: Vec<String>,
}

impl Default for Tags {
    fn default() -> Tags {
        Tags { fresh_for: Duration::from_secs(0), stale_if_error: Duration::from_secs(3600), immutable: Vec::new() }
    }
}

/// Requests and limits of a node's container.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    #[serde(default = "requests")]
    #[schemars(schema_with = "quantities")]
    pub requests: BTreeMap<String, Quantity>,
    #[serde(default)]
    #[schemars(schema_with = "quantities")]
    pub limits: BTreeMap<String, Quantity>,
}

fn requests() -> BTreeMap<String, Quantity> {
    let all = [("cpu", "100m"), ("memory", "256Mi")];
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

/// Without the page of prose that Kubernetes describes a quantity with.
fn quantities(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "additionalProperties": {"x-kubernetes-int-or-string": true}})
}

impl Default for Resources {
    fn default() -> Resources {
        Resources { requests: requests(), limits: BTreeMap::new() }
    }
}

/// Where nodes may run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Scheduling {
    pub node_selector: BTreeMap<String, String>,
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,
    /// An Affinity as in a pod.
    #[schemars(schema_with = "any_object")]
    #[serde(default, deserialize_with = "strict::optional", skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    #[schemars(length(max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
}

/// The operator reads it by the API's own type; its whole schema would be longer than all the rest.
fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// How many nodes may be taken away at once by a drain; one, if nothing is said.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.minAvailable) && has(self.maxUnavailable))")
    .message("podDisruptionBudget has at most one of minAvailable and maxUnavailable"))]
pub struct Disruption {
    /// A number or a percentage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_available: Option<IntOrString>,
    /// A number or a percentage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
}

/// The Service that clients use.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.nodePort) || self.type != 'ClusterIP'")
    .message("service.nodePort needs a service.type of NodePort or LoadBalancer").field_path(".nodePort"))]
pub struct Service {
    #[serde(rename = "type", default)]
    pub kind: ServiceType,
    #[serde(default = "registry_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    #[schemars(range(min = 1, max = 65535))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_port: Option<i32>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

fn registry_port() -> i32 {
    5000
}

impl Default for Service {
    fn default() -> Service {
        Service { kind: ServiceType::default(), port: registry_port(), node_port: None, annotations: BTreeMap::new() }
    }
}

/// Where the Service can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    #[default]
    ClusterIP,
    NodePort,
    LoadBalancer,
}

/// An Ingress for the Service; there is none without a host.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.host) || !has(self.tlsSecretName)")
    .message("ingress.tlsSecretName needs ingress.host").field_path(".tlsSecretName"))]
pub struct Ingress {
    #[schemars(length(min = 1, max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[schemars(length(min = 1, max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// The Secret that holds certificate and key; without it, plain HTTP.
    #[schemars(length(min = 1, max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_secret_name: Option<String>,
    /// For an ingress-nginx, `nginx.ingress.kubernetes.io/proxy-body-size: "0"` belongs here.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// What Prometheus' operator is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Monitoring {
    /// Whether to make a ServiceMonitor; its definition must be installed.
    pub service_monitor: bool,
    /// Labels of the ServiceMonitor, by which a Prometheus selects it.
    pub labels: BTreeMap<String, String>,
    #[schemars(length(max = 12))]
    pub interval: Duration,
}

impl Default for Monitoring {
    fn default() -> Monitoring {
        Monitoring { service_monitor: false, labels: BTreeMap::new(), interval: Duration::from_secs(30) }
    }
}
