//! Runs the benchmarks, which are a crate of their own (`e2e/bench`), so that the tests do not build
//! what only benchmarks need.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::{Command, ExitCode};

/// Builds the benchmarks with optimisation and runs them.
///
/// # Errors
/// If cargo cannot be run, or a benchmark failed.
pub fn run(names: &[String], short: bool) -> Result<ExitCode> {
    let status = Command::new("cargo")
        .args(["run", "--release", "--quiet", "--package", "entrepot-bench", "--"])
        .args(short.then_some("--short"))
        .args(names)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "the benchmarks failed: {status}");
    Ok(ExitCode::SUCCESS)
}
