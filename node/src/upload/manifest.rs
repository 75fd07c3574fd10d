//! The manifest: the barrier after which an image is durable, in either mode.
//!
//! The steps, and what a crash after each leaves: tags read (nothing), data (bytes that no link
//! makes visible), revision link (an unacknowledged manifest that is readable by digest),
//! references looked up (the same), referrer entry (the same, and listed as a referrer), current
//! link of each tag. A repeated push completes it.
//!
//! The link is written before the references are looked up: whatever removes content removes it
//! first and looks for links afterwards, so one of the two sees the other.
//!
//! | what happens | between | result |
//! |---|---|---|
//! | a layer is deleted | any earlier step and the lookup | the push is rejected with 400, and the link is removed |
//! | a layer is deleted | the lookup and the answer | as if it was deleted after the push |
//! | the same, and the tag is immutable | the lookup and the tag | its link is restored after the tag is written |
//! | the same | the tag and the answer | the deletion finds the tag, restores the link and is refused |
//! | the client disconnects | before the data is written | the push ends, and nothing is written |
//! | the client disconnects | after that | the push continues, and still holds its place of `http.maxRequests` |
//! | the data of a layer is removed | the link and the lookup | uploaded again from the store, or rejected |
//! | the manifest is deleted | the link and the last check | the last check finds no link and writes both again |
//! | the manifest is deleted | the last check and the answer | the deletion finds the tags and removes them |
//! | a tag is deleted | the tag and the last check | as if it was deleted after the push |
//! | another push relies on the same link | the link and its removal | the removal checks again and restores it |

use super::wanted::{Relied, Unmet, Wanted, wanted};
use super::{Accepted, ManifestPush, UploadError, Uploads};
use crate::repository::layout::LinkKind;
use crate::repository::tags::{Conditions, Current, TagError};
use crate::store::Look;
use bytes::Bytes;
use entrepot_bucket::{PutBody, PutMode};
use entrepot_oci::{Algorithm, Digest, MAX_MANIFEST_BYTES, Manifest, Reference, Repository, Tag};
use entrepot_runtime::crash;
use futures::future::try_join_all;

/// How many times a push writes its link and tags again because concurrent deletions remove them.
/// Each time needs another deletion.
const LOOKS: usize = 5;

/// A push before its first write.
pub(super) struct Planned {
    digest: Digest,
    manifest: Manifest,
    content: Bytes,
    wanted: Vec<Wanted>,
    /// The tags that the manifest will get, as they are now.
    tags: Vec<(Tag, Current)>,
    conditions: Conditions,
}

impl Uploads {
    /// Checks everything that can be checked before the first write. A client that disconnects
    /// meanwhile ends it.
    pub(super) async fn plan(&self, repository: &Repository, push: ManifestPush) -> Result<Planned, UploadError> {
        let ManifestPush { reference, tags, content_type, content, conditions } = push;
        let digest = digest_of(&reference, &content)?;
        if content.len() > MAX_MANIFEST_BYTES {
            return Err(UploadError::TooLarge(MAX_MANIFEST_BYTES as u64));
        }
        let manifest = Manifest::parse_pushed(&content, content_type.as_deref())?;
        let wanted = wanted(&manifest, &self.inner.env.config.upload)?;
        let tags: Vec<Tag> = match reference {
            Reference::Tag(tag) => std::iter::once(tag).chain(tags).collect(),
            Reference::Digest(_) => tags,
        };
        let tags = self.plan_tags(repository, tags, &digest, &conditions).await?;
        // Nothing is written yet, so a push that is abandoned here changes no tag later.
        self.in_time(self.wait_for_pending(repository, &manifest)).await?;
        Ok(Planned { digest, manifest, content, wanted, tags, conditions })
    }

    /// The steps that write.
    pub(super) async fn accept(&self, repository: &Repository, planned: Planned) -> Result<Accepted, UploadError> {
        let Planned { digest, manifest, content, wanted, tags: planned, conditions } = planned;
        // Taken before the write, so a deletion that comes later invalidates what `keep` remembers.
        let look = self.inner.env.store.links.look(&digest);
        self.put_data(&digest, content.clone()).await?;
        crash::point("manifest.data-written");
        let new = self.inner.env.links.write_new(repository, LinkKind::Revision, &digest).await?;
        crash::point("manifest.revision-written");
        let relied = match self.check_references(repository, &wanted).await? {
            Ok(relied) => relied,
            Err(unmet) => {
                if new {
                    self.withdraw(repository, &digest, &unmet).await;
                }
                return Err(unmet.error());
            }
        };
        crash::point("manifest.references-checked");
        let subject = manifest.subject.as_ref().map(|subject| subject.digest);
        if let Some(subject) = subject {
            self.write_referrer(repository, &subject, &digest, &manifest, content.len() as u64).await?;
        }
        crash::point("manifest.referrer-written");
        self.keep(&look, repository, &digest, content).await;
        let mut moved = Vec::new();
        for (tag, current) in &planned {
            let before = self.inner.env.tags.set(repository, tag, &digest, current.clone(), &conditions).await?;
            moved.extend((before != Some(digest)).then(|| (tag.clone(), before)));
        }
        self.protect(repository, &digest, &planned, &relied).await?;
        if !new || !planned.is_empty() {
            let tags: Vec<Tag> = planned.into_iter().map(|(tag, _)| tag).collect();
            self.look_again(repository, &digest, &tags).await?;
        }
        Ok(Accepted { digest, subject, moved })
    }

