//! The manifest: the barrier after which an image is durable, in either mode.
//!
//! The steps, and what a crash after each leaves: references checked and durable (nothing new), data (bytes that
//! nothing makes visible), revision link (a whole manifest, by digest), referrer entry (the same, listed), current
//! link (the tag), tag index link (its history). At no point is anything visible that is broken; a retry completes it.

use super::{Accepted, ManifestPush, UploadError, Uploads};
use crate::oci::{Algorithm, Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, Reference, Repository, Tag};
use crate::run::crash;
use crate::store::bucket::{BucketError, ETag, Put, PutBody, PutMode, get_small};
use crate::store::disk::KnownTag;
use crate::store::layout::{LinkKind, link_content, read_link};
use crate::store::links::MAX_LINK_BYTES;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

/// References of one manifest looked up at once.
const LOOKUPS: usize = 16;

impl Uploads {
    pub(super) async fn accept(&self, repository: &Repository, push: ManifestPush) -> Result<Accepted, UploadError> {
        let ManifestPush { reference, tags, content_type, content } = push;
        let digest = digest_of(&reference, &content)?;
        if content.len() > MAX_MANIFEST_BYTES {
            return Err(UploadError::TooLarge(MAX_MANIFEST_BYTES as u64));
        }
        let manifest = Manifest::parse(&content, content_type.as_deref())?;
        self.check_references(repository, &manifest).await?;
        crash::point("manifest.references-checked");

        let tags: Vec<Tag> = match reference {
            Reference::Tag(tag) => std::iter::once(tag).chain(tags).collect(),
            Reference::Digest(_) => tags,
        };
        for tag in tags.iter().filter(|tag| self.is_immutable(tag)) {
            self.check_immutable(repository, tag, &digest).await?;
        }

        // Overwritten and not skipped when it is there: it is the same bytes, and pushing an image again then repairs
        // a manifest that was damaged in the bucket, at the same cost.
        let bucket = &self.inner.bucket;
        bucket.put(&self.inner.layout.data(&digest), PutBody::Bytes(content.clone()), PutMode::Overwrite).await?;
        crash::point("manifest.data-written");
        self.inner.links.write(repository, LinkKind::Revision, &digest).await?;
        crash::point("manifest.revision-written");
        if let Some(subject) = manifest.subject {
            self.write_referrer(repository, &subject, &digest, &manifest, content.len() as u64).await?;
        }
        crash::point("manifest.referrer-written");
        self.keep(repository, &digest, content).await;
        for tag in &tags {
            self.write_tag(repository, tag, digest).await?;
        }
        Ok(Accepted { digest, subject: manifest.subject })
    }

    /// Everything that the manifest refers to must be visible in the repository and durable: what a client of another
    /// node is led to by this manifest, it must find there.
    async fn check_references(&self, repository: &Repository, manifest: &Manifest) -> Result<(), UploadError> {
        // A layer with URLs may lie elsewhere (image-spec, "Non-distributable layers").
        let blobs = manifest.blobs.iter().filter(|blob| blob.urls.is_empty());
        let blobs = self.missing(repository, LinkKind::Layer, blobs).await?;
        let manifests = self.missing(repository, LinkKind::Revision, manifest.manifests.iter()).await?;
        if !blobs.is_empty() || !manifests.is_empty() {
            return Err(UploadError::MissingReferences { blobs, manifests });
        }
        for blob in &manifest.blobs {
            self.inner.replicator.durable(repository, &blob.digest).await?;
        }
        Ok(())
    }

    async fn missing(
        &self,
        repository: &Repository,
        kind: LinkKind,
        references: impl Iterator<Item = &Descriptor>,
    ) -> Result<Vec<Digest>, BucketError> {
        let mut digests: Vec<Digest> = references.map(|descriptor| descriptor.digest).collect();
        digests.sort_unstable();
        digests.dedup();
        stream::iter(digests)
            .map(|digest| async move {
                Ok((!self.inner.links.exists(repository, kind, &digest).await?).then_some(digest))
            })
            .buffered(LOOKUPS)
            .try_filter_map(|missing| async move { Ok(missing) })
            .try_collect()
            .await
    }

    fn is_immutable(&self, tag: &Tag) -> bool {
        self.inner.immutable.is_match(tag.as_str())
    }

    async fn check_immutable(&self, repository: &Repository, tag: &Tag, digest: &Digest) -> Result<(), UploadError> {
        let key = self.inner.layout.tag_current(repository, tag);
        match get_small(&*self.inner.bucket, &key, MAX_LINK_BYTES).await? {
            Some((link, _)) if read_link(&link).is_some_and(|current| current != *digest) => {
                Err(UploadError::Immutable)
            }
            _ => Ok(()),
        }
    }

    async fn write_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        digest: &Digest,
        manifest: &Manifest,
        size: u64,
    ) -> Result<(), UploadError> {
        let entry = serde_json::to_vec(&manifest.referrer(*digest, size)).map_err(crate::oci::ManifestError::Json)?;
        let key = self.inner.layout.referrer(repository, subject, digest);
        self.inner.bucket.put(&key, PutBody::Bytes(entry.into()), PutMode::Overwrite).await?;
        Ok(())
    }

    /// Keeps the manifest in the store, so that the next pull of it at this node asks the bucket nothing but the tag.
    /// It is durable already, so a full disk is no reason to refuse it.
    async fn keep(&self, repository: &Repository, digest: &Digest, content: Bytes) {
        match self.inner.store.insert_small(digest, content).await {
            Ok(()) => self.inner.store.remember_link(repository, LinkKind::Revision, digest),
            Err(error) => tracing::warn!(%repository, %digest, %error, "a manifest is durable and not stored here"),
        }
    }

    async fn write_tag(&self, repository: &Repository, tag: &Tag, digest: Digest) -> Result<(), UploadError> {
        let link = Bytes::from(link_content(&digest));
        let current = self.inner.layout.tag_current(repository, tag);
        let mode = if self.is_immutable(tag) { PutMode::IfAbsent } else { PutMode::Overwrite };
        match self.inner.bucket.put(&current, PutBody::Bytes(link.clone()), mode).await? {
            Put::Done(etag) => self.remember_tag(repository, tag, digest, etag),
            // Two nodes pushed an immutable tag at once: the first is what it is.
            Put::Exists | Put::Changed => self.check_immutable(repository, tag, &digest).await?,
        }
        crash::point("manifest.tag-written");
        // The history comes after the tag: a folder of the tag without its current link would be listed as a tag that
        // is not there.
        let index = self.inner.layout.tag_index(repository, tag, &digest);
        self.inner.bucket.put(&index, PutBody::Bytes(link), PutMode::Overwrite).await?;
        crash::point("manifest.tag-index-written");
        Ok(())
    }

    fn remember_tag(&self, repository: &Repository, tag: &Tag, digest: Digest, etag: ETag) {
        let seen = self.inner.clock.now();
        self.inner.store.remember_tag(repository, tag, KnownTag { digest, etag, seen });
    }
}

/// The manifest's digest, in the algorithm that the client asks for; its content must have it.
fn digest_of(reference: &Reference, content: &[u8]) -> Result<Digest, UploadError> {
    match reference {
        Reference::Tag(_) => Ok(Digest::of(Algorithm::Sha256, content)),
        Reference::Digest(expected) => {
            let actual = Digest::of(expected.algorithm(), content);
            if actual == *expected {
                Ok(actual)
            } else {
                Err(UploadError::DigestMismatch { expected: Box::new(*expected), actual: Box::new(actual) })
            }
        }
    }
}
