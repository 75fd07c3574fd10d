//! How long files and functions are: a file is one idea, and a function fits on a screen.

use crate::layers::{CRATES, production, source_files};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// Most lines of a file without its tests.
const FILE: usize = 400;
/// Half of the files have fewer lines than this, without their tests.
const MEDIAN: usize = 130;
/// Most lines of a function, with its signature.
const FUNCTION: usize = 50;

/// Every file and function that is too long, as lines that name them.
///
/// # Errors
/// If a source file cannot be read.
pub fn too_long(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for folder in CRATES {
        for path in source_files(&root.join(folder))? {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let lines: Vec<_> = production(&text).lines().collect();
            let name = path.strip_prefix(root).unwrap_or(&path).display();
            if lines.len() > FILE {
                found.push(format!("{name}: {} lines", lines.len()));
            }
            let long = functions(&lines).into_iter().filter(|(_, length)| *length > FUNCTION);
            found.extend(long.map(|(function, length)| format!("{name}: {function} has {length} lines")));
        }
    }
    Ok(found)
}

/// The functions with a body of several lines, and their lengths. rustfmt puts the closing brace of a function at the
/// indentation of its first line.
fn functions<'a>(lines: &[&'a str]) -> Vec<(&'a str, usize)> {
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let before = code.split("fn ").next().unwrap_or_default();
        let is_function = code.contains("fn ") && before.split_whitespace().all(is_qualifier);
        if !is_function || line.ends_with('}') || line.ends_with(';') {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        if let Some(length) = lines[start..].iter().position(|line| *line == end) {
            found.push((code.trim_end_matches('{').trim_end(), length + 1));
        }
    }
    found
}

fn is_qualifier(word: &str) -> bool {
    matches!(word, "pub" | "async" | "const" | "unsafe") || word.starts_with("pub(") || word.ends_with(')')
}

/// The median of the lengths of all files in lines, without their tests.
///
/// # Errors
/// If a source file cannot be read.
pub fn median(root: &Path) -> Result<usize> {
    let mut lengths = Vec::new();
    for folder in CRATES {
        for path in source_files(&root.join(folder))? {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            lengths.push(production(&text).lines().count());
        }
    }
    lengths.sort_unstable();
    lengths.get(lengths.len() / 2).copied().context("there are no source files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_with_their_lengths() {
        let text = "fn one() {}\n\npub(in crate::a) async fn two(\n    x: u8,\n) {\n    x\n}\nimpl A {\n    fn three() {\n    }\n}\n";
        let lines: Vec<_> = text.lines().collect();
        let lengths: Vec<_> = functions(&lines).into_iter().map(|(_, length)| length).collect();
        assert_eq!(lengths, [5, 2]);
    }

    #[test]
    fn no_file_and_no_function_of_this_project_is_too_long() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        assert_eq!(too_long(&root).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn the_median_file_of_this_project_is_short() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let median = median(&root).unwrap();
        assert!(median < MEDIAN, "the median file has {median} lines");
    }
}
