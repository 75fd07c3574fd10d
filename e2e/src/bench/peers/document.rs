//! `docs/reference/benchmarks.md`: tables, plots, and whether the targets are met.

use crate::bench::memory;
use crate::bench::report::{Samples, date, docs, machine, number};
use crate::tools::{self, Tool};
use anyhow::{Context, Result};
use plotters::prelude::*;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

/// One section of the document.
pub struct Section {
    pub title: &'static str,
    /// What was measured and how.
    pub text: String,
    pub tables: Vec<Table>,
    pub plots: Vec<Plot>,
    pub targets: Vec<Target>,
}

/// A table with a caption.
pub struct Table {
    pub caption: String,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(caption: &str, columns: &[&str]) -> Table {
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        Table { caption: caption.to_owned(), columns, rows: Vec::new() }
    }

    pub fn add(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    fn markdown(&self) -> String {
        let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = format!("|{}\n", "---|".repeat(self.columns.len()));
        let rows: String = self.rows.iter().map(|cells| row(cells)).collect();
        format!("{}:\n\n{}{rule}{rows}\n", self.caption, row(&self.columns))
    }
}

/// A bar chart.
pub struct Plot {
    /// Name of the SVG file without its extension.
    pub name: &'static str,
    pub title: String,
    pub unit: &'static str,
    /// The label and the value of each bar.
    pub bars: Vec<(String, f64)>,
}

impl Plot {
    fn draw(&self, folder: &Path) -> Result<()> {
        let path = folder.join(format!("{}.svg", self.name));
        let height = 60 + 26 * u32::try_from(self.bars.len())?;
        let area = SVGBackend::new(&path, (760, height)).into_drawing_area();
        let most = self.bars.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        area.fill(&WHITE)?;
        let label = ("sans-serif", 14).into_font();
        area.draw(&Text::new(format!("{}, {}", self.title, self.unit), (10, 12), ("sans-serif", 16).into_font()))?;
        for (line, (name, value)) in self.bars.iter().enumerate() {
            let top = 42 + 26 * i32::try_from(line)?;
            // The longest bar has 380 pixels. Rounding to a pixel is exact enough.
            let length = (value / most.max(f64::MIN_POSITIVE) * 380.0).round() as i32;
            let colour =
                if name.starts_with(super::fleet::ENTREPOT) { RGBColor(31, 119, 180) } else { RGBColor(170, 170, 170) };
            area.draw(&Text::new(name.clone(), (10, top + 2), label.clone()))?;
            area.draw(&Rectangle::new([(290, top), (290 + length.max(1), top + 18)], colour.filled()))?;
            area.draw(&Text::new(number(*value), (296 + length, top + 2), label.clone()))?;
        }
        area.present()?;
        Ok(())
    }
}

/// A target for a ratio of two measurements of one run.
pub struct Target {
    /// The key in `docs/reference/benchmarks.json`.
    pub name: &'static str,
    /// A ratio for each round.
    pub ratio: Samples,
    pub goal: Goal,
}

/// A bound of a ratio.
#[derive(Clone, Copy)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    /// The target for `ours ÷ theirs`, computed for each round.
    pub fn of(name: &'static str, ours: &Samples, theirs: &Samples, goal: Goal) -> Target {
        Target {
            name,
            ratio: Samples(ours.0.iter().zip(&theirs.0).map(|(ours, theirs)| ours / theirs).collect()),
            goal,
        }
    }

    pub fn is_met(&self) -> bool {
        match self.goal {
            Goal::AtLeast(least) => self.ratio.median() >= least,
            Goal::AtMost(most) => self.ratio.median() <= most,
        }
    }

    fn row(&self) -> String {
        let goal = match self.goal {
            Goal::AtLeast(least) => format!("≥ {least}"),
            Goal::AtMost(most) => format!("≤ {most}"),
        };
        let verdict = if self.is_met() { "met" } else { "**missed**" };
        format!("| {} | {} | {goal} | {verdict} |\n", self.name, self.ratio.shown(""))
    }
}

/// A section as Markdown.
pub fn markdown(section: &Section) -> String {
    let mut text = format!("## {}\n\n{}\n\n", section.title, section.text);
    section.tables.iter().for_each(|table| text.push_str(&table.markdown()));
    for plot in &section.plots {
        let _ = writeln!(text, "![{}](benchmarks/{}.svg)\n", plot.title, plot.name);
    }
    if !section.targets.is_empty() {
        text.push_str("| target | ratio | goal | |\n|---|---|---|---|\n");
        section.targets.iter().for_each(|target| text.push_str(&target.row()));
        text.push('\n');
    }
    text
}

/// Writes `docs/reference/benchmarks.md` and its plots.
///
/// # Errors
/// If a file cannot be written, or if a version is unknown.
pub fn write(sections: &[Section]) -> Result<()> {
    let docs = docs();
    let plots = docs.join("benchmarks");
    fs::create_dir_all(&plots)?;
    for plot in sections.iter().flat_map(|section| &section.plots) {
        plot.draw(&plots)?;
    }
    let head = format!(
        "# Comparison with other registries\n\n\
         Written by `cargo e2e bench` on {}: {}. Each system, the S3 server and the clients run on that machine, share \
         its cores and communicate over loopback. The systems alternate within each of {} rounds. Each figure is the \
         median, with the minimum and the maximum in parentheses. A ratio is computed for each round. {}\n\n\
         A pull is *cached* if the system has the image on its local disk, and *uncached* if it first has to download \
         the image from S3.\n\n{}\n",
        date(),
        machine(),
        super::ROUNDS,
        memory::STATE,
        versions()?,
    );
    let sections: String = sections.iter().map(markdown).collect();
    Ok(fs::write(docs.join("benchmarks.md"), format!("{head}\n{}\n", sections.trim_end()))?)
}

/// The systems with their exact versions.
fn versions() -> Result<String> {
    let nginx = Command::new(tools::system("nginx")?).arg("-v").output()?;
    let nginx = String::from_utf8_lossy(&nginx.stderr).trim().trim_start_matches("nginx version: ").to_owned();
    Ok(format!(
        "- **Entrepot** {} with its default configuration, over S3: `entrepot-node --config FILE`.\n\
         - **CNCF Distribution** {} over S3, with `redirect: {{disable: true}}` and `cache: {{blobdescriptor: \
         inmemory}}`: `registry serve FILE`.\n\
         - **Distribution, pull-through**: Distribution as a pull-through cache (`proxy.remoteurl`, content on disk) \
         in front of the former. Its CPU time and memory are the sums of both processes.\n\
         - **nginx** ({nginx}): `proxy_cache` with `sendfile` in front of the S3 server. It shows the cost of a cache \
         that knows nothing of registries. Clients request the objects from it and from S3 through presigned URLs: \
         `nginx -c FILE`.\n\
         - **S3**: versitygw {} over a directory: `versitygw --keep-alive --quiet posix FOLDER`.\n\n\
         To measure one section: `cargo e2e bench NAME`, where NAME is one of {}. With `--short`, the command takes \
         minutes and reports the ratios that changed from this record.",
        env!("CARGO_PKG_VERSION"),
        tools::version(Tool::Registry).context("unknown version of Distribution")?,
        tools::version(Tool::Versitygw).context("unknown version of versitygw")?,
        super::NAMES.map(|name| format!("`{name}`")).join(", "),
    ))
}
