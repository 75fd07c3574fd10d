//! Applies what was built with as few writes as there are differences, so none if nothing differs.
//! A failure is recorded, and everything that does not depend on it continues.

pub mod change;
mod child;
mod compare;
mod prune;
mod stuck_pods;
mod volumes;

pub use change::{Applied, Change};
pub use prune::prune;
pub use stuck_pods::delete_stuck_pods;
pub use volumes::take_step;

use super::build::{Child, Kind};
use super::context::Context;
use super::error::Failure;
use super::pass::Pass;

/// Applies each child on its own.
pub async fn children(pass: &Pass<'_>, children: &[Child], context: &Context) -> Applied {
    let mut applied = Applied::default();
    let mut dependencies_applied = pass.observed.knows_secrets();
    for child in children {
        let is_set = child.kind == Kind::StatefulSet;
        if is_set && !pass.plan.step.keeps_set() {
            continue;
        }
        let result = if is_set && !dependencies_applied {
            Err(Failure::DependencyFailed(child.label()))
        } else {
            child::apply(pass, child, context).await
        };
        match result {
            Ok(None) => {}
            Ok(Some(change)) => applied.record(change, pass, context),
            Err(failure) => {
                dependencies_applied &= !nodes_depend_on(child, &failure);
                if child.kind.is_of_nodes() {
                    applied.outcome.push_of_nodes(failure);
                } else {
                    applied.outcome.push(failure);
                }
            }
        }
    }
    applied
}

/// Nodes with a new configuration hash that start with the old ConfigMap would keep its
/// configuration, and pods need the cluster's own ServiceAccount. A registry whose Service names
/// belong to another owner is not started, and neither is one whose NetworkPolicy does not protect
/// it.
fn nodes_depend_on(child: &Child, failure: &Failure) -> bool {
    matches!(child.kind, Kind::ServiceAccount | Kind::ConfigMap | Kind::NetworkPolicy)
        || (child.kind == Kind::Service && matches!(failure, Failure::OwnedByOther(_)))
}
