//! `cargo e2e`: runs all checks, installs the programs that the tests need, runs benchmarks, and
//! runs a Kubernetes cluster.

use anyhow::Result;
use clap::{Parser, Subcommand};
use entrepot_e2e::history::{self, BucketKind};
use entrepot_e2e::{bench, check, cluster, races, scenarios, tools, up};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Test Entrepot with real clients, S3 servers, faults and a real Kubernetes cluster.
#[derive(Parser)]
#[command(name = "cargo e2e")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run all checks that a change must pass, or only the named steps.
    Check {
        /// Steps to run, such as clippy or counts; an unknown name lists them all. Default: all.
        steps: Vec<String>,
    },
    /// Install the programs that the tests need.
    Tools,
    /// Run the benchmarks and write docs/reference/performance.md and docs/reference/benchmarks.md. With names, run
    /// only those benchmarks, print their results, and write a document only if all of its
    /// benchmarks ran.
    Bench {
        /// Run a shorter version that takes minutes, write nothing, and report ratios that changed.
        #[arg(long)]
        short: bool,
        /// Benchmarks to run. Default: all.
        names: Vec<String>,
    },
    /// Run clients and faults against three nodes and check the history, longer than `check
    /// history` does.
    History {
        /// Seed for the choices of clients and faults. Default: a new seed for each run.
        #[arg(long)]
        seed: Option<u64>,
        /// Duration of the whole run in minutes.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Run over this bucket only. Default: over each bucket for half of the time.
        #[arg(long)]
        bucket: Option<BucketKind>,
        /// Move tags back to earlier manifests, and let no request arrive late.
        #[arg(long)]
        move_back: bool,
    },
    /// Run the node's tests of interleaved requests over a folder, versitygw and MinIO.
    Races,
    /// Start a Kubernetes cluster with a registry, and keep it running.
    Up {
        /// Install nothing in the cluster, and print the variables with which `test` runs scenarios on it as on any
        /// other cluster.
        #[arg(long)]
        empty: bool,
    },
    /// Run `up`, then push an image and start a pod that pulls it from the registry.
    Demo,
    /// Run scenarios on a cluster of their own, or on the one that ENTREPOT_E2E_KUBECONFIG names.
    Test {
        /// Scenarios to run. Default: all.
        names: Vec<String>,
    },
    /// Stop the clusters that `up` and `demo` started, and remove everything that they created.
    Down,
    /// Run the volume provisioner of a cluster; a part of `up`.
    #[command(hide = true)]
    Provision {
        #[arg(long)]
        kubeconfig: PathBuf,
        #[arg(long)]
        machines: PathBuf,
    },
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Check { steps } => check::run(&steps),
        Command::Tools => tools::install_all().map(|()| ExitCode::SUCCESS),
        Command::Bench { short, names } => bench::run(&names, short),
        Command::History { seed, minutes, bucket, move_back } => {
            let seed = seed.unwrap_or_else(history::fresh_seed);
            let run = history::run_all(seed, Duration::from_secs(minutes * 60), bucket, move_back);
            runtime()?.block_on(run).map(|clean| if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Races => wait_for(races::run()),
        Command::Up { empty: false } => wait_for(up::up()),
        Command::Up { empty: true } => wait_for(up::empty()),
        Command::Demo => wait_for(up::demo()),
        Command::Test { names } => wait_for(scenarios::run(std::env::current_exe()?, &names)),
        Command::Down => wait_for(up::down()),
        Command::Provision { kubeconfig, machines } => wait_for(cluster::provision(&kubeconfig, machines)),
    }
}

fn wait_for(work: impl Future<Output = Result<()>>) -> Result<ExitCode> {
    runtime()?.block_on(work).map(|()| ExitCode::SUCCESS)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
