//! Retries transient failures.

use super::{
    Bucket, BucketError, BucketErrorKind, Capabilities, Delete, ETag, Get, GetOptions, ListOptions, MultipartId,
    ObjectMeta, Page, PartTag, Put, PutBody, PutMode,
};
use crate::Key;
use async_trait::async_trait;
use entrepot_runtime::retry::within;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A bucket whose transient failures are retried within one time budget for each call.
///
/// - The body of a get is not resumed here. Its reader knows which bytes it still needs, and
///   requests that range.
/// - A put whose answer was lost may have taken effect. Repeated with `IfAbsent` it then returns
///   `Exists`, and cannot tell its own object from another's. Both have the same content, because
///   such keys contain its digest.
/// - The completion of a multipart upload may also have taken effect. The second try then finds no
///   upload; with `IfAbsent` it returns `Exists` if the object exists.
/// - An unconditional delete that timed out is not repeated. It may still be in transit and arrive
///   after its repetition was acknowledged, and would then remove a newer object. Every other
///   transient failure of a delete is retried.
/// - A put or delete with a version (`IfMatch`) is sent once, because a repetition cannot tell its
///   own effect from another's.
pub struct Retried {
    inner: Arc<dyn Bucket>,
    budget: Duration,
}

impl Retried {
    /// `budget` limits the total time of the tries and pauses of one call, except for the last try.
    pub fn new(inner: Arc<dyn Bucket>, budget: Duration) -> Retried {
        Retried { inner, budget }
    }

    async fn tried<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, BucketError>
    where
        F: Future<Output = Result<T, BucketError>>,
    {
        within(self.budget, BucketError::is_transient, || self.once(attempt())).await
    }

    /// Like [`Retried::tried`], but a request that timed out is not repeated, because it may still
    /// be in transit.
    async fn tried_unless_late<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, BucketError>
    where
        F: Future<Output = Result<T, BucketError>>,
    {
        let may_repeat = |error: &BucketError| error.is_transient() && error.kind != BucketErrorKind::Timeout;
        within(self.budget, may_repeat, || self.once(attempt())).await
    }

    /// Sends a request once, and logs its failure.
    async fn once<T>(&self, request: impl Future<Output = Result<T, BucketError>>) -> Result<T, BucketError> {
        request.await.inspect_err(|error| {
            let cause = error.source.as_deref().map_or(String::new(), chain);
            if error.is_transient() {
                tracing::warn!(%error, cause, "request to the bucket failed");
            } else {
                tracing::error!(%error, cause, "request to the bucket failed permanently");
            }
        })
    }
}

