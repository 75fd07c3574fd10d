//! The manifest: the barrier after which an image is durable, in either mode.
//!
//! The steps, and what a crash after each leaves: tags read (nothing), data (bytes that nothing makes visible), revision
//! link (a manifest by digest that was not acknowledged), references looked up (the same), referrer entry (the same,
//! listed), current link of each tag. A retry completes it.
//!
//! The link is written before the references are looked up, and not after: whatever removes content removes it first
//! and looks for links afterwards, so that one of the two sees the other.
//!
//! | what happens | between | result |
//! |---|---|---|
//! | a layer is deleted | anything and the lookup | refused with 400, the link is withdrawn |
//! | a layer is deleted | the lookup and the answer | as if it was deleted after the push |
//! | the data of a layer is removed | the link and the lookup | put again from the store, else refused |
//! | the manifest is deleted | the link and the last look | the last look finds no link and makes link and tags anew |
//! | the manifest is deleted | the last look and the answer | the deletion finds the tags and removes them |
//! | a tag is deleted | the tag and the last look | as if it was deleted after the push |
//! | the same manifest is pushed elsewhere | the link and its withdrawal | the withdrawal looks again and restores it |

use super::{Accepted, ManifestPush, UploadError, Uploads};
use crate::oci::{Algorithm, Digest, MAX_MANIFEST_BYTES, Manifest, Reference, Repository, Tag};
use crate::run::crash;
use crate::store::bucket::{PutBody, PutMode};
use crate::store::disk::Look;
use crate::store::layout::LinkKind;
use crate::store::tags::{Conditions, Current, TagError};
use bytes::Bytes;
use futures::future::try_join_all;

/// How often a push makes its link and tags anew because deletions remove them at the same time. Each time another
/// deletion must have come between.
const LOOKS: usize = 5;

impl Uploads {
    pub(super) async fn accept(&self, repository: &Repository, push: ManifestPush) -> Result<Accepted, UploadError> {
        let ManifestPush { reference, tags, content_type, content, conditions } = push;
        let digest = digest_of(&reference, &content)?;
        if content.len() > MAX_MANIFEST_BYTES {
            return Err(UploadError::TooLarge(MAX_MANIFEST_BYTES as u64));
        }
        let manifest = Manifest::parse(&content, content_type.as_deref())?;
        let tags: Vec<Tag> = match reference {
            Reference::Tag(tag) => std::iter::once(tag).chain(tags).collect(),
            Reference::Digest(_) => tags,
        };
        let planned = self.plan_tags(repository, tags, &digest, &conditions).await?;
        // Nothing is written yet: a push that is given up here changes no tag later.
        self.in_time(self.wait_for_pending(repository, &manifest)).await?;

        let look = self.inner.store.look(&digest);
        self.put_data(&digest, content.clone()).await?;
        crash::point("manifest.data-written");
        let new = self.inner.links.write_new(repository, LinkKind::Revision, &digest).await?;
        crash::point("manifest.revision-written");
        if let Err(error) = self.check_references(repository, &manifest).await {
            if let (true, UploadError::MissingReferences { blobs, manifests }) = (new, &error) {
                self.withdraw(repository, &digest, blobs, manifests).await;
            }
            return Err(error);
        }
        crash::point("manifest.references-checked");
        if let Some(subject) = manifest.subject {
            self.write_referrer(repository, &subject, &digest, &manifest, content.len() as u64).await?;
        }
        crash::point("manifest.referrer-written");
        self.keep(&look, repository, &digest, content).await;
        for (tag, current) in &planned {
            self.inner.tags.set(repository, tag, &digest, current.clone(), &conditions).await?;
        }
        if !new || !planned.is_empty() {
            let tags: Vec<Tag> = planned.into_iter().map(|(tag, _)| tag).collect();
            self.look_again(repository, &digest, &tags).await?;
        }
        Ok(Accepted { digest, subject: manifest.subject })
    }

