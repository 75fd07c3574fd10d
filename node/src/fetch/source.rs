//! Where the bytes of content come from. The bucket is the only source today; other nodes and
//! upstream registries can become further ones, without a change to what reads, verifies and stores.

use super::failure::Failure;
use async_trait::async_trait;
use entrepot_bucket::{
    BodyReader, Bucket, BucketError, BucketErrorKind, Get, GetOptions, Key, Object, ObjectMeta, Operation,
};
use std::ops::Range;
use std::sync::Arc;

/// One object that holds the content of a digest. A source says nothing about who may see the
/// content: [`super::miss::visible`] decides that.
#[async_trait]
pub(super) trait Source: Send + Sync {
    /// The object's metadata.
    async fn head(&self) -> Result<ObjectMeta, Failure>;

    /// Requests the object, or a range of it, in one request.
    async fn open(&self, range: Option<Range<u64>>) -> Result<Object, Failure>;

    /// The same object, for requests from the background runtime.
    fn in_background(&self) -> Arc<dyn Source>;

    /// An error of this kind that names the object.
    fn error(&self, kind: BucketErrorKind) -> BucketError;
}

/// An object of the bucket.
pub(super) struct BucketSource {
    pub(super) bucket: Arc<dyn Bucket>,
    /// The bucket for the background runtime.
    pub(super) background: Arc<dyn Bucket>,
    pub(super) key: Key,
    /// Who reads what `bucket` sends. Fills are read at once, other bodies by clients.
    pub(super) reader: BodyReader,
}

#[async_trait]
impl Source for BucketSource {
    async fn head(&self) -> Result<ObjectMeta, Failure> {
        self.bucket.head(&self.key).await?.ok_or(Failure::Missing)
    }

    async fn open(&self, range: Option<Range<u64>>) -> Result<Object, Failure> {
        let options = GetOptions { range, reader: self.reader, ..GetOptions::default() };
        match self.bucket.get(&self.key, options).await? {
            Get::Found(object) => Ok(object),
            Get::NotModified | Get::Missing => Err(Failure::Missing),
        }
    }

    fn in_background(&self) -> Arc<dyn Source> {
        let bucket = self.background.clone();
        let (key, reader) = (self.key.clone(), BodyReader::Node);
        Arc::new(BucketSource { background: bucket.clone(), bucket, key, reader })
    }

    fn error(&self, kind: BucketErrorKind) -> BucketError {
        BucketError::new(Operation::Get, self.key.as_str(), kind)
    }
}
