//! The observed state of a RegistryCluster. It does not change while nothing happens in the
//! registry.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Observed state of the RegistryCluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Generation of the spec that was last reconciled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of registry pods.
    pub replicas: i32,
    /// Number of ready registry pods.
    pub ready_replicas: i32,
    /// Label selector of the registry pods. The scale subresource reports it.
    pub selector: String,
    /// In-cluster URL for pushes and pulls.
    pub endpoint: String,
    /// Hash of the configuration fields whose change restarts the registry pods.
    pub config_hash: String,
    /// Summary of the pods' stores, rounded to limit status updates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreSummary>,
    /// Conditions of the types Ready, Applied, BucketReachable, CredentialsValid, StorageResized
    /// and Paused.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Summary of the pods' stores, rounded so that a busy registry does not rewrite its status all the
/// time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StoreSummary {
    /// Total store capacity of the reporting pods, such as `600Gi`.
    pub capacity: String,
    /// Usage of the fullest store, rounded down to a multiple of 10%.
    pub fullest: String,
    /// Effective lowFree and targetFree of the reporting pods, for example `1Gi / 2Gi`; a value
    /// that is no whole number of Ki is in bytes. Empty while pods differ.
    pub thresholds: String,
}
