//! Content that an immutable tag needs is not deleted, because the tag could no longer be pulled.

use super::{Manage, ManageError};
use entrepot_bucket::BucketError;
use entrepot_oci::{Content, Digest, Manifest, Repository, Tag};
use std::collections::HashSet;

impl Manage {
    pub(super) async fn refuse_protected(&self, repository: &Repository, digest: &Digest) -> Result<(), ManageError> {
        match self.protected_by(repository, digest).await? {
            Some(tag) => Err(ManageError::Protected(tag)),
            None => Ok(()),
        }
    }

    /// An immutable tag of the repository that needs the content. Sends no request if no tag is
    /// immutable; otherwise it reads all immutable tags of the repository and their manifests.
    pub(super) async fn protected_by(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Tag>, BucketError> {
        if !self.env.tags.any_immutable() {
            return Ok(None);
        }
        let mut seen = HashSet::new();
        for (tag, manifest) in self.env.tags.immutable(repository).await? {
            if self.needs(manifest, digest, &mut seen).await? {
                return Ok(Some(tag));
            }
        }
        Ok(None)
    }

    /// Whether the manifest, or one below it that is not in `seen`, is or references the content.
    async fn needs(&self, manifest: Digest, digest: &Digest, seen: &mut HashSet<Digest>) -> Result<bool, BucketError> {
        let mut open = vec![manifest];
        while let Some(next) = open.pop() {
            if next == *digest {
                return Ok(true);
            }
            if !seen.insert(next) {
                continue;
            }
            let Some(content) = self.content_of(&next).await? else { continue };
            let Ok(manifest) = Manifest::parse(&content, None) else { continue };
            match manifest.content {
                Content::Image(blobs) if blobs.iter().any(|blob| blob.digest == *digest) => return Ok(true),
                Content::Image(_) => {}
                Content::Index(manifests) => open.extend(manifests.iter().map(|child| child.digest)),
            }
        }
        Ok(false)
    }
}
