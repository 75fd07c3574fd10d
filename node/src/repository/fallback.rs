//! The fallback index of the referrers of a subject, under the tag `<alg>-<hex>`
//! (distribution-spec, "Referrers Tag Schema"). It serves registries without the referrers API,
//! such as CNCF Distribution, that may use the bucket later. Maintained if `upload.referrersTag` is
//! set.
//!
//! The index is a manifest like any other. A change reads it, writes a new one, and moves the tag
//! on condition that it still points to the index that was read. If another change came first, it
//! starts again.

use super::layout::LinkKind;
use super::tags::{Condition, Conditions, TagError};
use super::{Layout, Links, Tags};
use crate::store::Store;
use bytes::Bytes;
use entrepot_bucket::{Bucket, BucketError, PutBody, PutMode, get_small};
use entrepot_oci::manifest::{INDEX_MEDIA_TYPE, Referrer, fallback_tag};
use entrepot_oci::{Algorithm, Digest, MAX_MANIFEST_BYTES, Repository, Tag};
use serde_json::{Value, json};
use std::sync::Arc;

/// Limit of attempts of one change. Each further attempt needs another change that came first.
const TRIES: usize = 20;

/// Maintains fallback tags. Clones share the state.
#[derive(Clone)]
pub struct Fallback {
    /// Where the indexes are.
    pub bucket: Arc<dyn Bucket>,
    /// The keys of the bucket.
    pub layout: Layout,
    /// Has the index, if this node read it before.
    pub store: Store,
    /// Links the index that is written.
    pub links: Links,
    /// Changes the fallback tag.
    pub tags: Tags,
    /// `upload.referrersTag`
    pub enabled: bool,
}

impl Fallback {
    /// Adds a referrer to the index of its subject.
    ///
    /// # Errors
    /// If the bucket fails, or if other changes came first too often.
    pub async fn add(&self, repository: &Repository, subject: &Digest, referrer: &Referrer) -> Result<(), TagError> {
        let Ok(entry) = serde_json::to_value(referrer) else { return Ok(()) };
        let digest = referrer.digest.to_string();
        self.change(repository, subject, |entries| {
            let is_there = entries.iter().any(|entry| names(entry, &digest));
            if !is_there {
                entries.push(entry.clone());
            }
            !is_there
        })
        .await
    }

    /// Removes a referrer from the index of its subject.
    ///
    /// # Errors
    /// As [`Fallback::add`].
    pub async fn remove(&self, repository: &Repository, subject: &Digest, referrer: &Digest) -> Result<(), TagError> {
        let referrer = referrer.to_string();
        self.change(repository, subject, |entries| {
            let before = entries.len();
            entries.retain(|entry| !names(entry, &referrer));
            entries.len() != before
        })
        .await
    }

    /// `change` returns whether it changed anything.
    async fn change(
        &self,
        repository: &Repository,
        subject: &Digest,
        change: impl Fn(&mut Vec<Value>) -> bool,
    ) -> Result<(), TagError> {
        let Some(tag) = Tag::parse(&fallback_tag(subject)).ok().filter(|_| self.enabled) else { return Ok(()) };
        for _ in 0..TRIES {
            let current = self.tags.current(repository, &tag).await?;
            let mut entries = match &current.digest {
                Some(index) => self.entries(index).await?,
                None => Vec::new(),
            };
            if !change(&mut entries) {
                return Ok(());
            }
            let digest = self.write(repository, entries).await?;
            let condition = current.digest.map_or(Condition::Absent, |digest| Condition::OneOf(vec![digest]));
            match self.tags.set(repository, &tag, &digest, current, &Conditions(vec![condition])).await {
                Err(TagError::Precondition) => {}
                done => return done.map(drop),
            }
        }
        Err(TagError::OutcomeUnknown)
    }

    /// The entries of an index. An unreadable index has none, and is replaced.
    async fn entries(&self, index: &Digest) -> Result<Vec<Value>, BucketError> {
        let content = match self.store.contents.read_small(index).await {
            Ok(Some(content)) => Some(content),
            _ => get_small(&*self.bucket, &self.layout.data(index), MAX_MANIFEST_BYTES).await?.map(|(bytes, _)| bytes),
        };
        let document = content.and_then(|content| serde_json::from_slice::<Value>(&content).ok());
        Ok(document.and_then(|document| document.get("manifests")?.as_array().cloned()).unwrap_or_default())
    }

    async fn write(&self, repository: &Repository, entries: Vec<Value>) -> Result<Digest, BucketError> {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE, "manifests": entries });
        let content = Bytes::from(index.to_string());
        let digest = Digest::of(Algorithm::Sha256, &content);
        self.bucket.put(&self.layout.data(&digest), PutBody::Bytes(content), PutMode::Overwrite).await?;
        self.links.write(repository, LinkKind::Revision, &digest).await?;
        Ok(digest)
    }
}

fn names(entry: &Value, digest: &str) -> bool {
    entry.get("digest").and_then(Value::as_str) == Some(digest)
}
