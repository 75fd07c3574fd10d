//! The operator of Entrepot: it turns `RegistryCluster` resources into running nodes. `docs/architecture.md` tells the
//! story; [`reconcile`] is the table of contents.

pub mod crd;
pub mod health;
pub mod leader;
pub mod lists;
pub mod metrics;
pub mod names;
pub mod nodes;
pub mod parsed;
pub mod reconcile;
pub mod run;
pub mod watch;
