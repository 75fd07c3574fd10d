//! Lists a directory tree in the order of its keys, reading only the directories that the page
//! needs.
//!
//! Keys are ordered by their bytes, and `/` is one of them: `a-b/x` comes before `a/x`. A directory
//! is therefore ordered among its siblings by its name with the slash.

use super::{OWN_FOLDER, is_missing};
use crate::list::page_of;
use crate::{ListOptions, Page};
use std::io;
use std::path::Path;

pub(super) fn page(root: &Path, options: &ListOptions) -> io::Result<Page> {
    let mut walk = Walk { root, options, open: Vec::new(), failed: None };
    walk.enter(&options.prefix)?;
    let page = page_of(options, walk.by_ref());
    match walk.failed {
        Some(error) => Err(error),
        None => Ok(page),
    }
}

/// Yields keys in order. With a delimiter, it also yields directories that are not empty, as their
/// key with a slash.
struct Walk<'a> {
    root: &'a Path,
    options: &'a ListOptions,
    /// The entries still to visit of each directory from the prefix downwards, last first.
    /// Directories end with a slash.
    open: Vec<Vec<String>>,
    /// The error that ended the iteration, because an iterator cannot return one.
    failed: Option<io::Error>,
}

impl Walk<'_> {
    /// Reads a directory. `prefix` is its key with a slash, or empty for the root.
    fn enter(&mut self, prefix: &str) -> io::Result<()> {
        let mut entries = self.entries(prefix)?;
        entries.sort_unstable_by(|one, other| other.cmp(one));
        self.open.push(entries);
        Ok(())
    }

    /// The entries of a directory that are not entirely before the page, unordered.
    fn entries(&self, prefix: &str) -> io::Result<Vec<String>> {
        let directory = match std::fs::read_dir(self.root.join(prefix)) {
            Ok(directory) => directory,
            // The directory does not exist, or was removed during the walk.
            Err(error) if is_missing(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut entries = Vec::new();
        for entry in directory {
            let entry = entry?;
            // A name that is not UTF-8 is never one of our keys.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if prefix.is_empty() && name == OWN_FOLDER {
                continue;
            }
            let mut kind = entry.file_type()?;
            if kind.is_symlink() {
                // A part of the tree may be on another file system. A dangling link is ignored.
                let Ok(metadata) = std::fs::metadata(entry.path()) else { continue };
                kind = metadata.file_type();
            }
            let slash = if kind.is_dir() { "/" } else { "" };
            let key = format!("{prefix}{name}{slash}");
            if !self.is_before_page(&key) {
                entries.push(key);
            }
        }
        Ok(entries)
    }

    /// Whether an entry is before the page, including everything in it if it is a directory.
    fn is_before_page(&self, entry: &str) -> bool {
        let Some(after) = &self.options.after else { return false };
        let may_hold_later = entry.ends_with('/') && !self.options.delimiter && after.starts_with(entry);
        entry <= after.as_str() && !may_hold_later
    }

    /// Whether a directory contains a file at any depth. An interrupted put may leave directories
    /// without files.
    fn holds_file(&self, prefix: &str) -> io::Result<bool> {
        for entry in self.entries(prefix)? {
            if !entry.ends_with('/') || self.holds_file(&entry)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn advance(&mut self) -> io::Result<Option<String>> {
        while let Some(folder) = self.open.last_mut() {
            let Some(entry) = folder.pop() else {
                self.open.pop();
                continue;
            };
            if !entry.ends_with('/') {
                return Ok(Some(entry));
            }
            if !self.options.delimiter {
                self.enter(&entry)?;
            } else if self.holds_file(&entry)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

impl Iterator for Walk<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        match self.advance() {
            Ok(key) => key,
            Err(error) => {
                self.failed = Some(error);
                self.open.clear();
                None
            }
        }
    }
}
