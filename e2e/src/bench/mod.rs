//! Benchmarks of a node. Each figure is compared with a reference on the same machine that bounds
//! it.
//!
//! A figure is the median of several rounds. The rounds alternate between the node and the
//! reference, so that other load of the machine affects both. This module owns the benchmarks and
//! the documents that they write; it never fails because a figure misses its goal.

mod download;
mod load;
mod memory;
mod peers;
mod report;
mod runs;

use anyhow::{Context, Result, bail, ensure};
use peers::{Form, Record};
use report::Figure;
use std::process::{Command, ExitCode};

/// Number of rounds of each measurement.
const ROUNDS: usize = 5;
/// Size in bytes of the blob that is pushed and pulled.
const BLOB: u64 = 256 << 20;

const NAMES: [&str; 5] = ["stored-blob", "push", "missed-blob", "stored-manifest", "start"];

/// Runs the named benchmarks, or all of them without names, and prints the results. Writes
/// `docs/reference/performance.md` if all benchmarks of that document ran, and `docs/reference/benchmarks.md` if all
/// benchmarks ran. The short form writes nothing; it reports the ratios that changed from
/// `docs/reference/benchmarks.json`.
///
/// # Errors
/// If a name is unknown or a server fails.
pub fn run(names: &[String], short: bool) -> Result<ExitCode> {
    if cfg!(debug_assertions) {
        return optimised(names, short);
    }
    let all = || NAMES.into_iter().chain(peers::NAMES);
    if let Some(unknown) = names.iter().find(|name| all().all(|known| known != name.as_str())) {
        bail!("unknown benchmark {unknown:?}; benchmarks: {}", all().collect::<Vec<_>>().join(", "));
    }
    let wanted = |name: &&str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut figures = Vec::new();
    for name in NAMES.into_iter().filter(|name| wanted(name) && !short) {
        println!("measuring {name}");
        let found: Vec<Figure> = runtime.block_on(measure(name)).with_context(|| format!("measuring {name}"))?;
        for figure in &found {
            println!("{}", figure.row());
            figure.note.iter().for_each(|note| println!("{note}"));
        }
        figures.extend(found);
    }
    // Read before the benchmarks, so that a missing file is reported before minutes of measuring.
    let recorded = short.then(Record::read).transpose()?;
    let form = if short { Form::Short } else { Form::Whole };
    let mut sections = Vec::new();
    for name in peers::NAMES.into_iter().filter(wanted) {
        sections.push(runtime.block_on(peers::measure(name, form))?);
    }
    if let Some(recorded) = recorded {
        let worse = peers::compare(&recorded, &sections);
        return Ok(if worse { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    if NAMES.iter().all(wanted) {
        report::write(&figures)?;
    }
    if names.is_empty() {
        peers::write(&sections)?;
        peers::record(&sections)?;
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

/// Runs this program again as an optimised build, because the client takes part in each
/// measurement.
fn optimised(names: &[String], short: bool) -> Result<ExitCode> {
    let status = Command::new("cargo")
        .args(["run", "--release", "--quiet", "--package", "entrepot-e2e", "--", "bench"])
        .args(names)
        .args(short.then_some("--short"))
        .status()?;
    ensure!(status.success(), "the benchmarks failed: {status}");
    Ok(ExitCode::SUCCESS)
}
