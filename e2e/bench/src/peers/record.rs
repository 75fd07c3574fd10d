//! The ratios of the last complete run (`docs/reference/benchmarks.json`), and the comparison with a new run.

use super::document::{Goal, Section, Target};
use crate::machine::docs;
use crate::samples::number;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;

/// Relative distance from the recorded range within which a ratio counts as unchanged. Runs on one
/// machine differ by that much.
const NOISE: f64 = 0.15;

/// A recorded ratio of a complete run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Recorded {
    median: f64,
    least: f64,
    most: f64,
}

/// Writes the ratios to `docs/reference/benchmarks.json`.
///
/// # Errors
/// If the file cannot be written.
pub fn record(sections: &[Section]) -> Result<()> {
    let of = |target: &Target| {
        let (least, most) = target.ratio.bounds();
        (target.name, Recorded { median: target.ratio.median(), least, most })
    };
    let all: BTreeMap<_, _> = sections.iter().flat_map(|section| &section.targets).map(of).collect();
    Ok(fs::write(docs().join("benchmarks.json"), format!("{}\n", serde_json::to_string_pretty(&all)?))?)
}

/// The ratios of the last complete run, by the names of their targets.
pub struct Record(BTreeMap<String, Recorded>);

impl Record {
    /// Reads the record.
    ///
    /// # Errors
    /// If there is no record.
    pub fn read() -> Result<Record> {
        let file = docs().join("benchmarks.json");
        let text = fs::read_to_string(&file).with_context(|| {
            format!("cannot read {}; run `cargo e2e bench` without names to create it", file.display())
        })?;
        Ok(Record(serde_json::from_str(&text)?))
    }
}

/// Prints which ratios changed from the record. Returns whether a ratio is worse.
pub fn compare(Record(recorded): &Record, sections: &[Section]) -> bool {
    let mut worse = false;
    for target in sections.iter().flat_map(|section| &section.targets) {
        let now = target.ratio.median();
        let Some(then) = recorded.get(target.name) else {
            println!("new       {}: {}", target.name, number(now));
            continue;
        };
        let moved = moved(target.goal, *then, now);
        worse |= moved == Moved::Worse;
        println!("{:9} {}: {} (recorded {})", moved.word(), target.name, number(now), number(then.median));
    }
    worse
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    Worse,
    Better,
    Not,
}

impl Moved {
    fn word(self) -> &'static str {
        match self {
            Moved::Worse => "WORSE",
            Moved::Better => "better",
            Moved::Not => "same",
        }
    }
}

fn moved(goal: Goal, then: Recorded, now: f64) -> Moved {
    let (below, above) = (now < then.least * (1.0 - NOISE), now > then.most * (1.0 + NOISE));
    match (goal, below, above) {
        (Goal::AtLeast(_), true, _) | (Goal::AtMost(_), _, true) => Moved::Worse,
        (Goal::AtLeast(_), _, true) | (Goal::AtMost(_), true, _) => Moved::Better,
        _ => Moved::Not,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_within_the_noise_is_unchanged() {
        let then = Recorded { median: 2.0, least: 1.9, most: 2.2 };
        let of = |goal, now| moved(goal, then, now);
        for now in [1.62, 2.0, 2.5] {
            assert_eq!(of(Goal::AtLeast(2.0), now), Moved::Not, "{now}");
        }
        assert_eq!((of(Goal::AtLeast(2.0), 1.6), of(Goal::AtLeast(2.0), 2.6)), (Moved::Worse, Moved::Better));
        assert_eq!((of(Goal::AtMost(2.0), 1.6), of(Goal::AtMost(2.0), 2.6)), (Moved::Better, Moved::Worse));
    }
}
