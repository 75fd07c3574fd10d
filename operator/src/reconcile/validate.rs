//! What the schema cannot check: that the nodes will accept the configuration built from the spec.

use super::build::configuration;
use super::storage::Volume;
use crate::crd::RegistryCluster;
use crate::names::Identity;
use entrepot_config::{ConfigError, NodeConfig};

/// A cluster that the schema admitted and whose configuration the nodes would reject.
#[derive(Debug, thiserror::Error)]
#[error(
    "registry pods would reject the configuration built from this spec (store.* is spec.store.*, bucket.s3.* is \
    spec.bucket.*): {0}"
)]
pub struct Invalid(#[from] ConfigError);

/// Checks the configuration for volumes as in the spec. The configuration for volumes that still
/// have another size is then valid too: [`configuration`] uses their size only if the thresholds
/// fit it.
///
/// # Errors
/// If a node would reject its configuration; the message names the node's field.
pub fn validate(cluster: &RegistryCluster) -> Result<(), Invalid> {
    let identity = Identity::of(cluster);
    let config = configuration(cluster, &identity, &Volume::desired(&cluster.spec.store))?;
    // Parsed as a node parses it, except for the name, which only its pod knows.
    NodeConfig::from_yaml(&config.to_sparse_yaml()?)?;
    Ok(())
}
