//! Benchmarks of Entrepot, and the documents that they write: one node and its references
//! (`docs/reference/performance.md`), and Entrepot compared with other registries (`docs/reference/benchmarks.md`).
//!
//! The servers, the clients and the content are those of the tests ([`entrepot_e2e`]). A benchmark
//! never fails because a figure misses its goal. The text of the documents is in `templates/`.

mod download;
mod hashing;
mod machine;
mod memory;
mod one_node;
mod peers;
mod samples;
mod template;
mod wrk;

use anyhow::{Result, bail};
use peers::{Form, Record};
use std::process::ExitCode;

/// Runs the named benchmarks, or all of them without names, and prints the results. Writes
/// `docs/reference/performance.md` if all benchmarks of that document ran, and `docs/reference/benchmarks.md` if all
/// benchmarks ran. The short form writes nothing; it reports the ratios that changed from
/// `docs/reference/benchmarks.json`.
///
/// # Errors
/// If a name is unknown or a server fails.
pub fn run(names: &[String], short: bool) -> Result<ExitCode> {
    let all = || one_node::NAMES.into_iter().chain(peers::NAMES);
    if let Some(unknown) = names.iter().find(|name| all().all(|known| known != name.as_str())) {
        bail!("unknown benchmark {unknown:?}; benchmarks: {}", all().collect::<Vec<_>>().join(", "));
    }
    let is_wanted = |name: &&str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut figures = Vec::new();
    for name in one_node::NAMES.into_iter().filter(|name| is_wanted(name) && !short) {
        figures.extend(runtime.block_on(one_node::measure(name))?);
    }
    // Read before the benchmarks, so that a missing file is reported before minutes of measuring.
    let recorded = short.then(Record::read).transpose()?;
    let form = if short { Form::Short } else { Form::Whole };
    let mut sections = Vec::new();
    for name in peers::NAMES.into_iter().filter(is_wanted) {
        sections.push(runtime.block_on(peers::measure(name, form))?);
    }
    if let Some(recorded) = recorded {
        let worse = peers::compare(&recorded, &sections);
        return Ok(if worse { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    if one_node::NAMES.iter().all(is_wanted) {
        one_node::write(&figures)?;
    }
    if names.is_empty() {
        peers::write(&sections)?;
        peers::record(&sections)?;
    }
    Ok(ExitCode::SUCCESS)
}
