//! The Entrepot operator. It creates and updates the registry nodes that a `RegistryCluster`
//! describes. `docs/architecture.md` explains the design; [`reconcile`] is the table of contents.

pub mod app;
pub mod crd;
pub mod health;
pub mod leader;
pub mod lists;
pub mod metrics;
pub mod names;
pub mod node_status;
pub mod parsed;
pub mod reconcile;
pub mod watch;
