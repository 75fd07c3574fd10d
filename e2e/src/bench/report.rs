//! Figures as a person reads them.

use super::memory;
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const MIB: f64 = 1_048_576.0;
pub const GIB: f64 = 1024.0 * MIB;

/// Measurements of one thing.
#[derive(Clone, Debug, Default)]
pub struct Samples(pub Vec<f64>);

impl Samples {
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        f64::midpoint(middle(sorted.len().saturating_sub(1) / 2), middle(sorted.len() / 2))
    }

    /// The least and the most.
    pub fn bounds(&self) -> (f64, f64) {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        (least, self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }

    /// The median, with the least and the most.
    pub fn shown(&self, unit: &str) -> String {
        let (least, most) = self.bounds();
        let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        format!("{}{unit} ({}–{})", number(self.median()), number(least), number(most))
    }
}

/// Three digits that mean something.
pub fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// What a figure is to reach.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// At least so many times the reference's.
    Ratio(f64),
    AtLeast(f64),
    Below(f64),
}

/// One figure of the node, and what it is compared with.
#[derive(Clone, Debug)]
pub struct Figure {
    pub name: &'static str,
    pub unit: &'static str,
    pub node: Samples,
    /// What the reference is, and its measurements.
    pub reference: Option<(&'static str, Samples)>,
    pub goal: Goal,
    /// What else was measured beside it, as a sentence.
    pub note: Option<String>,
}

impl Figure {
    fn ratio(&self) -> Option<f64> {
        self.reference.as_ref().map(|(_, reference)| self.node.median() / reference.median())
    }

    fn is_reached(&self) -> bool {
        match self.goal {
            Goal::Ratio(least) => self.ratio().is_some_and(|ratio| ratio >= least),
            Goal::AtLeast(least) => self.node.median() >= least,
            Goal::Below(most) => self.node.median() < most,
        }
    }

    /// A row of the table.
    pub fn row(&self) -> String {
        let goal = match self.goal {
            Goal::Ratio(least) => format!("≥ {least} ×"),
            Goal::AtLeast(least) => format!("≥ {} {}", number(least), self.unit),
            Goal::Below(most) => format!("< {} {}", number(most), self.unit),
        };
        let reference = self
            .reference
            .as_ref()
            .map_or("–".to_owned(), |(what, samples)| format!("{what}: {}", samples.shown(self.unit)));
        let ratio = self.ratio().map_or("–".to_owned(), |ratio| format!("{ratio:.2} ×"));
        let verdict = if self.is_reached() { "reached" } else { "**missed**" };
        format!("| {} | {} | {reference} | {ratio} | {goal} | {verdict} |", self.name, self.node.shown(self.unit))
    }
}

/// Writes `docs/performance.md`.
///
/// # Errors
/// When the file cannot be written.
pub fn write(figures: &[Figure]) -> Result<()> {
    let rows: Vec<_> = figures.iter().map(Figure::row).collect();
    let notes: String =
        figures.iter().filter_map(|figure| figure.note.as_ref()).map(|note| format!("{note}\n\n")).collect();
    let text = format!(
        "# How fast a node is\n\n\
         Written by `cargo e2e bench` on {date}: {machine}. Everything runs on that machine, over loopback: the node, \
         what it is compared with, the S3 server and the client. Each figure is the median of {rounds} rounds, which \
         alternate between the two; the least and the most are in parentheses. {memory}\n\n\
         | what | node | compared with | ratio | goal | |\n|---|---|---|---|---|---|\n{rows}\n\n{notes}\
         One figure: `cargo e2e bench NAME`, with NAME one of {names}.\n\n\
         - **Stored blob**: `wrk -t2 -c4 -d5s` of one blob of 256 MiB, against nginx with `sendfile` and the same file.\n\
         - **Push**: one blob of 256 MiB, from the first byte to 201, over a folder as the bucket, against one core that \
         hashes the same bytes by ring.\n\
         - **Missed blob**: one blob of 256 MiB that only the bucket has, against the same client that gets the object \
         from the same S3 server (versitygw) by a presigned URL.\n\
         - **Stored manifest**: `wrk -t1 -c16 -d5s --latency` by digest; wrk takes its share of the same cores.\n\
         - **Start**: from the start of the process to its first answer, with 100,000 blobs in the store, after an \
         orderly stop.\n",
        date = date(),
        machine = machine(),
        rounds = super::ROUNDS,
        memory = memory::STATE,
        rows = rows.join("\n"),
        names = super::NAMES.map(|name| format!("`{name}`")).join(", "),
    );
    Ok(fs::write(docs().join("performance.md"), text)?)
}

/// Where the documents are.
pub fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

pub fn date() -> String {
    let output = Command::new("date").arg("+%Y-%m-%d").output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// Processor, cores and memory.
pub fn machine() -> String {
    let field = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
        line.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kib: u64 = field("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or_default();
    format!("{cores} cores of {}, {} GiB of memory, Linux", field("/proc/cpuinfo", "model name"), kib >> 20)
}
