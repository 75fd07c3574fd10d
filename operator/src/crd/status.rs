//! What is told of a cluster. Nothing in it changes while nothing happens.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator saw last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The generation of the spec that this status is of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Nodes that there are.
    pub replicas: i32,
    /// Nodes that are ready.
    pub ready_replicas: i32,
    /// Label selector of the nodes' pods, for the scale subresource.
    pub selector: String,
    /// Where clients inside of the cluster push and pull.
    pub endpoint: String,
    /// Hash of that part of the nodes' configuration whose change restarts them.
    pub config_hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheSummary>,
    /// Ready, Applied, BucketReachable, CredentialsValid, StorageResized and Paused.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The nodes' stores together, in coarse steps, so that a cluster in use does not rewrite its status all the time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CacheSummary {
    /// Capacity of all nodes that report, such as `600Gi`.
    pub capacity: String,
    /// How full the fullest store is, in tenths: `70%` stands for 70% to 80%.
    pub fullest: String,
    /// The thresholds that every reporting node works with, as in `10% / 20%`; empty while they differ.
    pub thresholds: String,
}
