//! Builds the objects of a cluster. Pure: the same cluster gives the same objects. `validate` has
//! rejected every cluster whose configuration the nodes would reject.

mod child;
mod configuration;
mod disruption;
mod ingress;
mod monitor;
mod network_policy;
mod paths;
mod pod;
mod services;
mod shutdown;
mod sources;
mod stateful_set;
#[cfg(test)]
mod tests;

pub use child::{Child, Kind};
pub(super) use configuration::configuration;

use super::storage::Volume;
use crate::crd::{RegistryCluster, WorkloadIdentity};
use crate::installation::Installation;
use crate::names::Identity;
use configuration::ConfigText;
use entrepot_config::ConfigError;
use serde_json::json;
use sources::Sources;

/// All objects of a cluster.
pub struct Built {
    /// In the order of their application.
    pub children: Vec<Child>,
    /// Hash of the part of the configuration that requires a restart when it changes.
    pub config_hash: String,
}

/// Builds all objects. `volume` is the volume to apply now.
///
/// # Errors
/// If the configuration cannot be serialized, which never happens for its types.
pub fn build(
    cluster: &RegistryCluster,
    identity: &Identity,
    volume: &Volume,
    installation: &Installation,
) -> Result<Built, ConfigError> {
    let spec = &cluster.spec;
    let config = ConfigText::of(&configuration(cluster, identity, volume)?)?;
    let image = spec.node_image.as_deref().unwrap_or(&installation.node_image);
    let sources = Sources { identity, spec, volume, image, config_hash: &config.hash };
    let data = json!({"data": {paths::CONFIG_FILE: config.text}});
    let mut children = vec![
        service_account(identity, spec.bucket.auth.workload_identity.as_ref()),
        Child::new(Kind::ConfigMap, identity, identity.config_map(), data),
        services::nodes(identity),
        services::clients(identity, &spec.service),
    ];
    children.extend(network_policy::policy(identity, &spec.network_policy, installation));
    children.push(disruption::budget(identity, &spec.pod_disruption_budget));
    children.push(stateful_set::nodes(&sources));
    children.extend(ingress::ingress(identity, spec));
    children.extend(monitor::monitor(identity, &spec.monitoring));
    Ok(Built { children, config_hash: config.hash })
}

fn service_account(identity: &Identity, workload: Option<&WorkloadIdentity>) -> Child {
    // Nodes do not use the API server.
    let body = json!({"automountServiceAccountToken": false});
    let child = Child::new(Kind::ServiceAccount, identity, identity.name.clone(), body);
    match workload {
        Some(workload) => child.annotate(&workload.service_account_annotations),
        None => child,
    }
}
