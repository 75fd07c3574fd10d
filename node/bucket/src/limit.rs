//! Limits what one node sends to the bucket at a time: the number of requests, and the bytes of
//! puts and parts in flight.

mod turns;

use super::{
    BodyReader, Bucket, BucketError, BucketErrorKind, Capabilities, Delete, ETag, Get, GetOptions, ListOptions,
    MultipartId, ObjectMeta, Operation, Page, PartTag, Put, PutBody, PutMode,
};
use crate::Key;
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use turns::{Turn, Turns};

/// Bytes are counted in units of this size. A semaphore acquires at most `u32::MAX` permits at
/// once, so units of 64 KiB allow limits up to 256 TiB.
const UNIT: u64 = 64 << 10;

/// A bucket with a limited number of concurrent requests. The others wait in order of arrival.
///
/// A request first waits for its bytes and then for its turn. A request that has its turn never
/// waits for bytes, so requests cannot deadlock. The body of a get keeps its turn until it ends or
/// is dropped; its reader must not wait for another request to the same bucket meanwhile. A body that
/// a client may read at its own pace ([`super::BodyReader::Client`]) can lose its turn (`turns`).
pub struct Limited {
    inner: Arc<dyn Bucket>,
    turns: Turns,
    bytes: Arc<Semaphore>,
    all_bytes: u32,
}

impl Limited {
    /// At most `requests` at a time, and at most `bytes` of puts and parts. A single larger body is
    /// sent alone.
    pub fn new(inner: Arc<dyn Bucket>, requests: u32, bytes: u64) -> Limited {
        let all_bytes = units(bytes);
        Limited {
            inner,
            turns: Turns::new(requests.max(1) as usize),
            bytes: Arc::new(Semaphore::new(all_bytes as usize)),
            all_bytes,
        }
    }

    /// Another handle of the same bucket, within the same limits.
    pub fn sharing(&self, inner: Arc<dyn Bucket>) -> Limited {
        Limited { inner, turns: self.turns.clone(), bytes: self.bytes.clone(), all_bytes: self.all_bytes }
    }

    async fn turn(&self, operation: Operation, key: &str) -> Result<Turn, BucketError> {
        self.turns.take(BodyReader::Node).await.map_err(|closed| refused(operation, key, closed))
    }

    async fn room(&self, operation: Operation, key: &Key, size: u64) -> Result<OwnedSemaphorePermit, BucketError> {
        let units = units(size).min(self.all_bytes);
        self.bytes.clone().acquire_many_owned(units).await.map_err(|closed| refused(operation, key.as_str(), closed))
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).max(1)
}

/// The semaphores are never closed. If they were, no request could be sent any more.
fn refused(operation: Operation, key: &str, closed: tokio::sync::AcquireError) -> BucketError {
    BucketError::new(operation, key, BucketErrorKind::Refused).because(closed)
}

#[async_trait]
impl Bucket for Limited {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, BucketError> {
        let _turn = self.turn(Operation::Head, key.as_str()).await?;
        self.inner.head(key).await
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Get, BucketError> {
        let turn = self.turns.take(options.reader).await;
        let turn = turn.map_err(|closed| refused(Operation::Get, key.as_str(), closed))?;
        let answer = self.inner.get(key, options).await?;
        let Get::Found(mut object) = answer else { return Ok(answer) };
        object.body = self.turns.held_by(key, object.body, turn);
        Ok(Get::Found(object))
    }

    async fn put(&self, key: &Key, body: PutBody, mode: PutMode) -> Result<Put, BucketError> {
        let _room = self.room(Operation::Put, key, body.len()).await?;
        let _turn = self.turn(Operation::Put, key.as_str()).await?;
        self.inner.put(key, body, mode).await
    }

    async fn delete(&self, key: &Key) -> Result<(), BucketError> {
        let _turn = self.turn(Operation::Delete, key.as_str()).await?;
        self.inner.delete(key).await
    }

    async fn delete_if_match(&self, key: &Key, version: &ETag) -> Result<Delete, BucketError> {
        let _turn = self.turn(Operation::Delete, key.as_str()).await?;
        self.inner.delete_if_match(key, version).await
    }

    async fn list(&self, options: ListOptions) -> Result<Page, BucketError> {
        let _turn = self.turn(Operation::List, &options.prefix).await?;
        self.inner.list(options).await
    }

    async fn multipart_begin(&self, key: &Key) -> Result<MultipartId, BucketError> {
        let _turn = self.turn(Operation::MultipartBegin, key.as_str()).await?;
        self.inner.multipart_begin(key).await
    }

