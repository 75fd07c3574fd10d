//! What is tried on a real cluster, by name. All scenarios of a run share one cluster; each uses a namespace of its own.

mod again;
mod away;
mod conditions;
mod drift;
mod given;
mod grow;
mod hundred;
mod keys;
mod lost;
mod meet;
mod missing;
mod recreated;
mod refused;
mod registry;
mod whole;

pub use registry::{NAMESPACE, deploy, show};

use crate::cluster::{self, Cluster, Lifetime, Options};
use anyhow::{Context, Result, bail};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// No scenario takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(900);
/// Scenarios at a time. Most of one is waiting, and the machine may be small.
const TOGETHER: usize = 3;

/// One of them: its name, and what it does. It fails by its error.
pub struct Scenario {
    pub name: &'static str,
    company: Company,
    run: for<'a> fn(&'a Cluster) -> BoxFuture<'a, Result<()>>,
}

/// Whether others may run beside a scenario.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Company {
    /// It touches nothing but its own namespaces.
    Welcome,
    /// It touches what others stand on: S3, the operator, nodes of the cluster.
    Alone,
}

/// Every scenario, in the order in which they begin. Those that stand together and may run together do.
pub const SCENARIOS: [Scenario; 13] = [
    Scenario {
        name: "cluster_is_whole",
        company: Company::Alone,
        run: |cluster| whole::cluster_is_whole(cluster).boxed(),
    },
    Scenario { name: "from_nothing", company: Company::Alone, run: |cluster| registry::from_nothing(cluster).boxed() },
    Scenario {
        name: "drift_is_put_back",
        company: Company::Welcome,
        run: |cluster| drift::drift_is_put_back(cluster).boxed(),
    },
    Scenario {
        name: "what_is_wrong_is_refused",
        company: Company::Welcome,
        run: |cluster| refused::what_is_wrong_is_refused(cluster).boxed(),
    },
    Scenario {
        name: "deleted_and_applied_again",
        company: Company::Welcome,
        run: |cluster| again::deleted_and_applied_again(cluster).boxed(),
    },
    Scenario {
        name: "nodes_are_recreated_one_at_a_time",
        company: Company::Welcome,
        run: |cluster| recreated::nodes_are_recreated_one_at_a_time(cluster).boxed(),
    },
    Scenario {
        name: "two_registries_do_not_meet",
        company: Company::Welcome,
        run: |cluster| meet::two_registries_do_not_meet(cluster).boxed(),
    },
    Scenario {
        name: "what_is_missing_has_a_reason",
        company: Company::Welcome,
        run: |cluster| missing::what_is_missing_has_a_reason(cluster).boxed(),
    },
    Scenario {
        name: "keys_are_rotated_under_load",
        company: Company::Welcome,
        run: |cluster| keys::keys_are_rotated_under_load(cluster).boxed(),
    },
    Scenario {
        name: "the_bucket_is_away",
        company: Company::Alone,
        run: |cluster| away::the_bucket_is_away(cluster).boxed(),
    },
    Scenario {
        name: "lost_nodes_lose_no_image",
        company: Company::Alone,
        run: |cluster| lost::lost_nodes_lose_no_image(cluster).boxed(),
    },
    Scenario { name: "volumes_grow", company: Company::Alone, run: |cluster| grow::volumes_grow(cluster).boxed() },
    Scenario {
        name: "a_hundred_registries_settle",
        company: Company::Alone,
        run: |cluster| hundred::a_hundred_registries_settle(cluster).boxed(),
    },
];

/// Runs those of these names, or all, on one cluster. `program` is `cargo e2e` itself. Every scenario runs, whatever
/// became of the one before it.
///
/// # Errors
/// When there is no scenario of a name, or one failed.
pub async fn run(program: PathBuf, names: &[String]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| SCENARIOS.iter().all(|scenario| scenario.name != name.as_str())) {
        let known: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        bail!("there is no scenario {unknown}; there are {}", known.join(", "));
    }
    let options = Options { lifetime: Lifetime::Ours, nodes: 2, program };
    // The others look at what this one installs.
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
        if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
    })
    .await
}

/// Runs a scenario and says what became of it. Returns its name when it failed.
async fn perform(scenario: &Scenario, cluster: &Cluster) -> Option<&'static str> {
    println!("\n== {}", scenario.name);
    let start = Instant::now();
    let result = tokio::time::timeout(PATIENCE, (scenario.run)(cluster)).await;
    let result = result.context("it hangs").and_then(|result| result);
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
    Some(scenario.name)
}
