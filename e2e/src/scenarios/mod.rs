//! The scenarios: tests on a Kubernetes cluster. All scenarios of a run share one cluster; each
//! uses its own namespaces.

mod again;
mod autoscaler;
mod away;
mod bad_image;
mod conditions;
mod drift;
mod given;
mod grow;
mod hundred;
mod idle;
mod isolated;
mod keys;
mod kustomized;
mod leader;
mod load;
mod lost;
mod meet;
mod missing;
mod operator;
mod permissions;
mod pods;
mod recreated;
mod refused;
mod registry;
mod rest;
mod rules;
mod scaling;
mod thresholds;
mod upgrade;
mod whole;

pub use registry::{NAMESPACE, deploy, show};

use crate::cluster::{self, Cluster, Lifetime, Options};
use anyhow::{Context, Result, bail};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Time limit of a scenario; only one that hangs reaches it.
const PATIENCE: Duration = Duration::from_secs(900);
/// Number of scenarios that run at the same time. They mostly wait, and the machine may be small.
const TOGETHER: usize = 3;

/// A scenario: its name and its function, which fails by returning an error.
pub struct Scenario {
    pub name: &'static str,
    company: Company,
    run: for<'a> fn(&'a Cluster) -> BoxFuture<'a, Result<()>>,
}

/// Whether other scenarios may run at the same time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Company {
    /// It uses only its own namespaces.
    Welcome,
    /// It affects shared parts: S3, the operator, or Kubernetes nodes.
    Alone,
}

/// A scenario named after its function.
macro_rules! scenario {
    ($company:ident, $module:ident::$name:ident) => {
        Scenario { name: stringify!($name), company: Company::$company, run: |cluster| $module::$name(cluster).boxed() }
    };
}

/// All scenarios in the order in which they start. Adjacent `Welcome` scenarios run at the same
/// time.
pub const SCENARIOS: [Scenario; 24] = [
    scenario!(Alone, whole::cluster_is_whole),
    scenario!(Alone, kustomized::kubectl_installs_the_operator_too),
    scenario!(Alone, registry::from_nothing),
    scenario!(Welcome, idle::idle_writes_nothing),
    scenario!(Welcome, drift::drift_is_reverted),
    scenario!(Welcome, refused::what_is_wrong_is_refused),
    scenario!(Welcome, rules::every_rule_holds),
    scenario!(Welcome, scaling::scaling_loses_nothing),
    scenario!(Welcome, thresholds::thresholds_reach_running_nodes),
    scenario!(Welcome, bad_image::a_bad_image_stops_at_one_node),
    scenario!(Welcome, autoscaler::an_autoscaler_scales_it),
    scenario!(Welcome, again::deleted_and_applied_again),
    scenario!(Welcome, recreated::nodes_are_recreated_one_at_a_time),
    scenario!(Welcome, meet::two_registries_do_not_meet),
    scenario!(Welcome, missing::what_is_missing_has_a_reason),
    scenario!(Welcome, keys::keys_are_rotated_under_load),
    scenario!(Alone, isolated::one_object_stops_nothing),
    scenario!(Alone, leader::leader_killed_in_a_rollout),
    scenario!(Alone, upgrade::an_upgrade_restarts_no_node),
    scenario!(Alone, away::the_bucket_is_away),
    scenario!(Alone, lost::lost_nodes_lose_no_image),
    scenario!(Alone, grow::volumes_grow),
    scenario!(Alone, hundred::a_hundred_registries_settle),
    // The last one, because it checks the operator's requests in all other scenarios.
    scenario!(Alone, permissions::the_operator_may_do_no_more_than_it_does),
];

/// Whether all scenarios run. Only then can the last one require what all of them together use.
static COMPLETE: AtomicBool = AtomicBool::new(false);

fn is_complete() -> bool {
    COMPLETE.load(Ordering::Relaxed)
}

/// Runs the named scenarios, or all, on one cluster. `program` is `cargo e2e` itself. A failed
/// scenario does not stop the others.
///
/// # Errors
/// If a name is not the name of a scenario, or a scenario failed.
pub async fn run(program: PathBuf, names: &[String]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| SCENARIOS.iter().all(|scenario| scenario.name != name.as_str())) {
        let known: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        bail!("unknown scenario \"{unknown}\"; scenarios: {}", known.join(", "));
    }
    COMPLETE.store(names.is_empty(), Ordering::Relaxed);
    let options = Options { lifetime: Lifetime::Ours, nodes: 2, program };
    // The others use what this one installs.
    let is_chosen = |scenario: &&Scenario| {
        names.is_empty() || scenario.name == "from_nothing" || names.iter().any(|name| name == scenario.name)
    };
    let chosen: Vec<_> = SCENARIOS.iter().filter(is_chosen).collect();
    cluster::with(options, async |cluster| {
        let mut failed = Vec::new();
        for group in chosen.chunk_by(|one, next| one.company == Company::Welcome && next.company == Company::Welcome) {
            let outcomes = stream::iter(group).map(|scenario| perform(scenario, cluster)).buffer_unordered(TOGETHER);
            failed.extend(outcomes.filter_map(std::future::ready).collect::<Vec<_>>().await);
        }
        if failed.is_empty() { Ok(()) } else { bail!("{} failed:\n{}", failed.len(), failed.join("\n")) }
    })
    .await
}

/// Runs a scenario and prints its result. Returns its name and error if it failed.
async fn perform(scenario: &Scenario, cluster: &Cluster) -> Option<String> {
    println!("\n== {}", scenario.name);
    let start = Instant::now();
    let result = tokio::time::timeout(PATIENCE, (scenario.run)(cluster)).await;
    let result = result.with_context(|| format!("scenario timed out after {PATIENCE:?}")).and_then(|result| result);
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
