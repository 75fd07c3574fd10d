//! S3 and compatible services.
//!
//! Each method sends one request, except for rare second ones, which are documented where they are
//! sent. Nothing is retried here: the `retry` decorator does that, so one budget limits all tries.
//! No body is held in memory as a whole or copied.

mod body;
mod checksums;
mod client;
mod credentials;
mod delete;
mod errors;
mod list;
mod multipart;
mod proxy;
mod read;
mod web_identity;
mod write;

use super::{
    Bucket, BucketError, BucketErrorKind, Capabilities, Delete, ETag, Get, GetOptions, ListOptions, MultipartId,
    Object, ObjectMeta, Operation, Page, PartTag, Put, PutBody, PutMode, resolve_range,
};
use crate::Key;
use async_trait::async_trait;
use aws_sdk_s3::Client;
use checksums::Checksums;
pub use client::ConnectError;
use errors::{Failed, Unanswered};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::OnceCell;

/// Objects up to this size, in bytes, are sent in one request. Each part needs a request, and the
/// upload two more, which pays only if several parallel parts are faster than one stream. S3 itself
/// rejects parts below 5 MiB.
const PART_THRESHOLD: u64 = 16 << 20;

/// A completion may join the parts by copying them, as gateways on a file system do, which takes
/// minutes for the largest objects. It gets this many times the timeout of other requests.
const COMPLETE_PATIENCE: u32 = 10;

const CONTENT_TYPE: &str = "application/octet-stream";

/// A bucket of S3 or of a compatible service. Clones share connections, credentials, and what they
/// learned about the service.
#[derive(Clone)]
pub struct S3 {
    name: String,
    /// The prefix of all keys.
    prefix: String,
    settings: Arc<client::Settings>,
    client: Arc<OnceCell<Client>>,
    /// The client of [`S3::background`]. It is derived from `client`.
    background: Option<Arc<OnceCell<Client>>>,
    /// How long a request may make no progress.
    patience: Duration,
    /// Whether the service supports conditional writes. True until the service rejects one as
    /// unsupported.
    conditional: Arc<AtomicBool>,
    /// Whether the service honors `If-Match` on deletes; set by the first test.
    conditional_delete: Arc<OnceCell<bool>>,
    checksums: Arc<Checksums>,
}

impl S3 {
    /// A client for the bucket in `s3`. Sends no request, so a node starts even if its bucket is
    /// unreachable.
    ///
    /// # Errors
    /// If a file in the settings cannot be read, or has invalid content.
    pub fn connect(bucket: &entrepot_config::Bucket, s3: &entrepot_config::S3) -> Result<S3, ConnectError> {
        Ok(S3 {
            name: s3.name.clone(),
            prefix: bucket.prefix.clone(),
            settings: Arc::new(client::Settings::new(bucket, s3)?),
            client: Arc::default(),
            background: None,
            patience: bucket.request_timeout.get(),
            conditional: Arc::new(AtomicBool::new(true)),
            conditional_delete: Arc::default(),
            checksums: Arc::new(Checksums::new(s3.checksums)),
        })
    }

    /// The same bucket over connections of its own. hyper drives a connection on the runtime that
    /// opened it, so all requests of this handle must come from one runtime, and those of the
    /// others from another.
    #[must_use]
    pub fn background(&self) -> S3 {
        S3 { background: Some(Arc::default()), ..self.clone() }
    }

    async fn client(&self) -> &Client {
        let client = self.client.get_or_init(|| self.settings.client()).await;
        match &self.background {
            Some(background) => background.get_or_init(|| async { self.settings.background(client) }).await,
            None => client,
        }
    }

    #[cfg(any(test, feature = "test-support"))]
    #[allow(clippy::unwrap_used, reason = "only tests create buckets")]
    pub(crate) async fn create(&self) {
        self.client().await.create_bucket().bucket(&self.name).send().await.unwrap();
    }

    /// Waits for the response to a request without a large body.
    async fn answer<T, E: Unanswered>(
        &self,
        operation: Operation,
        key: &str,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failed> {
        let patience = match operation {
            Operation::MultipartComplete => self.patience.saturating_mul(COMPLETE_PATIENCE),
            _ => self.patience,
        };
        match tokio::time::timeout(patience, request).await {
            Ok(answer) => answer.map_err(|error| error.failed(operation, key)),
            Err(_) => Err(Failed::timeout(operation, key)),
        }
    }
}

/// The entity tag without its HTTP syntax: quotes, and the weak mark of a proxy that changed the
/// encoding of the body.
fn etag_of(etag: Option<String>) -> ETag {
    let etag = etag.unwrap_or_default();
    ETag(etag.strip_prefix("W/").unwrap_or(&etag).trim_matches('"').to_owned())
}

/// The entity tag with its HTTP quotes.
fn quoted(etag: &ETag) -> String {
    format!("\"{}\"", etag.0)
}

/// The SDK uses signed sizes. No size comes near the limit.
fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn unsigned(size: Option<i64>) -> u64 {
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default()
}

#[async_trait]
impl Bucket for S3 {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            conditional_put: self.conditional.load(Ordering::Relaxed),
            conditional_delete: self.conditional_delete.get() == Some(&true),
            cheap_reads: false,
            part_threshold: PART_THRESHOLD,
            parallel_ranges: true,
            adopts_files: false,
        }
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, BucketError> {
        self.head_object(key).await
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Get, BucketError> {
        self.get_object(key, options).await
    }

    async fn put(&self, key: &Key, body: PutBody, mode: PutMode) -> Result<Put, BucketError> {
        self.put_object(key, &body, &mode).await
    }

    async fn delete(&self, key: &Key) -> Result<(), BucketError> {
        self.delete_object(key).await
    }

    async fn delete_if_match(&self, key: &Key, version: &ETag) -> Result<Delete, BucketError> {
        self.delete_version(key, version).await
    }

    async fn list(&self, options: ListOptions) -> Result<Page, BucketError> {
        self.list_objects(options).await
    }

    async fn multipart_begin(&self, key: &Key) -> Result<MultipartId, BucketError> {
        self.begin_upload(key).await
    }

    async fn multipart_part(
        &self,
        key: &Key,
        upload: &MultipartId,
        number: u32,
        body: PutBody,
    ) -> Result<PartTag, BucketError> {
        self.send_part(key, upload, number, &body).await
    }

    async fn multipart_complete(
        &self,
        key: &Key,
        upload: &MultipartId,
        parts: Vec<PartTag>,
        mode: PutMode,
    ) -> Result<Put, BucketError> {
        self.complete_upload(key, upload, parts, &mode).await
    }

    async fn multipart_unfinished(&self, key: &Key) -> Result<Vec<MultipartId>, BucketError> {
        self.unfinished_uploads(key).await
    }

    async fn multipart_abort(&self, key: &Key, upload: &MultipartId) -> Result<(), BucketError> {
        self.abort_upload(key, upload).await
    }
}

#[cfg(test)]
mod tests;
