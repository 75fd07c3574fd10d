//! The scenarios: tests on a Kubernetes cluster. All scenarios of a run share one cluster; each
//! uses its own namespaces.

mod allowed;
mod autoscaler;
mod bad_image;
mod bucket_outage;
mod conditions;
mod crd_rules;
mod deployment;
mod drift;
mod error_isolation;
mod eviction_thresholds;
mod examples;
mod fixture;
mod idle;
mod key_rotation;
mod kustomize;
mod leader_failover;
mod load;
mod many_registries;
mod missing_prerequisites;
mod node_loss;
mod nodes;
mod operator;
mod operator_upgrade;
mod optional_objects;
mod permissions;
mod reapply;
mod rejected_specs;
mod scaling;
mod secrets;
mod smoke;
mod steady_pulls;
mod two_clusters;
mod volume_expansion;
mod volume_recreation;
mod watched_namespaces;

pub use deployment::{REGISTRY, deploy, show};

use crate::cluster::{self, Cluster, ExternalCluster, Kubectl, Lifetime, Options, OwnCluster};
use anyhow::{Context, Result, bail};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Time limit of a scenario; only one that hangs reaches it.
const TIMEOUT: Duration = Duration::from_secs(900);
/// Number of scenarios that run at the same time. They mostly wait, and the machine may be small.
const TOGETHER: usize = 3;

/// A scenario: its name and its function, which fails by returning an error.
pub struct Scenario {
    pub name: &'static str,
    concurrency: Concurrency,
    run: Run,
}

/// The clusters on which a scenario can run.
#[derive(Clone, Copy)]
enum Run {
    OnAnyCluster(for<'a> fn(&'a dyn Cluster) -> BoxFuture<'a, Result<()>>),
    /// It kills processes, cuts off S3, or reads logs of the control plane and the S3 server.
    OnOwnCluster(for<'a> fn(&'a OwnCluster) -> BoxFuture<'a, Result<()>>),
}

/// Whether other scenarios may run at the same time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Concurrency {
    /// It uses only its own namespaces.
    Parallel,
    /// It affects shared parts: S3, the operator, or Kubernetes nodes.
    Exclusive,
}

/// A scenario named after its function.
macro_rules! scenario {
    ($concurrency:ident, $run:ident, $module:ident::$name:ident) => {
        Scenario {
            name: stringify!($name),
            concurrency: Concurrency::$concurrency,
            run: Run::$run(|cluster| $module::$name(cluster).boxed()),
        }
    };
}

/// All scenarios in the order in which they start. Adjacent `Parallel` scenarios run at the same
/// time.
pub const SCENARIOS: [Scenario; 32] = [
    scenario!(Exclusive, OnOwnCluster, smoke::the_cluster_works),
    scenario!(Exclusive, OnAnyCluster, kustomize::kubectl_installs_the_operator),
    scenario!(Exclusive, OnAnyCluster, deployment::a_registry_is_deployed),
    scenario!(Exclusive, OnOwnCluster, deployment::kubelets_pull_from_the_registry),
    scenario!(Parallel, OnOwnCluster, idle::an_idle_registry_writes_nothing),
    scenario!(Parallel, OnAnyCluster, drift::drift_is_reverted),
    scenario!(Parallel, OnAnyCluster, rejected_specs::an_invalid_registry_is_rejected),
    scenario!(Parallel, OnAnyCluster, crd_rules::every_crd_rule_is_enforced),
    scenario!(Parallel, OnAnyCluster, scaling::scaling_loses_nothing),
    scenario!(Parallel, OnAnyCluster, eviction_thresholds::thresholds_reach_running_nodes),
    scenario!(Parallel, OnOwnCluster, bad_image::a_bad_image_stops_at_one_node),
    scenario!(Parallel, OnOwnCluster, autoscaler::an_autoscaler_scales_the_registry),
    scenario!(Parallel, OnAnyCluster, reapply::a_deleted_registry_is_applied_again),
    scenario!(Parallel, OnOwnCluster, volume_recreation::nodes_are_recreated_one_at_a_time),
    scenario!(Parallel, OnAnyCluster, two_clusters::registries_are_isolated_from_each_other),
    scenario!(Parallel, OnOwnCluster, missing_prerequisites::a_missing_prerequisite_is_reported),
    scenario!(Parallel, OnAnyCluster, secrets::a_secret_has_to_allow_its_use),
    scenario!(Parallel, OnAnyCluster, allowed::a_spec_that_is_not_allowed_changes_nothing),
    scenario!(Parallel, OnOwnCluster, key_rotation::keys_are_rotated_under_load),
    scenario!(Parallel, OnAnyCluster, examples::the_minio_example_works),
    scenario!(Parallel, OnAnyCluster, examples::the_s3_example_works),
    scenario!(Parallel, OnAnyCluster, examples::the_gitops_example_works),
    scenario!(Parallel, OnAnyCluster, examples::the_hpa_example_works),
    scenario!(Exclusive, OnAnyCluster, error_isolation::an_unusable_registry_stops_no_other),
    scenario!(Exclusive, OnOwnCluster, leader_failover::leader_killed_in_a_rollout),
    scenario!(Exclusive, OnAnyCluster, operator_upgrade::an_upgrade_restarts_no_node),
    scenario!(Exclusive, OnAnyCluster, watched_namespaces::an_operator_of_one_namespace_leaves_the_others_alone),
    scenario!(Exclusive, OnOwnCluster, bucket_outage::the_bucket_is_unreachable),
    scenario!(Exclusive, OnOwnCluster, node_loss::lost_nodes_lose_no_image),
    scenario!(Exclusive, OnOwnCluster, volume_expansion::volumes_are_expanded),
    scenario!(Exclusive, OnOwnCluster, many_registries::a_hundred_registries_settle),
    // The last one, because it checks the operator's requests in all other scenarios.
    scenario!(Exclusive, OnOwnCluster, permissions::the_operator_uses_all_of_its_permissions),
];

