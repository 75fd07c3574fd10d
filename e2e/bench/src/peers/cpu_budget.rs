//! Explains what bounds uncached pulls if clients, S3 and the system share the cores of one
//! machine.

use super::measured::{All, Measured, UNCACHED};
use super::systems::{DISTRIBUTION, ENTREPOT, NGINX, S3_SERVER};
use crate::hashing::{BLOB, hash};
use crate::memory;
use crate::samples::{GIB, MIB};
use crate::template::{render, template};
use anyhow::{Context, Result};
use entrepot_e2e::content::Content;
use minijinja::context;
use std::io::Write;
use std::time::Instant;

/// The goal for uncached pulls, as a multiple of Distribution's throughput.
pub const GOAL: f64 = 1.3;

/// The paragraph for the document.
///
/// # Errors
/// If a system was not measured, or a temporary file cannot be written.
pub fn paragraph(all: &All) -> Result<String> {
    let of =
        |system| all.get(&(system, UNCACHED)).with_context(|| format!("no uncached pulls of {system} were measured"));
    let (distribution, nginx, entrepot, s3) = (of(DISTRIBUTION)?, of(NGINX)?, of(ENTREPOT)?, of(S3_SERVER)?);
    let bytes = |system: &Measured| system.rates.bytes.median();
    let processor = |system: &Measured| system.rates.processor.median();
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let budget = cores * (GIB / MIB) / (GOAL * bytes(distribution));
    let blob = Content::fresh(BLOB);
    let (hashing, writing) = (hash(&blob)? * GIB / BLOB as f64, write(&blob)? * GIB / BLOB as f64);
    let (sending, receiving) = (processor(s3), s3.clients.median());
    let least = 2.0 * (sending + receiving) + hashing + writing;
    let first_byte = |system: &Measured| system.first_byte.median();
    let values = context! {
        goal => GOAL,
        budget => budget,
        sending => sending,
        receiving => receiving,
        hashing => hashing,
        writing => writing,
        least => least,
        distribution => processor(distribution),
        nginx => processor(nginx),
        nginx_reached => bytes(nginx) / bytes(distribution),
        entrepot => processor(entrepot),
        entrepot_reached => bytes(entrepot) / bytes(distribution),
        s3_first_byte => first_byte(s3),
        nginx_first_byte => first_byte(nginx),
        entrepot_first_byte => first_byte(entrepot),
    };
    render(template!("pull_cpu_budget"), values)
}

/// Time in seconds that one core takes to copy a blob into the page cache.
fn write(blob: &Content) -> Result<f64> {
    let (mut file, bytes) = (tempfile::tempfile()?, blob.bytes());
    memory::settle()?;
    let start = Instant::now();
    file.write_all(&bytes)?;
    Ok(start.elapsed().as_secs_f64())
}
