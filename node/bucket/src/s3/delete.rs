//! Removing objects.
//!
//! Some services ignore `If-Match` on a delete and remove the object unconditionally (MinIO).
//! Therefore, before the first conditional delete in its life, a node tests the service with an
//! object of its own.

use super::errors::Failed;
use super::{BucketError, BucketErrorKind, Delete, ETag, Operation, PutBody, S3, etag_of, quoted};
use crate::Key;
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

    /// Deletes in one step if the service compares versions. Otherwise it reads the version and
    /// then deletes, and so removes an object that another node writes in between.
    pub(super) async fn delete_version(&self, key: &Key, version: &ETag) -> Result<Delete, BucketError> {
        if self.compares_on_delete().await? {
            return match self.delete_once(key, Some(version)).await {
                Ok(()) => Ok(Delete::Done),
                Err(failed) if failed.status == Some(412) || failed.is_missing() => Ok(Delete::Changed),
                // 409: another write of the key is in progress. `Server`: the caller tries again.
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

    /// Whether the service honors `If-Match` on deletes. Tested once in the life of a node, when it
    /// is first needed.
    async fn compares_on_delete(&self) -> Result<bool, BucketError> {
        match self.conditional_delete.get_or_try_init(|| self.probe()).await {
            Ok(compares) => Ok(*compares),
            // Credentials that may not write here may still delete elsewhere. The result is not
            // remembered, because permissions change.
            Err(error) if error.kind == BucketErrorKind::Denied => {
                tracing::warn!(%error,
                    "cannot test whether the S3 service supports conditional deletes (If-Match); \
                     reading the version before this delete");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Creates an object, and deletes it first with a wrong version, then with the right one.
    ///
    /// A crash in between leaves one object of 8 bytes below `entrepot/probe/`.
    async fn probe(&self) -> Result<bool, BucketError> {
        let key = Key::new(format!("{}entrepot/probe/{}", self.prefix, Uuid::new_v4()));
        let body = PutBody::Bytes(Bytes::from_static(b"entrepot"));
        let put = self.put_once(&key, &body, None).await.map_err(|failed| failed.error)?;
        let (other, own) = (ETag(NO_VERSION.to_owned()), etag_of(put));
        let refuses_other = match self.delete_once(&key, Some(&other)).await {
            Err(failed) if failed.status == Some(412) => true,
            Err(failed) if failed.error.is_transient() => return Err(failed.error),
            // Removed in spite of the condition, or the service does not know the condition.
            _ => false,
        };
        let takes_own = refuses_other && self.delete_once(&key, Some(&own)).await.is_ok();
        if !takes_own {
            self.delete_object(&key).await?;
            tracing::warn!(
                bucket = self.name,
                "the S3 service does not support conditional deletes (If-Match); \
                 reading the version before each delete from now on"
            );
        }
        Ok(takes_own)
    }
}
