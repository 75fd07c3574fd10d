//! `docs/reference/performance.md`: the figures of one node.

use super::figure::Figure;
use super::{NAMES, ROUNDS};
use crate::machine::{date, docs, machine};
use crate::template::{render, template};
use anyhow::Result;
use minijinja::context;
use std::fs;

/// Writes the document.
///
/// # Errors
/// If the file cannot be written.
pub fn write(figures: &[Figure]) -> Result<()> {
    let rows: Vec<_> = figures.iter().map(Figure::row).collect();
    let notes: Vec<_> = figures.iter().filter_map(|figure| figure.note.as_deref()).collect();
    let values = context! {
        date => date(),
        machine => machine(),
        rounds => ROUNDS,
        memory => render(template!("memory"), context! {})?,
        rows => rows.join("\n"),
        notes => notes.join("\n\n"),
        names => NAMES.map(|name| format!("`{name}`")).join(", "),
    };
    let text = render(template!("performance"), values)?;
    Ok(fs::write(docs().join("performance.md"), format!("{text}\n"))?)
}
