//! Benchmarks of one node. Each figure is compared with a reference on the same machine that bounds
//! it. This module owns `docs/reference/performance.md`.
//!
//! A figure is the median of several rounds. The rounds alternate between the node and the
//! reference, so that other load of the machine affects both.

mod document;
mod figure;
mod runs;

pub use document::write;
pub use figure::Figure;

use anyhow::{Context, Result};

/// Number of rounds of each measurement.
const ROUNDS: usize = 5;

pub const NAMES: [&str; 5] = ["stored-blob", "push", "missed-blob", "stored-manifest", "start"];

/// Runs one benchmark and prints its figures.
///
/// # Errors
/// If a server fails.
pub async fn measure(name: &str) -> Result<Vec<Figure>> {
    println!("measuring {name}");
    let figures = match name {
        "stored-blob" => runs::stored_blob().await.map(|figure| vec![figure]),
        "push" => runs::push().await.map(|figure| vec![figure]),
        "missed-blob" => runs::missed_blob().await.map(|figure| vec![figure]),
        "stored-manifest" => runs::stored_manifest().await,
        _ => runs::start().await.map(|figure| vec![figure]),
    };
    let figures = figures.with_context(|| format!("measuring {name}"))?;
    for figure in &figures {
        println!("{}", figure.row());
        figure.note.iter().for_each(|note| println!("{note}"));
    }
    Ok(figures)
}