    async fn multipart_part(
        &self,
        key: &Key,
        upload: &MultipartId,
        number: u32,
        body: PutBody,
    ) -> Result<PartTag, BucketError> {
        let _room = self.room(Operation::MultipartPart, key, body.len()).await?;
        let _turn = self.turn(Operation::MultipartPart, key.as_str()).await?;
        self.inner.multipart_part(key, upload, number, body).await
    }

    async fn multipart_complete(
        &self,
        key: &Key,
        upload: &MultipartId,
        parts: Vec<PartTag>,
        mode: PutMode,
    ) -> Result<Put, BucketError> {
        let _turn = self.turn(Operation::MultipartComplete, key.as_str()).await?;
        self.inner.multipart_complete(key, upload, parts, mode).await
    }

    async fn multipart_unfinished(&self, key: &Key) -> Result<Vec<MultipartId>, BucketError> {
        let _turn = self.turn(Operation::MultipartUnfinished, key.as_str()).await?;
        self.inner.multipart_unfinished(key).await
    }

    async fn multipart_abort(&self, key: &Key, upload: &MultipartId) -> Result<(), BucketError> {
        let _turn = self.turn(Operation::MultipartAbort, key.as_str()).await?;
        self.inner.multipart_abort(key, upload).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::{Effect, Fault, Faults, Faulty};
    use super::super::{Memory, collect_small};
    use super::*;
    use futures::{FutureExt, StreamExt};

    fn key(name: &str) -> Key {
        Key::new(name)
    }

    fn bytes(size: usize) -> PutBody {
        PutBody::Bytes(vec![7; size].into())
    }

    async fn one_object() -> Arc<Memory> {
        let memory = Arc::new(Memory::default());
        memory.put(&key("a"), bytes(10), PutMode::Overwrite).await.unwrap();
        memory
    }

    async fn get(bucket: &Limited) -> super::super::Object {
        match bucket.get(&key("a"), GetOptions::default()).await.unwrap() {
            Get::Found(object) => object,
            Get::NotModified | Get::Missing => panic!("the object exists"),
        }
    }

    #[tokio::test]
    async fn a_body_keeps_its_turn_until_it_is_dropped() {
        let bucket = Limited::new(one_object().await, 1, 1 << 20);
        let object = get(&bucket).await;
        assert!(bucket.head(&key("a")).now_or_never().is_none());
        drop(object);
        assert!(bucket.head(&key("a")).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_body_releases_its_turn_when_it_ends_or_fails() {
        let faults = Faults::default();
        let bucket = Limited::new(Arc::new(Faulty::new(one_object().await, &faults)), 1, 1 << 20);
        let mut body = get(&bucket).await.body;
        while body.next().await.is_some() {}
        assert!(bucket.head(&key("a")).now_or_never().is_some());
        faults.add(Fault::new(Operation::Get, Effect::Reset { after: 5 }));
        let mut body = get(&bucket).await.body;
        while !matches!(body.next().await, Some(Err(_))) {}
        assert!(bucket.head(&key("a")).now_or_never().is_some());
    }

    #[tokio::test]
    async fn handles_of_one_bucket_share_its_limits() {
        let bucket = Limited::new(one_object().await, 1, 1 << 20);
        let other = bucket.sharing(one_object().await);
        let object = get(&other).await;
        assert!(bucket.head(&key("a")).now_or_never().is_none());
        drop(object);
        assert!(bucket.head(&key("a")).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_body_larger_than_the_limit_is_sent_alone_and_does_not_wait_forever() {
        let faults = Faults::default();
        let bucket = Limited::new(Arc::new(Faulty::new(Arc::new(Memory::default()), &faults)), 8, 1 << 20);
        faults.add(Fault::new(Operation::Put, Effect::Hang).on_key("large"));
        let (large, small) = (key("large"), key("small"));
        let mut first = bucket.put(&large, bytes(2 << 20), PutMode::Overwrite);
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = bucket.put(&small, bytes(1), PutMode::Overwrite);
        assert!(second.as_mut().now_or_never().is_none());
        // Reads do not wait for bytes.
        assert!(bucket.head(&small).now_or_never().is_some());
        faults.clear();
        first.await.unwrap();
        second.await.unwrap();
    }

    #[tokio::test]
    async fn a_request_that_waits_for_bytes_takes_no_turn() {
        let faults = Faults::default();
        let bucket = Limited::new(Arc::new(Faulty::new(one_object().await, &faults)), 2, 1 << 20);
        faults.add(Fault::new(Operation::Put, Effect::Hang));
        let (first, second) = (key("1"), key("2"));
        let mut first = bucket.put(&first, bytes(1 << 20), PutMode::Overwrite);
        let mut second = bucket.put(&second, bytes(1 << 20), PutMode::Overwrite);
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        let object = get(&bucket).now_or_never().expect("one turn is free");
        collect_small(&key("a"), object, 10).await.unwrap();
    }
}
