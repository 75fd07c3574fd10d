//! Resources that a process uses, as the system accounts for them.

use anyhow::{Context, Result};
use std::fs;

/// CPU time in seconds that a process has used so far, user and system together.
///
/// # Errors
/// If the process does not exist.
pub fn processor(process: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may contain spaces; utime and stime are fields 14 and 15 (proc(5)).
    let (_, rest) = stat.rsplit_once(')').with_context(|| format!("cannot parse /proc/{process}/stat"))?;
    let field = |number: usize| rest.split_whitespace().nth(number - 3)?.parse::<u64>().ok();
    let ticks = field(14)
        .zip(field(15))
        .map(|(user, system)| user + system)
        .with_context(|| format!("cannot parse /proc/{process}/stat"))?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Memory that a process uses now, in bytes.
///
/// # Errors
/// If the process does not exist.
pub fn memory(process: u32) -> Result<u64> {
    status(process, "VmRSS")
}

/// The most memory that the process has used since [`forget_peak`], in bytes.
///
/// # Errors
/// If the process does not exist.
pub fn peak_memory(process: u32) -> Result<u64> {
    status(process, "VmHWM")
}

/// # Errors
/// If the process does not exist.
pub fn forget_peak(process: u32) -> Result<()> {
    // 5 resets the peak (proc(5), /proc/PID/clear_refs).
    Ok(fs::write(format!("/proc/{process}/clear_refs"), "5")?)
}

/// The running child processes of a process.
///
/// # Errors
/// If the process does not exist.
pub fn children(process: u32) -> Result<Vec<u32>> {
    let text = fs::read_to_string(format!("/proc/{process}/task/{process}/children"))?;
    text.split_whitespace().map(|id| Ok(id.parse()?)).collect()
}

/// A value of `/proc/PID/status`, converted from KiB to bytes.
fn status(process: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .with_context(|| format!("/proc/{process}/status has no field {field}"))?;
    let number = line.trim_start_matches(':').trim().trim_end_matches(" kB");
    Ok(number.parse::<u64>().with_context(|| format!("{field}: {line}"))? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, Signal, kill_process};
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    #[test]
    fn the_usage_of_a_process_can_be_read() {
        let own = std::process::id();
        assert!(processor(own).unwrap() >= 0.0);
        forget_peak(own).unwrap();
        assert!(peak_memory(own).unwrap() >= memory(own).unwrap() / 2);
        assert!(processor(u32::MAX).is_err());
    }

    #[test]
    fn the_children_of_a_process_are_known() {
        let mut shell =
            Command::new("sh").args(["-c", "sleep 60 & echo started; wait"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let children = children(shell.id()).unwrap();
        assert_eq!(children.len(), 1, "{said}");
        let child = Pid::from_raw(children[0].try_into().unwrap()).unwrap();
        kill_process(child, Signal::KILL).unwrap();
        shell.wait().unwrap();
    }
}
