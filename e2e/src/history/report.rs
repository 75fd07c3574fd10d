//! The result of a run.

use super::faults::Happened;
use super::plan::BucketKind;
use super::record::{Count, Kind};
use super::violations::Broken;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The counts of a run.
pub struct Report {
    pub bucket: BucketKind,
    pub seed: u64,
    pub took: Duration,
    pub epochs: u64,
    pub operations: BTreeMap<Kind, Count>,
    pub faults: Happened,
    /// Requests of the nodes to S3.
    pub requests: u64,
    /// Images that were pulled from every server, summed over all checks.
    pub images: u64,
    /// Tags whose history took too long to check.
    pub undecided: u64,
    pub violations: BTreeMap<Broken, u64>,
    /// The folder of histories and logs, if there was a violation.
    pub kept: Option<PathBuf>,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: u64 = self.operations.values().map(|count| count.done + count.refused + count.unknown).sum();
        let seconds = self.took.as_secs_f64();
        writeln!(f, "history over {:?}, seed {}: {seconds:.0} s, {} epochs", self.bucket, self.seed, self.epochs)?;
        writeln!(f, "{:<18} {:>12} {:>8} {:>8}", "operation", "acknowledged", "refused", "unknown")?;
        for (kind, count) in &self.operations {
            let name = format!("{kind:?}");
            writeln!(f, "{name:<18} {:>12} {:>8} {:>8}", count.done, count.refused, count.unknown)?;
        }
        writeln!(f, "{all} operations, {:.0} per second; {} requests to S3", all as f64 / seconds, self.requests)?;
        writeln!(f, "{} images pulled from every server, all checks together", self.images)?;
        for (name, times) in &self.faults {
            writeln!(f, "{name:<28} {times:>6}")?;
        }
        writeln!(f, "{} faults", self.faults.values().sum::<u64>())?;
        for (broken, times) in &self.violations {
            let name = format!("{broken:?}");
            writeln!(f, "{name:<28} {times:>6}")?;
        }
        if self.undecided > 0 {
            writeln!(f, "{} tags undecided within the time limit", self.undecided)?;
        }
        if let Some(kept) = &self.kept {
            writeln!(f, "histories and logs are in {}", kept.display())?;
        }
        write!(f, "{} violations", self.violations.values().sum::<u64>())
    }
}
