//! Counts requests, their duration and their bytes. This is the innermost decorator, so every try
//! is counted. Tests assert its exact numbers.

use super::BucketMetrics;
use super::{
    BodyStream, Bucket, BucketError, Capabilities, Delete, ETag, Get, GetOptions, ListOptions, MultipartId, ObjectMeta,
    Operation, Page, PartTag, Put, PutBody, PutMode,
};
use crate::Key;
use async_trait::async_trait;
use entrepot_runtime::clock::Stopwatch;
use futures::StreamExt;
use std::sync::Arc;

/// A bucket whose requests are counted in [`BucketMetrics`].
pub struct Counted {
    inner: Arc<dyn Bucket>,
    metrics: BucketMetrics,
}

/// One request. It is counted once, when it is answered or cancelled. A body that fails later is
/// not counted again.
struct Request<'a> {
    metrics: &'a BucketMetrics,
    operation: Operation,
    began: Stopwatch,
    result: &'static str,
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        let operation = self.operation.name();
        self.metrics.requests.with_label_values(&[operation, self.result]).inc();
        self.metrics.seconds.with_label_values(&[operation]).observe(self.began.elapsed().as_secs_f64());
    }
}

impl Counted {
    /// Counts the requests to `inner` in these metrics.
    pub fn new(inner: Arc<dyn Bucket>, metrics: BucketMetrics) -> Counted {
        Counted { inner, metrics }
    }

    async fn counted<T>(
        &self,
        operation: Operation,
        sent: u64,
        request: impl Future<Output = Result<T, BucketError>>,
    ) -> Result<T, BucketError> {
        // If the future is dropped, for example because a client disconnected, the result stays
        // "cancelled".
        let mut counter = Request { metrics: &self.metrics, operation, began: Stopwatch::start(), result: "cancelled" };
        let answer = request.await;
        match &answer {
            Ok(_) => {
                counter.result = "ok";
                self.metrics.sent_bytes.inc_by(sent);
            }
            Err(error) => counter.result = error.kind.name(),
        }
        answer
    }

    fn received(&self, body: BodyStream) -> BodyStream {
        let bytes = self.metrics.received_bytes.clone();
        body.inspect(move |piece| {
            if let Ok(piece) = piece {
                bytes.inc_by(piece.len() as u64);
            }
        })
        .boxed()
    }
}

#[async_trait]
impl Bucket for Counted {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, BucketError> {
        self.counted(Operation::Head, 0, self.inner.head(key)).await
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Get, BucketError> {
        let answer = self.counted(Operation::Get, 0, self.inner.get(key, options)).await?;
        let Get::Found(mut object) = answer else { return Ok(answer) };
        object.body = self.received(object.body);
        Ok(Get::Found(object))
    }

    async fn put(&self, key: &Key, body: PutBody, mode: PutMode) -> Result<Put, BucketError> {
        self.counted(Operation::Put, body.len(), self.inner.put(key, body, mode)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), BucketError> {
        self.counted(Operation::Delete, 0, self.inner.delete(key)).await
    }

    async fn delete_if_match(&self, key: &Key, version: &ETag) -> Result<Delete, BucketError> {
        self.counted(Operation::Delete, 0, self.inner.delete_if_match(key, version)).await
    }

    async fn list(&self, options: ListOptions) -> Result<Page, BucketError> {
        self.counted(Operation::List, 0, self.inner.list(options)).await
    }

    async fn multipart_begin(&self, key: &Key) -> Result<MultipartId, BucketError> {
        self.counted(Operation::MultipartBegin, 0, self.inner.multipart_begin(key)).await
    }

    async fn multipart_part(
        &self,
        key: &Key,
        upload: &MultipartId,
        number: u32,
        body: PutBody,
    ) -> Result<PartTag, BucketError> {
        let sent = body.len();
        self.counted(Operation::MultipartPart, sent, self.inner.multipart_part(key, upload, number, body)).await
    }

    async fn multipart_complete(
        &self,
        key: &Key,
        upload: &MultipartId,
        parts: Vec<PartTag>,
        mode: PutMode,
    ) -> Result<Put, BucketError> {
        let request = self.inner.multipart_complete(key, upload, parts, mode);
        self.counted(Operation::MultipartComplete, 0, request).await
    }

    async fn multipart_unfinished(&self, key: &Key) -> Result<Vec<MultipartId>, BucketError> {
        self.counted(Operation::MultipartUnfinished, 0, self.inner.multipart_unfinished(key)).await
    }

    async fn multipart_abort(&self, key: &Key, upload: &MultipartId) -> Result<(), BucketError> {
        self.counted(Operation::MultipartAbort, 0, self.inner.multipart_abort(key, upload)).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BucketErrorKind, Memory, collect_small, fault, get_small};
    use super::*;
    use bytes::Bytes;
    use futures::FutureExt;

    fn key() -> Key {
        Key::new("docker/a/data")
    }

    #[tokio::test]
    async fn every_request_counts_once_with_its_bytes() {
        let metrics = BucketMetrics::new().unwrap();
        let bucket = Counted::new(Arc::new(Memory::default()), metrics.clone());
        bucket.put(&key(), PutBody::Bytes(Bytes::from_static(b"content")), PutMode::IfAbsent).await.unwrap();
        bucket.put(&key(), PutBody::Bytes(Bytes::from_static(b"content")), PutMode::IfAbsent).await.unwrap();
        let options = GetOptions { range: Some(0..3), ..GetOptions::default() };
        let Get::Found(object) = bucket.get(&key(), options).await.unwrap() else { panic!("the object exists") };
        collect_small(&key(), object, 100).await.unwrap();
        let count = |operation, result| metrics.requests.with_label_values(&[operation, result]).get();
        assert_eq!((count("put", "ok"), count("get", "ok"), count("head", "ok")), (2, 1, 0));
        assert_eq!((metrics.sent_bytes.get(), metrics.received_bytes.get()), (14, 3));
        assert_eq!(metrics.seconds.with_label_values(&["put"]).get_sample_count(), 2);
    }

    #[tokio::test]
    async fn a_failure_counts_by_its_kind_and_a_dropped_request_as_cancelled() {
        let metrics = BucketMetrics::new().unwrap();
        let faults = fault::Faults::default();
        let bucket = Counted::new(Arc::new(fault::Faulty::new(Arc::new(Memory::default()), &faults)), metrics.clone());
        faults.add(fault::Fault::error(Operation::Get, BucketErrorKind::SlowDown).times(1));
        assert!(get_small(&bucket, &key(), 10).await.is_err());
        faults.add(fault::Fault::new(Operation::Get, fault::Effect::Hang).times(1));
        assert!(get_small(&bucket, &key(), 10).now_or_never().is_none());
        let count = |result| metrics.requests.with_label_values(&["get", result]).get();
        assert_eq!((count("slow_down"), count("cancelled"), count("ok")), (1, 1, 0));
    }
}
