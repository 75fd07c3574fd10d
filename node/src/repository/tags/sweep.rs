//! A pass over all tags of a repository that finds those that point to one manifest. Nothing in the
//! bucket leads from a manifest to its tags, so the link of every tag is read.
//!
//! One request examines a limited number of tags. The node remembers for a minute how far it got, and
//! a repetition of the request continues there. What is remembered says only which tags were
//! examined since the pass began, and is not needed for the result: without it, a pass starts again.

use super::list::PAGE;
use super::{Current, TagError, Tags};
use entrepot_bucket::{BucketError, ListOptions};
use entrepot_oci::{Digest, Repository, Tag};
use entrepot_runtime::clock::Stopwatch;
use futures::{StreamExt, TryStreamExt, stream};
use quick_cache::sync::Cache;
use std::time::Duration;

/// Number of tags that one request examines. Each costs one request to the bucket; at 10 ms each and
/// 16 at a time, that is 6 s.
pub const EXAMINED: usize = 10_000;
/// Number of links that are read at the same time.
const AT_ONCE: usize = 16;
/// Number of interrupted passes that are remembered, about 500 bytes each.
const REMEMBERED: usize = 1000;
/// How long an interrupted pass is remembered. A client repeats a request after a second.
const RESUMED: Duration = Duration::from_secs(60);
/// If a page of keys has fewer tags than one in this many, the tags have a long history, which CNCF
/// Distribution wrote, and only directories are listed from there on.
const FEW: usize = 4;

/// The two passes of the deletion of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// Before the link of the manifest is removed.
    First,
    /// After it: finds the tags that were pushed during the first one.
    Late,
}

/// A tag that points to the manifest.
#[derive(Debug)]
pub struct Pointing {
    /// The tag.
    pub tag: Tag,
    pub(super) current: Current,
    /// Whether its directory may contain more than the current link.
    pub(super) has_history: bool,
}

/// The interrupted passes.
pub(super) struct Interrupted(Cache<(Repository, Digest), Progress>);

#[derive(Clone)]
struct Progress {
    pass: Pass,
    /// All tags before this part of a key were examined and, if they pointed to the manifest, removed.
    after: String,
    /// Whether any of them pointed to the manifest.
    found: bool,
    at: Stopwatch,
}

impl Interrupted {
    pub(super) fn new() -> Interrupted {
        Interrupted(Cache::new(REMEMBERED))
    }

    fn get(&self, repository: &Repository, digest: &Digest, pass: Pass) -> Option<Progress> {
        let found = self.0.get(&(repository.clone(), *digest))?;
        (found.pass == pass && found.at.elapsed() < RESUMED).then_some(found)
    }
}

/// A pass.
pub struct Sweep<'a> {
    tags: &'a Tags,
    repository: &'a Repository,
    digest: &'a Digest,
    pass: Pass,
    /// Number of tags that this request may still examine.
    left: &'a mut usize,
    /// The part of a key after the prefix of all tags. `None`: the pass is complete.
    next: Option<String>,
    /// Whether any tag so far pointed to the manifest.
    found: bool,
    /// List directories, not keys.
    folders: bool,
}

impl Tags {
    /// Whether a deletion of the manifest was interrupted at this node in its late pass.
    pub fn is_interrupted_late(&self, repository: &Repository, digest: &Digest) -> bool {
        self.interrupted.get(repository, digest, Pass::Late).is_some()
    }

    /// A pass over the tags of a repository, which continues an interrupted one. `left` is the number
    /// of tags that this request may still examine.
    pub fn sweep<'a>(
        &'a self,
        repository: &'a Repository,
        digest: &'a Digest,
        pass: Pass,
        left: &'a mut usize,
    ) -> Sweep<'a> {
        let progress = self.interrupted.get(repository, digest, pass);
        let found = progress.as_ref().is_some_and(|progress| progress.found);
        let next = Some(progress.map(|progress| progress.after).unwrap_or_default());
        Sweep { tags: self, repository, digest, pass, left, next, found, folders: false }
    }
}

impl Sweep<'_> {
    /// The tags of the next part that point to the manifest; `None` at the end. Called again after
    /// they were removed.
    ///
    /// # Errors
    /// `TooMany` if this request has examined as many tags as it may; or if the bucket fails.
    pub async fn next(&mut self) -> Result<Option<Vec<Pointing>>, TagError> {
        let Some(after) = self.next.clone() else { return Ok(None) };
        self.remember(&after);
        if *self.left == 0 {
            return Err(TagError::TooMany);
        }
        let named = self.list(after).await?;
        *self.left -= named.len().min(*self.left);
        let (tags, repository, digest) = (self.tags, self.repository, self.digest);
        let pointing: Vec<Pointing> = stream::iter(named)
            .map(|(tag, has_history)| async move {
                let current = tags.current(repository, &tag).await?;
                let is_hit = current.digest.as_ref() == Some(digest);
                Ok::<_, BucketError>(is_hit.then_some(Pointing { tag, current, has_history }))
            })
            .buffered(AT_ONCE)
            .try_filter_map(|found| std::future::ready(Ok(found)))
            .try_collect()
            .await?;
        self.found |= !pointing.is_empty();
        Ok(Some(pointing))
    }

    /// Ends the pass. Returns whether any tag pointed to the manifest.
    pub fn end(self) -> bool {
        self.tags.interrupted.0.remove(&(self.repository.clone(), *self.digest));
        self.found
    }

    fn remember(&self, after: &str) {
        if !after.is_empty() {
            let progress =
                Progress { pass: self.pass, after: after.to_owned(), found: self.found, at: Stopwatch::start() };
            self.tags.interrupted.0.insert((self.repository.clone(), *self.digest), progress);
        }
    }

    /// The next tags, and whether each may have a history.
    async fn list(&mut self, after: String) -> Result<Vec<(Tag, bool)>, BucketError> {
        let prefix = self.tags.layout.tags(self.repository);
        let after = Some(after).filter(|after| !after.is_empty()).map(|after| format!("{prefix}{after}"));
        let (delimiter, max) = (self.folders, PAGE.min(*self.left));
        let page = self.tags.bucket.list(ListOptions { prefix: prefix.clone(), delimiter, after, max }).await?;
        let keys = page.keys.iter().map(|key| key.as_str()).chain(page.prefixes.iter().map(String::as_str));
        let mut named: Vec<(Tag, bool)> = Vec::new();
        let mut last = None;
        for (folder, rest) in keys.filter_map(|key| key.strip_prefix(&prefix)?.split_once('/')) {
            last = Some(folder);
            let Ok(tag) = Tag::parse(folder) else { continue };
            let is_current = rest == "current/link";
            match named.last_mut() {
                Some((known, has_history)) if *known == tag => *has_history |= !is_current,
                _ => named.push((tag, !is_current)),
            }
        }
        // The rest of the last directory is skipped. `0` is the byte after `/`.
        self.next = page.next.map(|next| match last {
            Some(folder) => format!("{folder}0"),
            None => next.strip_prefix(&prefix).unwrap_or_default().to_owned(),
        });
        if self.next.is_some()
            && let Some((_, has_history)) = named.last_mut()
        {
            *has_history = true;
        }
        self.folders |= named.len() < page.keys.len() / FEW;
        Ok(named)
    }
}
