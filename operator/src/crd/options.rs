//! The options of a RegistryCluster that concern neither its bucket nor its store.

use super::count::{self, Count};
use super::quantity::{self, Quantity};
use super::strict;
use entrepot_config::Duration;
use k8s_openapi::api::core::v1::{Affinity, Toleration};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How long pods rely on the links that they have read. A link is an object in the bucket: it says
/// that a repository contains a blob or a manifest, or to which manifest a tag points.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Links {
    /// How long a pod serves stored content of a repository before it asks the bucket again whether
    /// the repository still contains the content. It is also the longest time for which a pod still
    /// serves content that was deleted through another pod. Defaults to 10m.
    #[schemars(length(max = 12))]
    pub fresh_for: Duration,
    /// Maximum age of a link that is still used while the bucket is unreachable, such as the last
    /// known value of a tag. Defaults to 1h.
    #[schemars(length(max = 12))]
    pub stale_if_error: Duration,
}

impl Default for Links {
    fn default() -> Links {
        Links { fresh_for: Duration::from_secs(600), stale_if_error: Duration::from_secs(3600) }
    }
}

/// Tag caching and immutable tags.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tags {
    /// How long a tag is served from memory before the bucket is asked again. `0s` (default) asks on
    /// every request.
    #[schemars(length(max = 12))]
    pub fresh_for: Duration,
    /// Patterns of immutable tags, such as `v*`. A matching tag can be pushed once; it can neither
    /// be moved to another manifest nor deleted. Defaults to none.
    #[schemars(length(max = 64), inner(length(min = 1, max = 128)))]
    pub immutable: Vec<String>,
}

impl Default for Tags {
    fn default() -> Tags {
        Tags { fresh_for: Duration::from_secs(0), immutable: Vec::new() }
    }
}

/// Resource requests and limits of the registry container.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Resource requests, as in the resources of a container. Defaults to cpu 100m and memory
    /// 256Mi.
    #[serde(default = "requests")]
    #[schemars(schema_with = "quantities")]
    pub requests: BTreeMap<String, Quantity>,
    /// Resource limits, as in the resources of a container. Defaults to none.
    #[serde(default)]
    #[schemars(schema_with = "quantities")]
    pub limits: BTreeMap<String, Quantity>,
}

fn requests() -> BTreeMap<String, Quantity> {
    let all = [("cpu", "100m"), ("memory", "256Mi")];
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

fn quantities(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let quantity = quantity::schema(generator);
    schemars::json_schema!({"type": "object", "maxProperties": 32, "additionalProperties": quantity})
}

impl Default for Resources {
    fn default() -> Resources {
        Resources { requests: requests(), limits: BTreeMap::new() }
    }
}

/// Scheduling constraints of the registry pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Scheduling {
    /// Labels that a Kubernetes node must have to run a registry pod. Defaults to none.
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations of the pods. Defaults to none.
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,
    /// Affinity of the pods, as in a pod's spec.affinity.
    #[schemars(schema_with = "any_object")]
    #[serde(default, deserialize_with = "strict::optional", skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// PriorityClass of the pods. If unset, the cluster's default priority applies. The operator must
    /// allow it (`allowed.priorityClasses` in the chart; by default none).
    #[schemars(length(max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
}

/// The operator parses the object with the type of the Kubernetes API. The complete schema would be
/// longer than the rest of this definition.
fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// How many pods a voluntary disruption, such as a drain, may make unavailable. Defaults to one.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.minAvailable) && has(self.maxUnavailable))")
    .message("minAvailable and maxUnavailable are mutually exclusive"))]
pub struct Disruption {
    /// Minimum number or percentage of registry pods that must stay available during a voluntary
    /// disruption. Mutually exclusive with maxUnavailable.
    #[schemars(schema_with = "count::schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_available: Option<Count>,
    /// Maximum number or percentage of registry pods that may be unavailable during a voluntary
    /// disruption. Defaults to 1 if minAvailable is unset.
    #[schemars(schema_with = "count::schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<Count>,
}

/// The Service that clients use.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.nodePort) || self.type != 'ClusterIP'")
    .message("requires spec.service.type NodePort or LoadBalancer").field_path(".nodePort"))]
pub struct Service {
    /// Type of the Service: `ClusterIP` (default), `NodePort` or `LoadBalancer`.
    #[serde(rename = "type", default)]
    pub kind: ServiceType,
    /// Port of the Service. Defaults to 5000.
    #[serde(default = "registry_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Port on every Kubernetes node. Requires type NodePort or LoadBalancer. If unset, Kubernetes
    /// allocates a port.
    #[schemars(range(min = 1, max = 65535))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_port: Option<i32>,
    /// Annotations added to the Service. Defaults to none. The operator must allow each
    /// (`allowed.serviceAnnotations` in the chart).
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

/// Type of the Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    #[default]
    ClusterIP,
    NodePort,
    LoadBalancer,
}

/// Ingress for the Service. Not created unless `host` is set.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.host) || !has(self.tlsSecretName)")
    .message("requires spec.ingress.host").field_path(".tlsSecretName"))]
pub struct Ingress {
    /// Host name of the registry. No Ingress is created unless it is set.
    #[schemars(length(min = 1, max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// IngressClass of the Ingress. If unset, the default IngressClass is used.
    #[schemars(length(min = 1, max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_name: Option<String>,
    /// TLS Secret for the host, of type kubernetes.io/tls. If unset, the Ingress serves plain HTTP.
    #[schemars(length(min = 1, max = 253))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_secret_name: Option<String>,
    /// Annotations added to the Ingress. With ingress-nginx, set
    /// `nginx.ingress.kubernetes.io/proxy-body-size: "0"`, or pushes of large layers are rejected. The
    /// operator must allow each annotation (`allowed.ingressAnnotations` in the chart).
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// ServiceMonitor for the Prometheus Operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Monitoring {
    /// Create a ServiceMonitor. Requires the CRDs of the Prometheus Operator. Defaults to false.
    pub service_monitor: bool,
    /// Labels added to the ServiceMonitor, matched by the serviceMonitorSelector of a Prometheus.
    /// Defaults to none.
    pub labels: BTreeMap<String, String>,
    /// Scrape interval. Defaults to 30s.
    #[schemars(length(max = 12))]
    pub interval: Duration,
}

impl Default for Monitoring {
    fn default() -> Monitoring {
        Monitoring { service_monitor: false, labels: BTreeMap::new(), interval: Duration::from_secs(30) }
    }
}
