//! What the documents say about files of the repository is true.

use crate::layers::CRATES;
use anyhow::{Context, Result};
use regex::Regex;
use std::fs;
use std::path::{Path, PathBuf};

/// Most files that a reader has to open for one flow.
const FILES_OF_A_FLOW: usize = 12;
/// Folders that contain no document of ours.
const SKIPPED: [&str; 4] = [".git", "target", "node_modules", ".cache"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Markdown files.
fn pages() -> Result<Vec<PathBuf>> {
    let (mut pages, mut folders) = (Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && !SKIPPED.contains(&name) {
                folders.push(path);
            } else if name.ends_with(".md") {
                pages.push(path);
            }
        }
    }
    Ok(pages)
}

/// The names of Rust files in a document, such as `upload/tests.rs`.
fn rust_files(text: &str) -> Result<Vec<String>> {
    let file = Regex::new(r"`([A-Za-z0-9_./-]+\.rs)(?::[0-9]+)?`")?;
    Ok(file.captures_iter(text).map(|found| found[1].to_owned()).collect())
}

/// Whether a file has this path below the root, below the sources of a crate, or below the page's own folder.
fn exists(name: &str, page: &Path) -> bool {
    let crates = CRATES.iter().map(|sources| root().join(sources));
    let places = crates.chain([root(), page.parent().unwrap_or(Path::new("")).to_owned()]);
    places.into_iter().any(|place| place.join(name).is_file())
}

#[test]
fn every_source_file_that_a_document_names_exists() {
    let (mut missing, mut named) = (Vec::new(), 0);
    for page in pages().unwrap() {
        // The changelog also names files of earlier releases.
        if page.ends_with("CHANGELOG.md") {
            continue;
        }
        for name in rust_files(&fs::read_to_string(&page).unwrap()).unwrap() {
            named += 1;
            if !exists(&name, &page) {
                missing.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(named > 50, "{named}");
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn each_of_the_four_flows_names_its_files_in_order() {
    let page = fs::read_to_string(root().join("docs/explanation/flows.md")).unwrap();
    let row = Regex::new(r"(?m)^\| ([0-9]+) \| `([^`]+\.rs)` \| [^|]+ \|$").unwrap();
    let flows: Vec<_> = page.split("\n## ").skip(1).collect();
    assert_eq!(flows.len(), 4);
    for flow in flows {
        let title = flow.lines().next().unwrap();
        let numbers: Vec<usize> = row.captures_iter(flow).map(|row| row[1].parse().unwrap()).collect();
        assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>(), "{title}");
        assert!((4..=FILES_OF_A_FLOW).contains(&numbers.len()), "{title} has {} files", numbers.len());
        for row in row.captures_iter(flow) {
            assert!(root().join(&row[2]).is_file(), "{title}: {}", &row[2]);
        }
        // Each row of the table was read.
        assert_eq!(flow.lines().filter(|line| line.starts_with("| ") && line.contains(".rs")).count(), numbers.len());
    }
}

#[test]
fn every_page_of_the_documents_is_in_the_book() {
    let docs = root().join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    for folder in fs::read_dir(&docs).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        for page in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = page.strip_prefix(&docs).unwrap().to_str().unwrap();
            assert!(!name.ends_with(".md") || summary.contains(&format!("({name})")), "{name}");
        }
    }
}
