//! Processor time of a process.

use anyhow::{Context, Result};
use std::fs;

/// Seconds of processor time that a process has used so far, in user and system.
///
/// # Errors
/// When there is no such process.
pub fn used(process: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold spaces; utime and stime are fields 14 and 15 (proc(5)).
    let (_, rest) = stat.rsplit_once(')').context("no name")?;
    let field = |number: usize| rest.split_whitespace().nth(number - 3)?.parse::<u64>().ok();
    let ticks = field(14).zip(field(15)).map(|(user, system)| user + system).context("no times")?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}
