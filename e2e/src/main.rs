//! `cargo e2e`: runs what a change must pass, installs the programs of the tests, measures, and runs a cluster.

use anyhow::Result;
use clap::{Parser, Subcommand};
use entrepot_e2e::history::{self, BucketKind};
use entrepot_e2e::{bench, check, cluster, races, scenarios, tools, up};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Entrepot against real clients, real S3 servers, real faults and a real Kubernetes.
#[derive(Parser)]
#[command(name = "cargo e2e")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs every check, or only the steps that are named.
    Check {
        /// Names of steps, as the headings have them.
        steps: Vec<String>,
    },
    /// Installs the programs of the tests.
    Tools,
    /// Measures the node, alone and beside other registries, and writes docs/performance.md and docs/benchmarks.md; of
    /// what is named, prints it, and writes only a document that is of nothing else.
    Bench {
        /// Takes minutes, writes nothing, and says which ratio has moved since they were written.
        #[arg(long)]
        short: bool,
        /// Names of measurements.
        names: Vec<String>,
    },
    /// Lets clients and faults loose on three nodes and checks the history, for longer than `check history` does.
    History {
        /// Where the choices of clients and faults come from; a new one each time when it is not given.
        #[arg(long)]
        seed: Option<u64>,
        /// How long in all.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// Only over this bucket, and not over each for half of the time.
        #[arg(long)]
        bucket: Option<BucketKind>,
        /// Tags move back to earlier manifests, and no request arrives late.
        #[arg(long)]
        move_back: bool,
    },
    /// Runs the node's tests of interleaved requests over a folder, versitygw and MinIO.
    Races,
    /// Starts a Kubernetes with a registry in it, and leaves it running.
    Up,
    /// The same, then pushes an image and runs a pod of it that the kubelet pulls from the registry.
    Demo,
    /// Runs every scenario on a cluster of its own, or only those that are named.
    Test {
        /// Names of scenarios.
        names: Vec<String>,
    },
    /// Stops what `up` and `demo` started and removes all of it.
    Down,
    /// Provides the volumes of a cluster; a part of `up`.
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
        Command::Up => wait_for(up::up()),
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
