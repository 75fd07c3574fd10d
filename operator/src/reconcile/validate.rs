//! What the schema cannot check: that the nodes will accept the configuration built from the spec,
//! and that Kubernetes can store its quantities.

use super::build::configuration;
use super::storage::Volume;
use crate::crd::RegistryCluster;
use crate::names::Identity;
use entrepot_config::{ConfigError, NodeConfig};

/// A cluster that the schema admitted and that is not valid.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// The nodes would reject their configuration.
    #[error(
        "registry pods would reject the configuration built from this spec (store.* is spec.store.*, bucket.s3.* is \
        spec.bucket.*): {0}"
    )]
    Config(#[from] ConfigError),
    /// Kubernetes would store another quantity, which the operator would change back for ever.
    #[error("{field}: {quantity} is too large; the largest quantity of Kubernetes is {}", i64::MAX)]
    Quantity { field: String, quantity: String },
}

/// Checks the configuration for volumes as in the spec. The configuration for volumes that still
/// have another size is then valid too: [`configuration`] uses their size only if the thresholds
/// fit it.
///
/// # Errors
/// If a quantity cannot be stored, or a node would reject its configuration; the message names the
/// field.
pub fn validate(cluster: &RegistryCluster) -> Result<(), Invalid> {
    let resources = &cluster.spec.resources;
    for (name, quantities) in [("requests", &resources.requests), ("limits", &resources.limits)] {
        if let Some((resource, quantity)) = quantities.iter().find(|(_, quantity)| !quantity.is_storable()) {
            let field = format!("spec.resources.{name}.{resource}");
            return Err(Invalid::Quantity { field, quantity: quantity.to_string() });
        }
    }
    let identity = Identity::of(cluster);
    let config = configuration(cluster, &identity, &Volume::desired(&cluster.spec.store))?;
    // Parsed as a node parses it, except for the name, which only its pod knows.
    NodeConfig::from_yaml(&config.to_sparse_yaml()?)?;
    Ok(())
}
