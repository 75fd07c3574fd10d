//! Explains what bounds uncached pulls if clients, S3 and the system share the cores of one
//! machine.

use super::fleet::{DISTRIBUTION, ENTREPOT, NGINX, S3_SERVER};
use super::pull::{All, Measured, UNCACHED};
use crate::bench::report::{GIB, MIB};
use crate::bench::runs::hash;
use crate::bench::{BLOB, memory};
use crate::content::Content;
use anyhow::{Context, Result};
use std::io::Write;
use std::time::Instant;

/// The goal for uncached pulls, as a multiple of Distribution's throughput.
pub const GOAL: f64 = 1.3;

/// The paragraph for the document.
///
/// # Errors
/// If a system was not measured, or a temporary file cannot be written.
pub fn of(all: &All) -> Result<String> {
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
    let first = |system: &Measured| system.first_byte.median();
    Ok(format!(
        "\n\nThe CPU bounds uncached pulls on this machine, because the clients, S3 and the system share its cores. \
         At {GOAL} times the throughput of Distribution, {budget:.2} s of CPU time per GiB would be available for all \
         of them together. Sending a GiB takes S3 {sending:.2} s, and receiving it takes the clients {receiving:.2} s. \
         A node that receives at the cost of the clients and sends at the cost of S3 needs the same again. SHA-256 \
         takes {hashing:.2} s and the copy into the page cache {writing:.2} s, each measured on an idle machine. The \
         sum is {least:.2} s. Distribution neither verifies nor writes the content; it takes {:.2} s. The nginx cache \
         writes the content and does not verify it; it takes {:.2} s and reaches {:.2} of Distribution's throughput. \
         Entrepot takes {:.2} s and reaches {:.2}. Under this load, each step before the first byte waits for a core. \
         The time to the first byte is {:.1} ms for S3 itself, {:.1} ms for nginx, which requests only the blob from \
         S3, and {:.1} ms for Entrepot, which also checks that the repository contains the blob. The table for one \
         client shows the latency that a system adds without this load.",
        processor(distribution),
        processor(nginx),
        bytes(nginx) / bytes(distribution),
        processor(entrepot),
        bytes(entrepot) / bytes(distribution),
        first(s3),
        first(nginx),
        first(entrepot),
    ))
}

/// Time in seconds that one core takes to copy a blob into the page cache.
fn write(blob: &Content) -> Result<f64> {
    let (mut file, bytes) = (tempfile::tempfile()?, blob.bytes());
    memory::settle()?;
    let start = Instant::now();
    file.write_all(&bytes)?;
    Ok(start.elapsed().as_secs_f64())
}
