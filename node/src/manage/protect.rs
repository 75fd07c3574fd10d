//! Content that an immutable tag needs is not deleted, because the tag could no longer be pulled.
//!
//! The check reads the immutable tags of the one repository, and their manifests, and those that
//! indexes list. It runs twice: before the removal, and after it for tags that were pushed in
//! between. The second run reads only what is new: an immutable tag keeps its manifest, and a digest
//! its content. A repository with more manifests than [`MOST`] cannot be checked, and the deletion
//! is refused.
//!
//! | what happens | between | result |
//! |---|---|---|
//! | an immutable tag is pushed | the first check and the removal | the second check finds the tag and restores the link |
//! | an immutable tag is pushed | the second check and the answer | its push finds the link missing: rejected, or the link is restored if it was there before (`upload::manifest`) |
//! | the client disconnects | any | the deletion continues to its end |
//! | crash | the removal and the second check | a tag that was pushed in between may lack the content; the deletion was not acknowledged |

use super::{Manage, ManageError};
use entrepot_bucket::BucketError;
use entrepot_oci::{Content, Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, Repository, Tag};
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::HashSet;

/// Most manifests that one deletion reads. With 8 requests at the same time and 30 ms for each, they
/// take 40 s. A repository with that many immutable images is far larger than usual.
const MOST: usize = 10_000;

/// Most entries of indexes that are kept at a time, with repetitions: about 100 MiB.
const MOST_ENTRIES: usize = 1_000_000;

/// Number of manifests that are read at the same time: at most 32 MiB.
const AT_ONCE: usize = 8;

/// What is known of the immutable tags of a repository, for one deletion.
pub(super) struct Protection<'a> {
    manage: &'a Manage,
    repository: &'a Repository,
    /// The content that is about to be deleted.
    digest: &'a Digest,
    /// Immutable tags that do not need it. They never will.
    tags: HashSet<Tag>,
    /// Manifests that do not need it.
    seen: HashSet<Digest>,
    /// A manifest did not exist. It may be pushed later, so nothing is remembered.
    incomplete: bool,
    most: usize,
}

impl<'a> Protection<'a> {
    pub(super) fn new(manage: &'a Manage, repository: &'a Repository, digest: &'a Digest) -> Protection<'a> {
        let (tags, seen) = (HashSet::new(), HashSet::new());
        Protection { manage, repository, digest, tags, seen, incomplete: false, most: MOST }
    }

    /// # Errors
    /// `Protected` if an immutable tag needs the content, or `Unchecked` if there are too many.
    pub(super) async fn refuse(&mut self) -> Result<(), ManageError> {
        match self.find().await? {
            Some(tag) => Err(ManageError::Protected(tag)),
            None => Ok(()),
        }
    }

    /// An immutable tag that needs the content. Sends no request if no tag is immutable.
    ///
    /// # Errors
    /// `Unchecked` if there are too many manifests, or if the bucket fails.
    pub(super) async fn find(&mut self) -> Result<Option<Tag>, ManageError> {
        let all = &self.manage.env.tags;
        if !all.any_immutable() {
            return Ok(None);
        }
        let new = all.immutable(self.repository, &self.tags, self.most).await?;
        let mut level: Vec<(Tag, Digest)> = new.clone();
        while !level.is_empty() {
            if let Some((tag, _)) = level.iter().find(|(_, manifest)| manifest == self.digest) {
                return Ok(Some(tag.clone()));
            }
            level.retain(|(_, manifest)| self.seen.insert(*manifest));
            if self.seen.len() > self.most {
                return Err(ManageError::Unchecked(self.most));
            }
            level = match self.below(level).await? {
                Below::Needed(tag) => return Ok(Some(tag)),
                Below::Children(children) => children,
            };
        }
        if std::mem::take(&mut self.incomplete) {
            self.seen.clear();
        } else {
            self.tags.extend(new.into_iter().map(|(tag, _)| tag));
        }
        Ok(None)
    }

    /// Reads these manifests.
    async fn below(&mut self, level: Vec<(Tag, Digest)>) -> Result<Below, ManageError> {
        let manage = self.manage;
        let read = |(tag, manifest)| async move { Ok::<_, BucketError>((tag, manage.content_of(&manifest).await?)) };
        let reads: Vec<_> = level.into_iter().map(read).collect();
        let mut reads = stream::iter(reads).buffer_unordered(AT_ONCE);
        let mut children = Vec::new();
        while let Some((tag, content)) = reads.try_next().await? {
            self.incomplete |= content.is_none();
            let manifest = content.and_then(|content| Manifest::parse(&content, None).ok());
            match manifest.map(|manifest| manifest.content) {
                Some(Content::Image(blobs)) if blobs.iter().any(|blob| blob.digest == *self.digest) => {
                    return Ok(Below::Needed(tag));
                }
                Some(Content::Index(entries)) => {
                    // Before the content is read: an entry that is too large for a manifest is a blob.
                    if entries.iter().any(|entry| entry.digest == *self.digest) {
                        return Ok(Below::Needed(tag));
                    }
                    let manifests = entries.iter().filter(|entry| may_be_manifest(entry));
                    children.extend(manifests.map(|entry| (tag.clone(), entry.digest)));
                }
                Some(Content::Image(_)) | None => {}
            }
            // Manifests that share entries repeat them, so this is only a bound of memory.
            if children.len() > MOST_ENTRIES {
                return Err(ManageError::Unchecked(self.most));
            }
        }
        Ok(Below::Children(children))
    }
}

fn may_be_manifest(entry: &Descriptor) -> bool {
    entry.size <= MAX_MANIFEST_BYTES as u64
}

/// What the manifests of one level show.
enum Below {
    /// One of them, for this tag, needs the content.
    Needed(Tag),
    /// None does. These are the entries of indexes, with their tag.
    Children(Vec<(Tag, Digest)>),
}

#[cfg(test)]
mod tests;
