//! The Entrepot operator. It creates and updates the registry nodes that a `RegistryCluster`
//! describes. `docs/explanation/operator.md` explains the design; `reconcile` is the table of contents.

pub mod allowed;
mod api_error;
pub mod app;
mod crd;
mod health;
pub mod installation;
mod leader;
mod lists;
mod metrics;
mod names;
mod node_status;
mod parsed;
mod reconcile;
#[cfg(test)]
mod testing;
mod watch;

pub use crd::{RegistryCluster, definition, definition_yaml};
pub use names::MANAGER;