/// Whether all scenarios run. Only then can the last one require what all of them together use.
static COMPLETE: AtomicBool = AtomicBool::new(false);

fn is_complete() -> bool {
    COMPLETE.load(Ordering::Relaxed)
}

/// Runs the named scenarios, or all, on one cluster: the one that the environment names
/// ([`ExternalCluster`]), or one of our own. `program` is `cargo e2e` itself. A failed scenario does
/// not stop the others.
///
/// # Errors
/// If a name is not the name of a scenario, or a scenario failed.
pub async fn run(program: PathBuf, names: &[String]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| SCENARIOS.iter().all(|scenario| scenario.name != name.as_str())) {
        let known: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        bail!("unknown scenario \"{unknown}\"; scenarios: {}", known.join(", "));
    }
    COMPLETE.store(names.is_empty(), Ordering::Relaxed);
    // The others use what the deployment installs.
    let is_chosen = |scenario: &&Scenario| {
        names.is_empty() || scenario.name == "a_registry_is_deployed" || names.iter().any(|name| name == scenario.name)
    };
    let chosen: Vec<_> = SCENARIOS.iter().filter(is_chosen).collect();
    if let Some(external) = ExternalCluster::from_environment().await? {
        let result = run_on(&external, &chosen).await;
        let removed = async {
            deployment::remove(&external).await?;
            external.kubectl(["delete", "namespace", "storage"]).await.map(drop)
        };
        return result.and(removed.await);
    }
    let options = Options { lifetime: Lifetime::Ours, nodes: 2, program };
    cluster::with(options, async |cluster| run_on(cluster, &chosen).await).await
}

async fn run_on(cluster: &dyn Cluster, chosen: &[&Scenario]) -> Result<()> {
    let may_overlap = |scenario: &Scenario| scenario.concurrency == Concurrency::Parallel;
    let mut failed = Vec::new();
    for group in chosen.chunk_by(|one, next| may_overlap(one) && may_overlap(next)) {
        let outcomes = stream::iter(group).map(|scenario| perform(scenario, cluster)).buffer_unordered(TOGETHER);
        failed.extend(outcomes.filter_map(std::future::ready).collect::<Vec<_>>().await);
    }
    if failed.is_empty() { Ok(()) } else { bail!("{} failed:\n{}", failed.len(), failed.join("\n")) }
}

/// Runs a scenario and prints its result. Returns its name and error if it failed.
async fn perform(scenario: &Scenario, cluster: &dyn Cluster) -> Option<String> {
    println!("\n== {}", scenario.name);
    let work = match (scenario.run, cluster.own()) {
        (Run::OnAnyCluster(run), _) => run(cluster),
        (Run::OnOwnCluster(run), Some(own)) => run(own),
        (Run::OnOwnCluster(_), None) => {
            println!(
                "== {} skipped: it needs the nodes, the S3 server or the audit log of our own cluster",
                scenario.name
            );
            return None;
        }
    };
    let start = Instant::now();
    let result = tokio::time::timeout(TIMEOUT, work).await;
    let result = result.with_context(|| format!("scenario timed out after {TIMEOUT:?}")).and_then(|result| result);
    let word = if result.is_ok() { "ok" } else { "FAILED" };
    println!("== {} {word} in {:.1}s", scenario.name, start.elapsed().as_secs_f64());
    let error = result.err()?;
    println!("{error:?}");
    for look in [
        "get rgc,pods,pvc,events -A -o wide",
        "-n entrepot-system logs -l app.kubernetes.io/name=entrepot-operator --tail=60",
    ] {
        println!("{}", cluster.kubectl(look.split(' ')).await.unwrap_or_else(|error| format!("{error:#}")));
    }
    // Printed once more at the end, where a reader of only the summary finds it.
    Some(format!("{}: {error:#}", scenario.name))
}
