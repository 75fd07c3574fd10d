//! How fast the node is, each figure against something on the same machine that bounds it.
//!
//! A figure is the median of rounds that alternate between the node and what it is compared with, so that whatever
//! else the machine does meets both.

mod cpu;
mod load;
mod report;
mod runs;

use anyhow::{Context, Result, bail, ensure};
use report::Figure;
use std::process::{Command, ExitCode};

/// Rounds of each measurement.
const ROUNDS: usize = 5;
/// The blob that is pushed and pulled, in bytes.
const BLOB: u64 = 256 << 20;

const NAMES: [&str; 5] = ["stored-blob", "push", "missed-blob", "stored-manifest", "start"];

/// Measures what is named and prints it; with no names, everything, and writes `docs/performance.md`.
///
/// # Errors
/// When there is no measurement of a name, or a server fails.
pub fn run(names: &[String]) -> Result<ExitCode> {
    if cfg!(debug_assertions) {
        return optimised(names);
    }
    if let Some(unknown) = names.iter().find(|name| !NAMES.contains(&name.as_str())) {
        bail!("there is no measurement {unknown}; there are {}", NAMES.join(", "));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut figures = Vec::new();
    for name in NAMES.into_iter().filter(|name| names.is_empty() || names.iter().any(|wanted| wanted == name)) {
        println!("measuring {name}");
        let found: Vec<Figure> = runtime.block_on(measure(name)).with_context(|| format!("measuring {name}"))?;
        found.iter().for_each(|figure| println!("{}", figure.row()));
        figures.extend(found);
    }
    if names.is_empty() {
        report::write(&figures)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(name: &str) -> Result<Vec<Figure>> {
    match name {
        "stored-blob" => runs::stored_blob().await.map(|figure| vec![figure]),
        "push" => runs::push().await.map(|figure| vec![figure]),
        "missed-blob" => runs::missed_blob().await.map(|figure| vec![figure]),
        "stored-manifest" => runs::stored_manifest().await,
        _ => runs::start().await.map(|figure| vec![figure]),
    }
}

/// Runs this program again as an optimised build: the client is part of what is measured.
fn optimised(names: &[String]) -> Result<ExitCode> {
    let status = Command::new("cargo")
        .args(["run", "--release", "--quiet", "--package", "entrepot-e2e", "--", "bench"])
        .args(names)
        .status()?;
    ensure!(status.success(), "the measurements failed: {status}");
    Ok(ExitCode::SUCCESS)
}
