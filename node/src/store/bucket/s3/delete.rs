//! Removing objects.
//!
//! Services there are that ignore `If-Match` on a delete and remove whatever is there (MinIO), so the first delete of a
//! version in the life of a node asks the service, by an object of the node's own.

use super::errors::Failed;
use super::{BucketError, BucketErrorKind, Delete, ETag, Operation, PutBody, S3, etag_of, quoted};
use crate::store::layout::Key;
use bytes::Bytes;
use uuid::Uuid;

/// An entity tag that no object has.
const NO_VERSION: &str = "entrepot-no-version";

impl S3 {
    pub(super) async fn delete_object(&self, key: &Key) -> Result<(), BucketError> {
        match self.delete_once(key, None).await {
            Ok(()) => Ok(()),
            Err(failed) if failed.is_missing() => Ok(()),
            Err(failed) => Err(failed.error),
        }
    }

    /// In one step where the service compares versions. Where it does not, a look and then a delete: what another node
    /// writes between the two is removed.
    pub(super) async fn delete_version(&self, key: &Key, version: &ETag) -> Result<Delete, BucketError> {
        if self.compares_on_delete().await? {
            return match self.delete_once(key, Some(version)).await {
                Ok(()) => Ok(Delete::Done),
                Err(failed) if failed.status == Some(412) || failed.is_missing() => Ok(Delete::Changed),
                // 409: another write of the key is under way. `Server`: the caller looks again.
                Err(failed) => Err(failed.error),
            };
        }
        if self.head_object(key).await?.map(|meta| meta.etag).as_ref() != Some(version) {
            return Ok(Delete::Changed);
        }
        self.delete_object(key).await.map(|()| Delete::Done)
    }

    async fn delete_once(&self, key: &Key, version: Option<&ETag>) -> Result<(), Failed> {
        let request = self.client().await.delete_object().bucket(&self.name).key(key.as_str());
        let request = request.set_if_match(version.map(quoted));
        self.answer(Operation::Delete, key.as_str(), request.send()).await.map(|_| ())
    }

    /// Whether the service honours `If-Match` on deletes: asked once in the life of a node, when it is first needed.
    async fn compares_on_delete(&self) -> Result<bool, BucketError> {
        match self.conditional_delete.get_or_try_init(|| self.probe()).await {
            Ok(compares) => Ok(*compares),
            // Who may not write there may still delete elsewhere. Nothing is remembered: rights change.
            Err(error) if error.kind == BucketErrorKind::Denied => {
                tracing::warn!(%error, "cannot find out whether the service compares versions on deletes");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes an object of its own, first by a version that it does not have, then by its own.
    ///
    /// After a crash in between, one object of 8 bytes stays below `entrepot/probe/`.
    async fn probe(&self) -> Result<bool, BucketError> {
        let key = Key::new(format!("{}entrepot/probe/{}", self.prefix, Uuid::new_v4()));
        let body = PutBody::Bytes(Bytes::from_static(b"entrepot"));
        let put = self.put_once(&key, &body, None).await.map_err(|failed| failed.error)?;
        let (other, own) = (ETag(NO_VERSION.to_owned()), etag_of(put));
        let refuses_other = match self.delete_once(&key, Some(&other)).await {
            Err(failed) if failed.status == Some(412) => true,
            Err(failed) if failed.error.is_transient() => return Err(failed.error),
            // Removed all the same, or the condition is not known.
            _ => false,
        };
        let takes_own = refuses_other && self.delete_once(&key, Some(&own)).await.is_ok();
        if !takes_own {
            self.delete_object(&key).await?;
            tracing::warn!(
                bucket = self.name,
                "the service does not compare versions on deletes: a look comes before each from now on"
            );
        }
        Ok(takes_own)
    }
}
