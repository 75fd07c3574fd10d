//! What is tried on a real cluster, by name. All scenarios of a run share one cluster; each uses a namespace of its own.

mod drift;
mod refused;
mod registry;
mod whole;

pub use registry::{NAMESPACE, deploy, show};

use crate::cluster::{self, Cluster, Lifetime, Options};
use anyhow::{Context, Result, bail};
use futures::future::{BoxFuture, FutureExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// No scenario takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(900);

/// One of them: its name, and what it does. It fails by its error.
pub struct Scenario {
    pub name: &'static str,
    run: for<'a> fn(&'a mut Cluster) -> BoxFuture<'a, Result<()>>,
}

/// Every scenario, in the order in which they run: those that hurt the cluster come last.
pub const SCENARIOS: [Scenario; 5] = [
    Scenario { name: "cluster_is_whole", run: |cluster| whole::cluster_is_whole(cluster).boxed() },
    Scenario { name: "from_nothing", run: |cluster| registry::from_nothing(cluster).boxed() },
    Scenario { name: "drift_is_put_back", run: |cluster| drift::drift_is_put_back(cluster).boxed() },
    Scenario { name: "what_is_wrong_is_refused", run: |cluster| refused::what_is_wrong_is_refused(cluster).boxed() },
    Scenario { name: "s3_is_cut_and_restored", run: |cluster| whole::s3_is_cut_and_restored(cluster).boxed() },
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
    cluster::with(options, async |cluster| {
        let mut failed = Vec::new();
        // The others look at what this one installs.
        let chosen = |scenario: &&Scenario| {
            names.is_empty() || scenario.name == "from_nothing" || names.iter().any(|name| name == scenario.name)
        };
        for scenario in SCENARIOS.iter().filter(chosen) {
            println!("\n== {}", scenario.name);
            let start = Instant::now();
            let result = tokio::time::timeout(PATIENCE, (scenario.run)(cluster)).await;
            let result = result.context("it hangs").and_then(|result| result);
            let word = if result.is_ok() { "ok" } else { "FAILED" };
            println!("== {} {word} in {:.1}s", scenario.name, start.elapsed().as_secs_f64());
            if let Err(error) = result {
                println!("{error:?}");
                println!("{}", cluster.kubectl(["get", "pods,pvc,events", "-A", "-o", "wide"]).await?);
                failed.push(scenario.name);
            }
        }
        if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
    })
    .await
}
