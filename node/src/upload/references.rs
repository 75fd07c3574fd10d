//! The references of a manifest. Everything that a manifest refers to must be visible in the
//! repository and durable, so a client of any node can follow the references.
//!
//! Each reference is looked up in the bucket, regardless of what was seen before: its link, and its
//! data unless this node put it within the last minute. Missing data is uploaded again from the
//! store.

use super::{UploadError, Uploads};
use crate::repository::layout::LinkKind;
use crate::repository::replicator::Elsewhere;
use entrepot_config::SparseIndexes;
use entrepot_oci::{Content, Descriptor, Digest, Manifest, Repository};
use futures::{StreamExt, TryStreamExt, stream};

/// Number of references of one manifest that are looked up at the same time.
const LOOKUPS: usize = 16;

impl Uploads {
    /// Waits until blobs that are pending at this node are durable.
    pub(super) async fn wait_for_pending(
        &self,
        repository: &Repository,
        manifest: &Manifest,
    ) -> Result<(), UploadError> {
        for descriptor in manifest.content.descriptors() {
            self.inner.replicator.durable(repository, &descriptor.digest).await?;
        }
        Ok(())
    }

    pub(super) async fn check_references(
        &self,
        repository: &Repository,
        manifest: &Manifest,
    ) -> Result<(), UploadError> {
        let (blobs, manifests) = match &manifest.content {
            Content::Image(blobs) => {
                // A layer with URLs may be stored elsewhere (image-spec, "Non-distributable layers").
                let blobs = distinct(blobs.iter().filter(|blob| blob.urls.is_empty()));
                (self.missing(blobs, |digest| self.has_blob(repository, digest)).await?, Vec::new())
            }
            Content::Index(manifests) => {
                let manifests = distinct(manifests.iter());
                (Vec::new(), self.missing(manifests, |digest| self.has_child(repository, digest)).await?)
            }
        };
        if blobs.is_empty() && manifests.is_empty() {
            Ok(())
        } else {
            Err(UploadError::MissingReferences { blobs, manifests })
        }
    }

    /// Whether the missing references exist now. Stops at the first one that does not.
    pub(super) async fn has_all(
        &self,
        repository: &Repository,
        blobs: &[Digest],
        manifests: &[Digest],
    ) -> Result<bool, UploadError> {
        for blob in blobs {
            if !self.has_blob(repository, *blob).await? {
                return Ok(false);
            }
        }
        for child in manifests {
            if !self.has_child(repository, *child).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn missing<F>(&self, digests: Vec<Digest>, has: impl Fn(Digest) -> F) -> Result<Vec<Digest>, UploadError>
    where
        F: Future<Output = Result<bool, UploadError>>,
    {
        stream::iter(digests)
            .map(|digest| {
                let has = has(digest);
                async move { Ok((!has.await?).then_some(digest)) }
            })
            .buffered(LOOKUPS)
            .try_filter_map(|missing| async move { Ok(missing) })
            .try_collect()
            .await
    }

    async fn has_blob(&self, repository: &Repository, digest: Digest) -> Result<bool, UploadError> {
        Ok(self.is_linked(repository, LinkKind::Layer, &digest).await? && self.has_data(&digest).await?)
    }

    /// Whether an entry of an index is acceptable. An index lists manifests, or blobs of the
    /// repository (a BuildKit build cache). Some tools copy an index without all of its manifests.
    async fn has_child(&self, repository: &Repository, digest: Digest) -> Result<bool, UploadError> {
        let linked = self.inner.env.links.ask(repository, LinkKind::Revision, &digest).await?
            || self.is_linked(repository, LinkKind::Layer, &digest).await?;
        if linked && self.has_data(&digest).await? {
            return Ok(true);
        }
        Ok(match self.inner.env.config.upload.sparse_indexes {
            SparseIndexes::Refuse => false,
            SparseIndexes::Allow => true,
            // Data that exists without a link was deleted from this repository, or never pushed to
            // it.
            SparseIndexes::AllowUnknown => {
                !linked && self.inner.env.bucket.head(&self.inner.env.layout.data(&digest)).await?.is_none()
            }
        })
    }

    /// Whether the repository links the content. Waits for a blob that another node has
    /// acknowledged and not yet made durable.
    pub(super) async fn is_linked(
        &self,
        repository: &Repository,
        kind: LinkKind,
        digest: &Digest,
    ) -> Result<bool, UploadError> {
        if self.inner.env.links.ask(repository, kind, digest).await? {
            return Ok(true);
        }
        match self.inner.replicator.elsewhere(repository, digest).await? {
            Elsewhere::NotPending => Ok(false),
            Elsewhere::Durable => Ok(true),
            Elsewhere::Pending => Err(UploadError::Pending(*digest)),
        }
    }

    /// Whether the bucket has the data.
    pub(super) async fn has_data(&self, digest: &Digest) -> Result<bool, UploadError> {
        Ok(self.inner.env.recent_puts.contains(digest) || self.inner.replicator.ensure_data(digest).await?)
    }
}

fn distinct<'a>(descriptors: impl Iterator<Item = &'a Descriptor>) -> Vec<Digest> {
    let mut digests: Vec<Digest> = descriptors.map(|descriptor| descriptor.digest).collect();
    digests.sort_unstable();
    digests.dedup();
    digests
}
