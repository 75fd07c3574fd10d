//! The references of a manifest. Everything that a manifest refers to must be visible in the
//! repository and durable, so a client of any node can follow the references.
//!
//! Each reference is looked up in the bucket, regardless of what was seen before: its link, and its
//! data unless this node put it within the last minute. Missing data is uploaded again from the
//! store. The size that an image states for a blob is compared with the size that this look-up shows, so
//! the comparison costs no request.

use super::wanted::{Found, Kind, NAMED, Relied, Unmet, Wanted};
use super::{UploadError, Uploads};
use crate::repository::layout::LinkKind;
use crate::repository::replicator::Elsewhere;
use crate::repository::tags::TagError;
use entrepot_config::SparseIndexes;
use entrepot_oci::{Digest, Manifest, Repository};
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

    /// Looks up all references, and stops at [`NAMED`] that are unmet. Returns the links that the
    /// manifest relies on.
    pub(super) async fn check_references(
        &self,
        repository: &Repository,
        wanted: &[Wanted],
    ) -> Result<Result<Vec<Relied>, Unmet>, UploadError> {
        let (mut relied, mut unmet) = (Vec::new(), Unmet::default());
        let lookups: Vec<_> = wanted.iter().map(|wanted| self.look_up(repository, *wanted)).collect();
        let mut lookups = stream::iter(lookups).buffered(LOOKUPS);
        while let Some((wanted, found)) = lookups.try_next().await? {
            match found {
                Found::Linked(kind, size) if wanted.accepts(size) => relied.push((kind, wanted.digest)),
                Found::Linked(_, size) => unmet.of_other_size.push((wanted, size)),
                Found::NotRequired => {}
                Found::Missing => unmet.missing.push(wanted),
            }
            if unmet.len() >= NAMED {
                break;
            }
        }
        Ok(if unmet.len() == 0 { Ok(relied) } else { Err(unmet) })
    }

    /// Whether all of these references are met now. Stops at the first one that is not.
    pub(super) async fn are_met(
        &self,
        repository: &Repository,
        wanted: impl Iterator<Item = Wanted> + Send,
    ) -> Result<bool, UploadError> {
        for wanted in wanted {
            match self.look_up(repository, wanted).await?.1 {
                Found::Linked(_, size) if wanted.accepts(size) => {}
                Found::NotRequired => {}
                Found::Linked(..) | Found::Missing => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Restores links that were removed since the references were looked up. Called after an
    /// immutable tag was written, which protects its content: a deletion that comes later finds the
    /// tag. One request per link.
    pub(super) async fn keep_links(&self, repository: &Repository, relied: &[Relied]) -> Result<(), UploadError> {
        let kept: Vec<_> = relied.iter().map(|(kind, digest)| self.keep_link(repository, *kind, digest)).collect();
        stream::iter(kept).buffer_unordered(LOOKUPS).try_collect().await
    }

    async fn keep_link(&self, repository: &Repository, kind: LinkKind, digest: &Digest) -> Result<(), UploadError> {
        if self.inner.env.links.ask(repository, kind, digest).await? {
            return Ok(());
        }
        tracing::warn!(%repository, %digest, "restoring a link that was removed while an immutable tag was pushed");
        self.inner.env.links.write(repository, kind, digest).await?;
        // The link is written before the data is checked, as everywhere.
        if self.data_size(digest).await?.is_some() { Ok(()) } else { Err(TagError::OutcomeUnknown.into()) }
    }

    async fn look_up(&self, repository: &Repository, wanted: Wanted) -> Result<(Wanted, Found), UploadError> {
        let found = match wanted.kind {
            Kind::Blob => self.look_up_blob(repository, &wanted.digest).await?,
            Kind::Child => self.look_up_child(repository, &wanted.digest).await?,
        };
        Ok((wanted, found))
    }

    async fn look_up_blob(&self, repository: &Repository, digest: &Digest) -> Result<Found, UploadError> {
        if !self.is_linked(repository, LinkKind::Layer, digest).await? {
            return Ok(Found::Missing);
        }
        let size = self.data_size(digest).await?;
        Ok(size.map_or(Found::Missing, |size| Found::Linked(LinkKind::Layer, size)))
    }

    /// Looks up an entry of an index. An index lists manifests, or blobs of the repository (a
    /// BuildKit build cache). Some tools copy an index without all of its manifests.
    async fn look_up_child(&self, repository: &Repository, digest: &Digest) -> Result<Found, UploadError> {
        let kind = if self.inner.env.links.ask(repository, LinkKind::Revision, digest).await? {
            Some(LinkKind::Revision)
        } else {
            self.is_linked(repository, LinkKind::Layer, digest).await?.then_some(LinkKind::Layer)
        };
        if let Some(kind) = kind
            && let Some(size) = self.data_size(digest).await?
        {
            return Ok(Found::Linked(kind, size));
        }
        let accepted = match self.inner.env.config.upload.sparse_indexes {
            SparseIndexes::Refuse => false,
            SparseIndexes::Allow => true,
            // Data that exists without a link was deleted from this repository, or never pushed to
            // it.
            SparseIndexes::AllowUnknown => {
                kind.is_none() && self.inner.env.bucket.head(&self.inner.env.layout.data(digest)).await?.is_none()
            }
        };
        Ok(if accepted { Found::NotRequired } else { Found::Missing })
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

    /// The size in bytes of the data in the bucket; `None` if the bucket does not have it.
    pub(super) async fn data_size(&self, digest: &Digest) -> Result<Option<u64>, UploadError> {
        match self.inner.env.recent_puts.size(digest) {
            Some(size) => Ok(Some(size)),
            None => Ok(self.inner.replicator.ensure_data(digest).await?),
        }
    }
}
