//! Resources that a process uses, as the system accounts for them.

use anyhow::{Context, Result};
use procfs::process::{ClearRefs, Process, Status};

/// CPU time in seconds that a process has used so far, user and system together.
///
/// # Errors
/// If the process does not exist.
pub fn processor(process: u32) -> Result<f64> {
    let stat = of(process)?.stat()?;
    Ok((stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64)
}

/// Memory that a process uses now, in bytes.
///
/// # Errors
/// If the process does not exist.
pub fn memory(process: u32) -> Result<u64> {
    kibibytes(process, |status| status.vmrss)
}

/// The most memory that the process has used since [`forget_peak`], in bytes.
///
/// # Errors
/// If the process does not exist.
pub fn peak_memory(process: u32) -> Result<u64> {
    kibibytes(process, |status| status.vmhwm)
}

/// # Errors
/// If the process does not exist.
pub fn forget_peak(process: u32) -> Result<()> {
    Ok(of(process)?.clear_refs(ClearRefs::PeakRSS)?)
}

/// The running child processes of a process.
///
/// # Errors
/// If the process does not exist.
pub fn children(process: u32) -> Result<Vec<u32>> {
    Ok(of(process)?.task_main_thread()?.children()?)
}

fn of(process: u32) -> Result<Process> {
    Ok(Process::new(i32::try_from(process)?)?)
}

/// A value of `/proc/PID/status`, converted from KiB to bytes.
fn kibibytes(process: u32, field: impl FnOnce(Status) -> Option<u64>) -> Result<u64> {
    let kibibytes = field(of(process)?.status()?).with_context(|| format!("process {process} has no memory"))?;
    Ok(kibibytes << 10)
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
