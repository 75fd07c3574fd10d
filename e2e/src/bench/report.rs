//! Figures in the form in which people read them, and `docs/reference/performance.md`.

use super::memory;
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub const MIB: f64 = 1_048_576.0;
pub const GIB: f64 = 1024.0 * MIB;

/// Measurements of one quantity, one for each round.
#[derive(Clone, Debug, Default)]
pub struct Samples(pub Vec<f64>);

impl Samples {
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        f64::midpoint(middle(sorted.len().saturating_sub(1) / 2), middle(sorted.len() / 2))
    }

    /// The minimum and the maximum.
    pub fn bounds(&self) -> (f64, f64) {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        (least, self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }

    /// The median, followed by the minimum and the maximum in parentheses.
    pub fn shown(&self, unit: &str) -> String {
        let (least, most) = self.bounds();
        let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        format!("{}{unit} ({}–{})", number(self.median()), number(least), number(most))
    }
}

/// The value with about three significant digits.
pub fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The goal of a figure.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// At least this multiple of the reference.
    Ratio(f64),
    AtLeast(f64),
    Below(f64),
}

/// One figure of the node, and the reference with which it is compared.
#[derive(Clone, Debug)]
pub struct Figure {
    pub name: &'static str,
    pub unit: &'static str,
    pub node: Samples,
    /// The name of the reference and its measurements.
    pub reference: Option<(&'static str, Samples)>,
    pub goal: Goal,
    /// Further measurements of the same run, as a sentence for the document.
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

/// Writes `docs/reference/performance.md`.
///
/// # Errors
/// If the file cannot be written.
pub fn write(figures: &[Figure]) -> Result<()> {
    let rows: Vec<_> = figures.iter().map(Figure::row).collect();
    let notes: String =
        figures.iter().filter_map(|figure| figure.note.as_ref()).map(|note| format!("{note}\n\n")).collect();
    let text = format!(
        "# Performance of one node\n\n\
         Written by `cargo e2e bench` on {date}: {machine}. The node, the reference, the S3 server and the client all \
         run on that machine and communicate over loopback. Each figure is the median of {rounds} rounds, which \
         alternate between the node and the reference. The minimum and the maximum are in parentheses. The ratio is \
         the figure of the node divided by that of the reference. {memory}\n\n\
         | benchmark | node | reference | ratio | goal | |\n|---|---|---|---|---|---|\n{rows}\n\n{notes}\
         To run one benchmark: `cargo e2e bench NAME`, where NAME is one of {names}.\n\n\
         - **Stored blob**: throughput of `wrk -t2 -c4 -d5s` for one blob of 256 MiB in the node's store. Reference: \
         nginx with `sendfile` and the same file.\n\
         - **Push**: throughput of a push of one blob of 256 MiB, from the first byte to the response 201, with a \
         folder as the bucket. Reference: one core that hashes the same bytes with the library ring.\n\
         - **Missed blob**: throughput of a pull of one blob of 256 MiB that is in the bucket and not in the node's \
         store. Reference: the same client downloads the object from the same S3 server (versitygw) through a \
         presigned URL.\n\
         - **Stored manifest**: rate and latency of `wrk -t1 -c16 -d5s --latency` for a manifest by digest. wrk runs \
         on the same cores.\n\
         - **Start**: time from the start of the process to its first response, with 100,000 blobs in the store, after \
         a clean shutdown.\n",
        date = date(),
        machine = machine(),
        rounds = super::ROUNDS,
        memory = memory::STATE,
        rows = rows.join("\n"),
        names = super::NAMES.map(|name| format!("`{name}`")).join(", "),
    );
    Ok(fs::write(docs().join("performance.md"), text)?)
}

/// The directory of the documents.
pub fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference")
}

pub fn date() -> String {
    let output = Command::new("date").arg("+%Y-%m-%d").output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// The number of cores, the CPU model and the memory of this machine.
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
