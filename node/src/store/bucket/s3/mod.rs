//! S3 and what is compatible with it.
//!
//! Each method is one request, but for rare second ones that are named where they are made. Nothing is tried again
//! here: that is the `retry` decorator's, so that one budget bounds it all. No body is held whole in memory, and none
//! is copied on its way.

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
use crate::store::layout::Key;
use async_trait::async_trait;
use aws_sdk_s3::Client;
use checksums::Checksums;
pub use client::ConnectError;
use errors::{Failed, Unanswered};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::OnceCell;

/// Objects up to this size go in one request. A part costs a request of its own and two more for the whole, which pays
/// when several parts on their way at once are faster than one stream; S3 itself refuses parts below 5 MiB.
const PART_THRESHOLD: u64 = 16 << 20;

/// A completion may join the parts by copying them, as gateways over a file system do: minutes for what is allowed in
/// one object. It has this many times the patience of other requests.
const COMPLETE_PATIENCE: u32 = 10;

const CONTENT_TYPE: &str = "application/octet-stream";

/// A bucket of S3 or of a compatible service.
pub struct S3 {
    name: String,
    /// What all keys begin with.
    prefix: String,
    settings: client::Settings,
    client: OnceCell<Client>,
    /// For [`GetOptions::bulk`].
    bulk: OnceCell<Client>,
    /// How long a request may stand still.
    patience: Duration,
    /// Whether the service knows conditions on writes; it does until it says that it does not.
    conditional: AtomicBool,
    /// Whether the service honours `If-Match` on deletes, once it was asked.
    conditional_delete: OnceCell<bool>,
    checksums: Checksums,
}

impl S3 {
    /// A client of the bucket that `s3` names. No request is made, so that a node starts while its bucket is away.
    ///
    /// # Errors
    /// When a file that the settings name cannot be read, or has not what it should.
    pub fn connect(bucket: &entrepot_config::Bucket, s3: &entrepot_config::S3) -> Result<S3, ConnectError> {
        Ok(S3 {
            name: s3.name.clone(),
            prefix: bucket.prefix.clone(),
            settings: client::Settings::new(bucket, s3)?,
            client: OnceCell::new(),
            bulk: OnceCell::new(),
            patience: bucket.request_timeout.get(),
            conditional: AtomicBool::new(true),
            conditional_delete: OnceCell::new(),
            checksums: Checksums::new(s3.checksums),
        })
    }

    async fn client(&self) -> &Client {
        self.client.get_or_init(|| self.settings.client()).await
    }

    #[cfg(test)]
    pub(super) async fn create(&self) {
        self.client().await.create_bucket().bucket(&self.name).send().await.unwrap();
    }

    async fn bulk_client(&self) -> &Client {
        self.bulk.get_or_init(|| async { self.settings.bulk(self.client().await) }).await
    }

    /// Waits for the answer of a request without a large body.
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

/// Without what HTTP puts around it: quotes, and the mark of a proxy that changed the body's encoding.
fn etag_of(etag: Option<String>) -> ETag {
    let etag = etag.unwrap_or_default();
    ETag(etag.strip_prefix("W/").unwrap_or(&etag).trim_matches('"').to_owned())
}

/// With the quotes that HTTP puts around it.
fn quoted(etag: &ETag) -> String {
    format!("\"{}\"", etag.0)
}

/// Sizes are signed in the SDK, and none is near the difference.
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