    /// Reads the tags that the manifest is to get, and refuses what can be refused before anything is written.
    async fn plan_tags(
        &self,
        repository: &Repository,
        tags: Vec<Tag>,
        digest: &Digest,
        conditions: &Conditions,
    ) -> Result<Vec<(Tag, Current)>, UploadError> {
        if tags.is_empty() && !conditions.is_empty() {
            let exists = self.inner.links.ask(repository, LinkKind::Revision, digest).await?;
            return if conditions.hold(exists.then_some(digest)) {
                Ok(Vec::new())
            } else {
                Err(TagError::Precondition.into())
            };
        }
        let read = tags.into_iter().map(|tag| async move {
            let current = self.inner.tags.current(repository, &tag).await?;
            self.inner.tags.check(&tag, digest, &current, conditions)?;
            Ok::<_, UploadError>((tag, current))
        });
        try_join_all(read).await
    }

    /// Overwritten and not skipped when it is there: the bytes are the same, and pushing an image again then repairs a
    /// manifest that was damaged in the bucket, at the same cost.
    async fn put_data(&self, digest: &Digest, content: Bytes) -> Result<(), UploadError> {
        let began = self.inner.recent_puts.begin();
        let key = self.inner.layout.data(digest);
        self.inner.bucket.put(&key, PutBody::Bytes(content), PutMode::Overwrite).await?;
        self.inner.recent_puts.put(digest, began);
        Ok(())
    }

    /// Removes the link of a manifest that is refused, which this push has made. It removes first and looks afterwards:
    /// another push of the same manifest may have relied on the link.
    async fn withdraw(&self, repository: &Repository, digest: &Digest, blobs: &[Digest], manifests: &[Digest]) {
        let withdrawn = async {
            self.inner.links.remove(repository, LinkKind::Revision, digest).await?;
            if self.has_all(repository, blobs, manifests).await? {
                self.inner.links.write(repository, LinkKind::Revision, digest).await?;
            }
            Ok::<_, UploadError>(())
        };
        if let Err(error) = withdrawn.await {
            tracing::warn!(%repository, %digest, %error, "the link of a refused manifest is left in the bucket");
        }
    }

    /// The last look: what was written must still be there, or a deletion came between.
    async fn look_again(&self, repository: &Repository, digest: &Digest, tags: &[Tag]) -> Result<(), UploadError> {
        let (links, all_tags) = (&self.inner.links, &self.inner.tags);
        for _ in 0..LOOKS {
            if links.ask(repository, LinkKind::Revision, digest).await? {
                return Ok(());
            }
            links.write(repository, LinkKind::Revision, digest).await?;
            for tag in tags {
                let current = all_tags.current(repository, tag).await?;
                if current.is_absent() || current.digest.as_ref() == Some(digest) {
                    all_tags.renew(repository, tag, digest, current).await?;
                }
            }
        }
        Err(TagError::OutcomeUnknown.into())
    }

    async fn write_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        digest: &Digest,
        manifest: &Manifest,
        size: u64,
    ) -> Result<(), UploadError> {
        let referrer = manifest.referrer(*digest, size);
        let entry = serde_json::to_vec(&referrer).map_err(crate::oci::ManifestError::Json)?;
        let key = self.inner.layout.referrer(repository, subject, digest);
        self.inner.bucket.put(&key, PutBody::Bytes(entry.into()), PutMode::Overwrite).await?;
        Ok(self.inner.fallback.add(repository, subject, &referrer).await?)
    }

    /// Keeps the manifest in the store, so that the next pull of it at this node asks the bucket nothing but the tag.
    /// It is durable already, so a full disk is no reason to refuse it.
    async fn keep(&self, look: &Look, repository: &Repository, digest: &Digest, content: Bytes) {
        match self.inner.store.insert_small(digest, content).await {
            Ok(()) => self.inner.store.remember_link(look, repository, LinkKind::Revision, digest),
            Err(error) => tracing::warn!(%repository, %digest, %error, "a manifest is durable and not stored here"),
        }
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
