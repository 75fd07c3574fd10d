//! Compares Entrepot with other registries and caches over the same S3 server in the same run. This
//! module owns `docs/reference/benchmarks.md`, its plots, and the recorded ratios in `docs/reference/benchmarks.json`.

mod cost;
mod cpu_budget;
mod document;
mod eviction;
mod first_byte;
mod growth;
mod image_transfer;
mod layers;
mod load;
mod measured;
mod plot;
mod pull;
mod push;
mod record;
mod request_traces;
mod rounds;
mod s3_faults;
mod start_storm;
mod systems;
mod throughput;

pub use document::write;
pub use record::{Record, compare, record};
pub use rounds::Form;

use anyhow::{Context, Result};
use document::Section;

pub const NAMES: [&str; 7] = ["push-images", "pull-images", "start-storm", "s3-faults", "cleaning", "growth", "cost"];

/// Runs one benchmark and prints its section.
///
/// # Errors
/// If a system does not start or a whole load fails.
pub async fn measure(name: &str, form: Form) -> Result<Section> {
    println!("measuring {name}");
    let section = match name {
        "push-images" => push::measure(form).await,
        "pull-images" => pull::measure(form).await,
        "start-storm" => start_storm::measure(form).await,
        "s3-faults" => s3_faults::measure(form).await,
        "cleaning" => eviction::measure(form).await,
        "growth" => growth::measure(form).await,
        _ => cost::measure().await,
    };
    let section = section.with_context(|| format!("measuring {name}"))?;
    println!("{}", document::markdown(&section));
    Ok(section)
}