/// An error and its causes, on one line.
fn chain(error: &(dyn Error + Send + Sync + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[async_trait]
impl Bucket for Retried {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, BucketError> {
        self.tried(|| self.inner.head(key)).await
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Get, BucketError> {
        self.tried(|| self.inner.get(key, options.clone())).await
    }

    async fn put(&self, key: &Key, body: PutBody, mode: PutMode) -> Result<Put, BucketError> {
        if let PutMode::IfMatch(_) = mode {
            return self.once(self.inner.put(key, body, mode)).await;
        }
        self.tried(|| self.inner.put(key, body.clone(), mode.clone())).await
    }

    async fn delete(&self, key: &Key) -> Result<(), BucketError> {
        self.tried_unless_late(|| self.inner.delete(key)).await
    }

    async fn delete_if_match(&self, key: &Key, version: &ETag) -> Result<Delete, BucketError> {
        self.once(self.inner.delete_if_match(key, version)).await
    }

    async fn list(&self, options: ListOptions) -> Result<Page, BucketError> {
        self.tried(|| self.inner.list(options.clone())).await
    }

    async fn multipart_begin(&self, key: &Key) -> Result<MultipartId, BucketError> {
        // If the answer was lost, an upload without parts remains. The lifecycle rule of the bucket
        // removes it.
        self.tried(|| self.inner.multipart_begin(key)).await
    }

    async fn multipart_part(
        &self,
        key: &Key,
        upload: &MultipartId,
        number: u32,
        body: PutBody,
    ) -> Result<PartTag, BucketError> {
        self.tried(|| self.inner.multipart_part(key, upload, number, body.clone())).await
    }

    async fn multipart_complete(
        &self,
        key: &Key,
        upload: &MultipartId,
        parts: Vec<PartTag>,
        mode: PutMode,
    ) -> Result<Put, BucketError> {
        let answer_lost = AtomicBool::new(false);
        self.tried(|| async {
            let answer = self.inner.multipart_complete(key, upload, parts.clone(), mode.clone()).await;
            match answer {
                Err(error) if error.is_transient() => {
                    answer_lost.store(true, Ordering::Relaxed);
                    Err(error)
                }
                Err(error) if error.kind == BucketErrorKind::Refused && answer_lost.load(Ordering::Relaxed) => {
                    let is_there = mode == PutMode::IfAbsent && self.inner.head(key).await?.is_some();
                    if is_there { Ok(Put::Exists) } else { Err(error) }
                }
                other => other,
            }
        })
        .await
    }

    async fn multipart_unfinished(&self, key: &Key) -> Result<Vec<MultipartId>, BucketError> {
        self.tried(|| self.inner.multipart_unfinished(key)).await
    }

    async fn multipart_abort(&self, key: &Key, upload: &MultipartId) -> Result<(), BucketError> {
        self.tried(|| self.inner.multipart_abort(key, upload)).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::{Effect, Fault, Faults, Faulty};
    use super::super::{Memory, Operation, get_small};
    use super::*;
    use bytes::Bytes;

    fn bucket(budget: Duration) -> (Retried, Arc<Memory>, Faults) {
        let (memory, faults) = (Arc::new(Memory::default()), Faults::default());
        (Retried::new(Arc::new(Faulty::new(memory.clone(), &faults)), budget), memory, faults)
    }

    fn content() -> PutBody {
        PutBody::Bytes(Bytes::from_static(b"content"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_transient_failure_is_hidden() {
        let (bucket, _, faults) = bucket(Duration::from_secs(15));
        let key = Key::new("a");
        let fault = faults.add(Fault::error(Operation::Put, BucketErrorKind::SlowDown).times(3));
        bucket.put(&key, content(), PutMode::IfAbsent).await.unwrap();
        assert_eq!(faults.hits(fault), 3);
        assert_eq!(get_small(&bucket, &key, 10).await.unwrap().unwrap().0, "content");
    }

    #[tokio::test(start_paused = true)]
    async fn a_permanent_failure_is_not_retried() {
        let (bucket, _, faults) = bucket(Duration::from_secs(15));
        let fault = faults.add(Fault::error(Operation::Head, BucketErrorKind::Denied));
        assert_eq!(bucket.head(&Key::new("a")).await.unwrap_err().kind, BucketErrorKind::Denied);
        assert_eq!(faults.hits(fault), 1);
    }

    #[tokio::test]
    async fn without_budget_the_first_failure_is_returned() {
        let (bucket, _, faults) = bucket(Duration::ZERO);
        let fault = faults.add(Fault::error(Operation::Head, BucketErrorKind::Server));
        assert_eq!(bucket.head(&Key::new("a")).await.unwrap_err().kind, BucketErrorKind::Server);
        assert_eq!(faults.hits(fault), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delete_is_repeated_unless_it_timed_out() {
        use BucketErrorKind::{Connection, Server, SlowDown, Timeout};
        for (kind, hits) in [(Connection, 2), (Server, 2), (SlowDown, 2), (Timeout, 1)] {
            let (bucket, memory, faults) = bucket(Duration::from_secs(15));
            let key = Key::new("a");
            bucket.put(&key, content(), PutMode::Overwrite).await.unwrap();
            let fault = faults.add(Fault::error(Operation::Delete, kind).times(2));
            let deleted = bucket.delete(&key).await;
            assert_eq!((faults.hits(fault), deleted.is_ok()), (hits, kind != Timeout), "{kind:?}");
            assert_eq!(memory.content(&key).is_none(), kind != Timeout, "{kind:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_with_a_version_is_sent_once() {
        let (bucket, _, faults) = bucket(Duration::from_secs(15));
        let key = Key::new("a");
        let Put::Done(version) = bucket.put(&key, content(), PutMode::Overwrite).await.unwrap() else { panic!() };
        let puts = faults.add(Fault::error(Operation::Put, BucketErrorKind::Server));
        let deletes = faults.add(Fault::error(Operation::Delete, BucketErrorKind::Server));
        let put = bucket.put(&key, content(), PutMode::IfMatch(Some(version.clone()))).await;
        assert_eq!(put.unwrap_err().kind, BucketErrorKind::Server);
        assert_eq!(bucket.delete_if_match(&key, &version).await.unwrap_err().kind, BucketErrorKind::Server);
        assert_eq!((faults.hits(puts), faults.hits(deletes)), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_put_whose_answer_was_lost_finds_its_own_object() {
        let (bucket, memory, faults) = bucket(Duration::from_secs(15));
        let key = Key::new("a");
        faults.add(Fault::new(Operation::Put, Effect::LoseAnswer).times(1));
        assert_eq!(bucket.put(&key, content(), PutMode::IfAbsent).await.unwrap(), Put::Exists);
        assert_eq!(memory.content(&key).unwrap(), "content");
    }

    #[tokio::test(start_paused = true)]
    async fn a_completion_whose_answer_was_lost_finds_its_own_object() {
        let (bucket, memory, faults) = bucket(Duration::from_secs(15));
        let key = Key::new("a");
        let upload = bucket.multipart_begin(&key).await.unwrap();
        let part = bucket.multipart_part(&key, &upload, 1, content()).await.unwrap();
        faults.add(Fault::new(Operation::MultipartComplete, Effect::LoseAnswer).times(1));
        let put = bucket.multipart_complete(&key, &upload, vec![part], PutMode::IfAbsent).await.unwrap();
        assert_eq!(put, Put::Exists);
        assert_eq!(memory.content(&key).unwrap(), "content");
    }
}
