//! Runs the benchmarks. `cargo e2e bench` builds this program with optimisation and runs it.

use anyhow::{Result, ensure};
use clap::Parser;
use std::process::ExitCode;

/// Run the benchmarks and write docs/reference/performance.md and docs/reference/benchmarks.md. With names, run only
/// those benchmarks, print their results, and write a document only if all of its benchmarks ran.
#[derive(Parser)]
#[command(name = "cargo e2e bench")]
struct Arguments {
    /// Run a shorter version that takes minutes, write nothing, and report ratios that changed.
    #[arg(long)]
    short: bool,
    /// Benchmarks to run. Default: all.
    names: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let Arguments { short, names } = Arguments::parse();
    // The client takes part in each measurement.
    ensure!(!cfg!(debug_assertions), "this is a build without optimisation; run `cargo e2e bench`");
    entrepot_bench::run(&names, short)
}
