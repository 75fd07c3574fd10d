//! `docs/reference/benchmarks.md`: tables, plots, and whether the targets are met.

use super::plot::Plot;
use super::rounds::ROUNDS;
use crate::machine::{date, docs, machine};
use crate::samples::Samples;
use crate::template::{render, template};
use anyhow::{Context, Result};
use entrepot_e2e::tools::{self, Tool};
use minijinja::context;
use std::fmt::Write;
use std::fs;
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
    let sections: String = sections.iter().map(markdown).collect();
    let values = context! {
        date => date(),
        machine => machine(),
        rounds => ROUNDS,
        memory => render(template!("memory"), context! {})?,
        entrepot => env!("CARGO_PKG_VERSION"),
        distribution => tools::version(Tool::Registry).context("unknown version of Distribution")?,
        nginx => nginx_version()?,
        versitygw => tools::version(Tool::Versitygw).context("unknown version of versitygw")?,
        names => super::NAMES.map(|name| format!("`{name}`")).join(", "),
        sections => sections.trim_end(),
    };
    let text = render(template!("benchmarks"), values)?;
    Ok(fs::write(docs.join("benchmarks.md"), format!("{text}\n"))?)
}

fn nginx_version() -> Result<String> {
    let output = Command::new(tools::system("nginx")?).arg("-v").output()?;
    Ok(String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("nginx version: ").to_owned())
}
