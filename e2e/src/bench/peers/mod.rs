//! Compares Entrepot with other registries and caches over the same S3 server in the same run. This
//! module owns `docs/reference/benchmarks.md`, its plots, and the recorded ratios in `docs/reference/benchmarks.json`.

mod account;
mod cleaning;
mod cost;
mod document;
mod faults;
mod first_byte;
mod fleet;
mod growth;
mod layers;
mod load;
mod pull;
mod push;
mod rates;
mod record;
mod steps;
mod storm;
mod trace;

use anyhow::{Context, Result};
use document::Section;

/// Number of rounds of each measurement. The systems alternate within each round.
pub const ROUNDS: usize = 3;

/// The order of the systems in a round. The first system is another one in each round.
fn turns(round: usize, systems: usize) -> impl Iterator<Item = usize> {
    (0..systems).map(move |turn| (turn + round) % systems)
}

pub const NAMES: [&str; 7] = ["push-images", "pull-images", "start-storm", "s3-faults", "cleaning", "growth", "cost"];

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All measurements.
    Whole,
    /// Only what the recorded ratios need. Takes minutes.
    Short,
}

/// Runs one benchmark and prints its section.
///
/// # Errors
/// If a system does not start or a whole load fails.
pub async fn measure(name: &str, form: Form) -> Result<Section> {
    println!("measuring {name}");
    let section = match name {
        "push-images" => push::measure(form).await,
        "pull-images" => pull::measure(form).await,
        "start-storm" => storm::measure(form).await,
        "s3-faults" => faults::measure(form).await,
        "cleaning" => cleaning::measure(form).await,
        "growth" => growth::measure(form).await,
        _ => cost::measure().await,
    };
    let section = section.with_context(|| format!("measuring {name}"))?;
    println!("{}", document::markdown(&section));
    Ok(section)
}

pub use document::write;
pub use record::{Record, compare, record};