    /// Keeps what an immutable tag needs. A deletion that comes before the tag does not know of it,
    /// so the links are looked at once more after the tag is written. If the tag pointed to the
    /// manifest before, the first look came after the tag.
    async fn protect(
        &self,
        repository: &Repository,
        digest: &Digest,
        tags: &[(Tag, Current)],
        relied: &[Relied],
    ) -> Result<(), UploadError> {
        let all = &self.inner.env.tags;
        if tags.iter().any(|(tag, before)| all.is_immutable(tag) && before.digest.as_ref() != Some(digest)) {
            self.keep_links(repository, relied).await?;
        }
        Ok(())
    }

    /// Reads the tags that the manifest will get, and rejects the push if they do not allow it,
    /// before anything is written.
    async fn plan_tags(
        &self,
        repository: &Repository,
        tags: Vec<Tag>,
        digest: &Digest,
        conditions: &Conditions,
    ) -> Result<Vec<(Tag, Current)>, UploadError> {
        if tags.is_empty() && !conditions.is_empty() {
            let exists = self.inner.env.links.ask(repository, LinkKind::Revision, digest).await?;
            return if conditions.hold(exists.then_some(digest)) {
                Ok(Vec::new())
            } else {
                Err(TagError::Precondition.into())
            };
        }
        let read = tags.into_iter().map(|tag| async move {
            let current = self.inner.env.tags.current(repository, &tag).await?;
            self.inner.env.tags.check(&tag, digest, &current, conditions)?;
            Ok::<_, UploadError>((tag, current))
        });
        try_join_all(read).await
    }

    /// Writes the data, also if it exists. The bytes are the same, and so a repeated push repairs a
    /// manifest that is damaged in the bucket, at the same cost.
    async fn put_data(&self, digest: &Digest, content: Bytes) -> Result<(), UploadError> {
        let began = self.inner.env.recent_puts.begin();
        let key = self.inner.env.layout.data(digest);
        let size = content.len() as u64;
        self.inner.env.bucket.put(&key, PutBody::Bytes(content), PutMode::Overwrite).await?;
        self.inner.env.recent_puts.put(digest, began, size);
        Ok(())
    }

    /// Removes the link of a rejected manifest, which this push has written. The link is removed
    /// first and the references are checked afterwards, because another push of the same manifest
    /// may have relied on the link. References that were not looked up do not count: a link too many
    /// is repaired by the next push, but a link that an acknowledged push relies on must not go.
    async fn withdraw(&self, repository: &Repository, digest: &Digest, unmet: &Unmet) {
        let withdrawn = async {
            self.inner.env.links.remove(repository, LinkKind::Revision, digest).await?;
            if self.are_met(repository, unmet.all()).await? {
                self.inner.env.links.write(repository, LinkKind::Revision, digest).await?;
            }
            Ok::<_, UploadError>(())
        };
        if let Err(error) = withdrawn.await {
            tracing::warn!(%repository, %digest, %error, "cannot remove the link of a rejected manifest; it remains in the bucket");
        }
    }

    /// The last check: the link must still exist. If it does not, a deletion came in between.
    async fn look_again(&self, repository: &Repository, digest: &Digest, tags: &[Tag]) -> Result<(), UploadError> {
        let (links, all_tags) = (&self.inner.env.links, &self.inner.env.tags);
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
        let entry = serde_json::to_vec(&referrer).map_err(entrepot_oci::ManifestError::Json)?;
        let key = self.inner.env.layout.referrer(repository, subject, digest);
        self.inner.env.bucket.put(&key, PutBody::Bytes(entry.into()), PutMode::Overwrite).await?;
        Ok(self.inner.env.fallback.add(repository, subject, &referrer).await?)
    }

    /// Keeps the manifest in the store, so the next pull from this node asks the bucket only for
    /// the tag. The manifest is already durable, so a full disk is no reason to reject the push.
    async fn keep(&self, look: &Look, repository: &Repository, digest: &Digest, content: Bytes) {
        match self.inner.env.store.contents.insert_small(digest, content).await {
            Ok(()) => self.inner.env.store.links.remember(look, repository, LinkKind::Revision, digest),
            Err(error) => {
                tracing::warn!(%repository, %digest, %error,
                    "manifest was pushed to the bucket but could not be cached on this node")
            }
        }
    }
}

/// The manifest's digest, in the algorithm that the client names. If the client names a digest, the
/// content must match it.
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
