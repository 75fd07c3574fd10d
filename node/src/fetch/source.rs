//! Where the bytes of content come from. The bucket is the only source today; other nodes and
//! upstream registries can become further ones, without a change to what reads, verifies and stores.

use super::failure::Failure;
use async_trait::async_trait;
use entrepot_bucket::{Bucket, BucketError, BucketErrorKind, Get, GetOptions, Key, Object, ObjectMeta, Operation};
use std::ops::Range;
use std::sync::Arc;

/// One object that holds the content of a digest. A source says nothing about who may see the
/// content: [`super::miss::visible`] decides that.
#[async_trait]
pub(super) trait Source: Send + Sync {
    /// The object's metadata.
    async fn head(&self) -> Result<ObjectMeta, Failure>;

    /// Requests the object, or a range of it, in one request. `background`: the body is read on
    /// the background runtime.
    async fn open(&self, range: Option<Range<u64>>, background: bool) -> Result<Object, Failure>;

    /// An error of this kind that names the object.
    fn error(&self, kind: BucketErrorKind) -> BucketError;
}

/// An object of the bucket.
pub(super) struct BucketSource {
    pub(super) bucket: Arc<dyn Bucket>,
    pub(super) key: Key,
}

#[async_trait]
impl Source for BucketSource {
    async fn head(&self) -> Result<ObjectMeta, Failure> {
        self.bucket.head(&self.key).await?.ok_or(Failure::Missing)
    }

    async fn open(&self, range: Option<Range<u64>>, background: bool) -> Result<Object, Failure> {
        let options = GetOptions { range, bulk: background, ..GetOptions::default() };
        match self.bucket.get(&self.key, options).await? {
            Get::Found(object) => Ok(object),
            Get::NotModified | Get::Missing => Err(Failure::Missing),
        }
    }

    fn error(&self, kind: BucketErrorKind) -> BucketError {
        BucketError::new(Operation::Get, self.key.as_str(), kind)
    }
}
