//! Repositories are the directories that contain `_layers` or `_manifests`. A walk over the keys of
//! the bucket finds them, in the order of their keys.
//!
//! Each list request returns keys of any depth. After it, the walk skips the remaining keys of the
//! repository that it has reached. It so costs one request for up to 1000 small repositories, and
//! one for each large repository, however deep their names are.

use super::{LIST_MAX, LISTS, Listed};
use crate::repository::Layout;
use entrepot_bucket::{Bucket, BucketError, Key, ListOptions};
use entrepot_oci::Repository;

/// Ends a position that is not the name of a repository. It is not part of any name, and sorts
/// before every byte of one.
const NO_NAME: char = '!';

/// The repositories that may be listed.
pub struct Scope<'a> {
    /// Only repositories whose name, followed by `/`, begins with one of these; the empty prefix
    /// selects all. Nothing else is requested from the bucket.
    pub prefixes: Vec<String>,
    /// Whether the repository may be listed.
    pub allows: &'a (dyn Fn(&Repository) -> bool + Send + Sync),
}

impl Scope<'static> {
    /// All repositories.
    pub fn all() -> Scope<'static> {
        Scope { prefixes: vec![String::new()], allows: &|_| true }
    }
}

impl Scope<'_> {
    /// The prefixes in order, without those that another one includes.
    fn ranges(&self) -> Vec<&str> {
        let mut prefixes: Vec<&str> = self.prefixes.iter().map(String::as_str).collect();
        prefixes.sort_unstable();
        prefixes.dedup_by(|later, earlier| later.starts_with(*earlier));
        prefixes
    }
}

/// The size of a page.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// Maximum number of repositories.
    pub(super) max: usize,
    /// Maximum number of list requests.
    pub(super) lists: usize,
    /// Maximum number of keys per list request.
    pub(super) at_once: usize,
}

impl Limits {
    pub(super) fn of(max: usize) -> Limits {
        Limits { max, lists: LISTS, at_once: LIST_MAX }
    }
}

/// See [`super::Discover::repositories`].
pub(super) async fn page(
    bucket: &dyn Bucket,
    layout: &Layout,
    scope: &Scope<'_>,
    last: Option<&str>,
    limits: Limits,
) -> Result<Listed<Repository>, BucketError> {
    let start = last.map(start_after).unwrap_or_default();
    let mut walk =
        Walk { bucket, root: layout.repositories(), scope, limits, lists: 0, at: start.clone(), found: Vec::new() };
    for range in scope.ranges() {
        match walk.range(range).await? {
            Step::RangeEnds => {}
            Step::PageIsFull => {
                let next = walk.found.last().map(ToString::to_string);
                return Ok(Listed { items: walk.found, next });
            }
            Step::NoMoreRequests => {
                let after_last = walk.found.last().map(|last| after(last.as_str()));
                let next = match (walk.found.last(), after_last) {
                    (Some(last), Some(told)) if told == walk.at => last.to_string(),
                    (_, told) => position(told.as_deref().unwrap_or(&start), &walk.at),
                };
                return Ok(Listed { items: walk.found, next: Some(next) });
            }
        }
    }
    Ok(Listed { items: walk.found, next: None })
}

/// Why the walk over a range of keys ended.
enum Step {
    RangeEnds,
    PageIsFull,
    NoMoreRequests,
}

struct Walk<'a> {
    bucket: &'a dyn Bucket,
    /// The directory of all repositories, with a trailing `/`.
    root: String,
    scope: &'a Scope<'a>,
    limits: Limits,
    /// Number of list requests so far.
    lists: usize,
    /// Everything up to this path below the root was seen or skipped.
    at: String,
    found: Vec<Repository>,
}

impl Walk<'_> {
    /// Walks over the paths that begin with `range`.
    async fn range(&mut self, range: &str) -> Result<Step, BucketError> {
        if self.at.as_str() < range {
            self.at = range.to_owned();
        }
        let folder = range.rfind('/').map_or("", |slash| &range[..=slash]);
        while self.at.starts_with(range) {
            if self.lists == self.limits.lists {
                return Ok(Step::NoMoreRequests);
            }
            self.lists += 1;
            let listing = self
                .bucket
                .list(ListOptions {
                    prefix: format!("{}{folder}", self.root),
                    delimiter: false,
                    after: Some(format!("{}{}", self.root, self.at)),
                    max: self.limits.at_once,
                })
                .await?;
            for key in &listing.keys {
                let path = key_below(key, &self.root);
                if !path.starts_with(range) {
                    return Ok(Step::RangeEnds);
                }
                if !self.see(path) {
                    return Ok(Step::PageIsFull);
                }
            }
            if listing.next.is_none() {
                return Ok(Step::RangeEnds);
            }
        }
        Ok(Step::RangeEnds)
    }

    /// Moves to a path. `false`: it belongs to a repository that does not fit into the page.
    fn see(&mut self, path: &str) -> bool {
        // The rest of a repository or directory that was seen before.
        if path <= self.at.as_str() {
            return true;
        }
        let Some((name, folder)) = split(path) else {
            self.at = path.to_owned();
            return true;
        };
        if !matches!(folder, "_layers" | "_manifests") {
            // `0` is the byte after `/`.
            self.at = format!("{name}/{folder}0");
            return true;
        }
        let repository = Repository::parse(name).ok().filter(|repository| (self.scope.allows)(repository));
        if let Some(repository) = repository {
            if self.found.len() == self.limits.max {
                return false;
            }
            self.found.push(repository);
        }
        self.at = after(name);
        true
    }
}

fn key_below<'a>(key: &'a Key, root: &str) -> &'a str {
    key.as_str().strip_prefix(root).unwrap_or_default()
}

/// The repository and the directory in it of a path `<name>/_layers/…`. No part of a name begins
/// with `_`.
fn split(path: &str) -> Option<(&str, &str)> {
    let end = path.find("/_")?;
    let (name, rest) = (&path[..end], &path[end + 1..]);
    Some((name, rest.split_once('/')?.0))
}

/// The path after everything that belongs to a repository itself. `` ` `` is the byte after `_`.
fn after(name: &str) -> String {
    format!("{name}/`")
}

/// The path at which the page after `last` begins.
fn start_after(last: &str) -> String {
    if Repository::parse(last).is_ok() { after(last) } else { last.to_owned() }
}

/// A position between `told`, which the client knows, and `reached`. It is as short as possible,
/// because the repository at `reached` may be one that the client must not see.
fn position(told: &str, reached: &str) -> String {
    let ends = reached.char_indices().map(|(start, char)| start + char.len_utf8());
    let mut positions = ends.map(|end| format!("{}{NO_NAME}", &reached[..end]));
    positions.find(|position| position.as_str() > told).unwrap_or_else(|| format!("{reached}{NO_NAME}"))
}
