//! What bounds missed pulls where clients, S3 and the system share a machine's cores.

use super::fleet::{DISTRIBUTION, ENTREPOT, NGINX, S3_SERVER};
use super::pull::{All, Measured};
use crate::bench::report::{GIB, MIB};
use crate::bench::runs::hash;
use crate::bench::{BLOB, memory};
use crate::content::Content;
use anyhow::{Context, Result};
use std::io::Write;
use std::time::Instant;

/// What missed pulls are to have of Distribution's bytes a second.
pub const GOAL: f64 = 1.3;

/// The account, for the document.
///
/// # Errors
/// When a system was not measured, or a temporary file cannot be written.
pub fn of(all: &All) -> Result<String> {
    let of = |system| all.get(&(system, "missed")).context("a system that was measured");
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
        "\n\nWhat bounds missed pulls here is the processor, which clients, S3 and the system share. {GOAL} times Distribution's \
         bytes a second would leave all of them {budget:.2} s of a core for a GiB. Of that, S3 itself takes {sending:.2} s to \
         send it, and the clients {receiving:.2} s to receive it. A node that receives as the clients do and sends as S3 does takes as \
         much once more; SHA-256 takes {hashing:.2} s, and the copy into the page cache {writing:.2} s, each alone on an idle machine: \
         {least:.2} s in all. Distribution, which neither verifies nor writes, takes {:.2} s itself; nginx's cache, which writes and does not \
         verify, {:.2} s, and has {:.2} of Distribution's bytes a second; Entrepot takes {:.2} s and has {:.2}. Under that load the first \
         byte waits for a core before each step that it takes: {:.1} ms of S3 itself, {:.1} of nginx, which asks S3 for the blob alone, \
         and {:.1} of Entrepot, which asks whether the repository links it, too. What a system itself adds shows the table of one client.",
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

/// Seconds that one core takes to copy a blob into the page cache.
fn write(blob: &Content) -> Result<f64> {
    let (mut file, bytes) = (tempfile::tempfile()?, blob.bytes());
    memory::settle()?;
    let start = Instant::now();
    file.write_all(&bytes)?;
    Ok(start.elapsed().as_secs_f64())
}
