//! S3 and what is compatible with it.
//!
//! Each method is one request, but for rare second ones that are named where they are made. Nothing is tried again
//! here: that is the `retry` decorator's, so that one budget bounds it all. No body is held whole in memory, and none
//! is copied on its way.

mod body;
mod client;
mod credentials;
mod errors;
mod web_identity;

use super::{
    Bucket, BucketError, BucketErrorKind, Capabilities, Delete, ETag, Get, GetOptions, ListOptions, MultipartId,
    Object, ObjectMeta, Operation, Page, PartTag, Put, PutBody, PutMode, resolve_range,
};
use crate::store::layout::Key;
use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use body::Outgoing;
pub use client::ConnectError;
use errors::{Failed, Unanswered};
use std::ops::Range;
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
    settings: client::Settings,
    client: OnceCell<Client>,
    /// For [`GetOptions::bulk`].
    bulk: OnceCell<Client>,
    /// How long a request may stand still.
    patience: Duration,
    /// Whether the service knows `If-None-Match` on writes; it does until it says that it does not.
    conditional: AtomicBool,
}

impl S3 {
    /// A client of the bucket that `s3` names. No request is made, so that a node starts while its bucket is away.
    ///
    /// # Errors
    /// When a file that the settings name cannot be read, or has not what it should.
    pub fn connect(bucket: &entrepot_config::Bucket, s3: &entrepot_config::S3) -> Result<S3, ConnectError> {
        Ok(S3 {
            name: s3.name.clone(),
            settings: client::Settings::new(bucket, s3)?,
            client: OnceCell::new(),
            bulk: OnceCell::new(),
            patience: bucket.request_timeout.get(),
            conditional: AtomicBool::new(true),
        })
    }

    async fn client(&self) -> &Client {
        self.client.get_or_init(|| self.settings.client()).await
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

    /// The condition of a write, where the service knows conditions.
    fn condition(&self, mode: &PutMode) -> Option<Condition> {
        let condition = match mode {
            PutMode::Overwrite => None,
            PutMode::IfAbsent | PutMode::IfMatch(None) => Some(Condition::Absent),
            PutMode::IfMatch(Some(version)) => Some(Condition::Version(quoted(version))),
        };
        condition.filter(|_| self.conditional.load(Ordering::Relaxed))
    }

    /// What a conditional write came to. `None`: the service does not know the condition, and is not asked again.
    fn written(
        &self,
        answer: Result<Option<String>, Failed>,
        mode: &PutMode,
        conditional: bool,
    ) -> Option<Result<Put, BucketError>> {
        let refused = if *mode == PutMode::IfAbsent { Put::Exists } else { Put::Changed };
        Some(match answer {
            Ok(etag) => Ok(Put::Done(etag_of(etag))),
            Err(failed) if conditional && failed.status == Some(412) => Ok(refused),
            // With If-Match: there is no such object.
            Err(failed) if conditional && failed.is_missing() => Ok(refused),
            Err(failed) if conditional && failed.status == Some(501) => {
                if self.conditional.swap(false, Ordering::Relaxed) {
                    tracing::warn!(
                        bucket = self.name,
                        "the service does not know If-None-Match on writes: objects are overwritten from now on"
                    );
                }
                return None;
            }
            // 409 says that another write of the key was under way and that it may fail: `Server`, to be tried again.
            Err(failed) => Err(failed.error),
        })
    }

    async fn put_once(
        &self,
        key: &Key,
        body: &PutBody,
        condition: Option<&Condition>,
    ) -> Result<Option<String>, Failed> {
        let operation = Operation::Put;
        let outgoing = Outgoing::open(operation, key, body).await?;
        let (content, sending) = outgoing.into_parts();
        let request = self
            .client()
            .await
            .put_object()
            .bucket(&self.name)
            .key(key.as_str())
            .content_type(CONTENT_TYPE)
            .content_length(signed(body.len()))
            .set_if_none_match(condition.and_then(Condition::if_none_match))
            .set_if_match(condition.and_then(Condition::if_match))
            .body(content);
        let request = async {
            if sending.is_streamed() {
                request.customize().disable_payload_signing().send().await
            } else {
                request.send().await
            }
        };
        let put = sending.watch(self.patience, operation, key, request).await?;
        Ok(put.e_tag)
    }

    async fn get_once(
        &self,
        key: &Key,
        range: Option<&Range<u64>>,
        known: Option<&ETag>,
        bulk: bool,
    ) -> Result<GetObjectOutput, Failed> {
        let client = if bulk { self.bulk_client().await } else { self.client().await };
        let request = client
            .get_object()
            .bucket(&self.name)
            .key(key.as_str())
            .set_range(range.map(|range| format!("bytes={}-{}", range.start, range.end.saturating_sub(1))))
            .set_if_none_match(known.filter(|etag| !etag.0.is_empty()).map(quoted));
        self.answer(Operation::Get, key.as_str(), request.send()).await
    }

    fn object(&self, key: &Key, asked: Option<Range<u64>>, answer: GetObjectOutput) -> Result<Object, BucketError> {
        let length = unsigned(answer.content_length);
        let answered = match answer.content_range.as_deref() {
            Some(text) => content_range(text),
            None => Some((0..length, length)),
        };
        let odd = |why: &str| {
            let why = format!("{why}: content-range {:?}, content-length {length}", answer.content_range);
            BucketError::new(Operation::Get, key.as_str(), BucketErrorKind::Server).because(why)
        };
        let Some((range, size)) = answered else { return Err(odd("the answer's range is not readable")) };
        if resolve_range(key, asked, size)? != range || range.end - range.start != length {
            return Err(odd("the answer is not the range that was asked for"));
        }
        let body = body::incoming(key, answer.body, length, self.patience);
        Ok(Object { meta: ObjectMeta { size, etag: etag_of(answer.e_tag) }, range, body })
    }
}

/// Without the quotes that HTTP puts around it.
fn etag_of(etag: Option<String>) -> ETag {
    ETag(etag.unwrap_or_default().trim_matches('"').to_owned())
}

/// With the quotes that HTTP puts around it.
fn quoted(etag: &ETag) -> String {
    format!("\"{}\"", etag.0)
}

/// The condition of a write.
enum Condition {
    Absent,
    /// An entity tag with its quotes.
    Version(String),
}

impl Condition {
    fn if_none_match(&self) -> Option<String> {
        matches!(self, Condition::Absent).then(|| "*".to_owned())
    }

    fn if_match(&self) -> Option<String> {
        if let Condition::Version(etag) = self { Some(etag.clone()) } else { None }
    }
}

/// Sizes are signed in the SDK, and none is near the difference.
fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn unsigned(size: Option<i64>) -> u64 {
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default()
}

/// `bytes 0-9/100`: the range, end exclusive, and the size of the whole (RFC 9110, section 14.4).
fn content_range(text: &str) -> Option<(Range<u64>, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, last) = range.split_once('-')?;
    let (start, last, size) = (start.parse().ok()?, last.parse::<u64>().ok()?, size.parse().ok()?);
    (start <= last && last < size).then_some((start..last + 1, size))
}

#[async_trait]
impl Bucket for S3 {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            conditional_put: self.conditional.load(Ordering::Relaxed),
            conditional_delete: self.conditional.load(Ordering::Relaxed),
            cheap_reads: false,
            part_threshold: PART_THRESHOLD,
            parallel_ranges: true,
            adopts_files: false,
        }
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, BucketError> {
        let request = self.client().await.head_object().bucket(&self.name).key(key.as_str());
        match self.answer(Operation::Head, key.as_str(), request.send()).await {
            Ok(found) => Ok(Some(ObjectMeta { size: unsigned(found.content_length), etag: etag_of(found.e_tag) })),
            Err(failed) if failed.is_missing() => Ok(None),
            Err(failed) => Err(failed.error),
        }
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Get, BucketError> {
        let GetOptions { range, if_none_match, bulk } = options;
        let mut answer = self.get_once(key, range.as_ref(), if_none_match.as_ref(), bulk).await;
        let begins = range.as_ref().is_some_and(|range| range.start == 0);
        if begins && answer.as_ref().is_err_and(|failed| failed.status == Some(416)) {
            // No byte lies in an empty object, and S3 refuses even the range that begins it: ask for all of it.
            answer = self.get_once(key, None, if_none_match.as_ref(), bulk).await;
        }
        match answer {
            Ok(found) => Ok(Get::Found(self.object(key, range, found)?)),
            Err(failed) if failed.status == Some(304) => Ok(Get::NotModified),
            Err(failed) if failed.is_missing() => Ok(Get::Missing),
            Err(failed) => Err(failed.error),
        }
    }

    async fn put(&self, key: &Key, body: PutBody, mode: PutMode) -> Result<Put, BucketError> {
        let condition = self.condition(&mode);
        let answer = self.put_once(key, &body, condition.as_ref()).await;
        if let Some(put) = self.written(answer, &mode, condition.is_some()) {
            return put;
        }
        // Once in the life of a node, at a service that does not know the condition.
        let answer = self.put_once(key, &body, None).await;
        answer.map(|etag| Put::Done(etag_of(etag))).map_err(|failed| failed.error)
    }

    async fn delete(&self, key: &Key) -> Result<(), BucketError> {
        let request = self.client().await.delete_object().bucket(&self.name).key(key.as_str());
        match self.answer(Operation::Delete, key.as_str(), request.send()).await {
            Ok(_) => Ok(()),
            Err(failed) if failed.is_missing() => Ok(()),
            Err(failed) => Err(failed.error),
        }
    }

    async fn delete_if_match(&self, key: &Key, version: &ETag) -> Result<Delete, BucketError> {
        let client = self.client().await;
        let request = client.delete_object().bucket(&self.name).key(key.as_str()).if_match(quoted(version));
        match self.answer(Operation::Delete, key.as_str(), request.send()).await {
            Ok(_) => Ok(Delete::Done),
            Err(failed) if failed.status == Some(412) || failed.is_missing() => Ok(Delete::Changed),
            Err(failed) => Err(failed.error),
        }
    }

    async fn list(&self, options: ListOptions) -> Result<Page, BucketError> {
        let max = options.max.clamp(1, 1000);
        let is_later = |entry: &str| options.after.as_deref().is_none_or(|after| entry > after);
        let (mut page, mut token) = (Page::default(), None::<String>);
        loop {
            let request = self
                .client()
                .await
                .list_objects_v2()
                .bucket(&self.name)
                .prefix(&options.prefix)
                .set_delimiter(options.delimiter.then(|| "/".to_owned()))
                .set_start_after(options.after.clone().filter(|_| token.is_none()))
                .set_continuation_token(token.take())
                .max_keys(i32::try_from(max).unwrap_or(1000));
            let request = self.answer(Operation::List, &options.prefix, request.send());
            let listed = request.await.map_err(|failed| failed.error)?;
            let keys = listed.contents.unwrap_or_default().into_iter().filter_map(|object| object.key);
            let prefixes = listed.common_prefixes.unwrap_or_default().into_iter().filter_map(|folder| folder.prefix);
            page.keys.extend(keys.filter(|key| is_later(key)).map(Key::new));
            // A key after `after` may lie in a folder that is not: S3 then names the folder.
            page.prefixes.extend(prefixes.filter(|prefix| is_later(prefix)));
            token = listed.next_continuation_token.filter(|_| listed.is_truncated == Some(true));
            // MinIO says that a full page is the last one when there was one key more and `after` is a key itself.
            let is_full = page.keys.len() + page.prefixes.len() >= max;
            let last = page.keys.last().map(Key::as_str).max(page.prefixes.last().map(String::as_str));
            match last {
                Some(last) if token.is_some() || is_full => page.next = Some(last.to_owned()),
                // Nothing of this page was later: one more request for the next one.
                None if token.is_some() => continue,
                _ => {}
            }
            return Ok(page);
        }
    }

    async fn multipart_begin(&self, key: &Key) -> Result<MultipartId, BucketError> {
        let operation = Operation::MultipartBegin;
        let client = self.client().await;
        let request = client.create_multipart_upload().bucket(&self.name).key(key.as_str()).content_type(CONTENT_TYPE);
        let begun = self.answer(operation, key.as_str(), request.send()).await.map_err(|failed| failed.error)?;
        let nameless = || BucketError::new(operation, key.as_str(), BucketErrorKind::Server).because("no upload id");
        begun.upload_id.map(MultipartId).ok_or_else(nameless)
    }

    async fn multipart_part(
        &self,
        key: &Key,
        upload: &MultipartId,
        number: u32,
        body: PutBody,
    ) -> Result<PartTag, BucketError> {
        let operation = Operation::MultipartPart;
        let outgoing = Outgoing::open(operation, key, &body).await.map_err(|failed| failed.error)?;
        let (content, sending) = outgoing.into_parts();
        let request = self
            .client()
            .await
            .upload_part()
            .bucket(&self.name)
            .key(key.as_str())
            .upload_id(&upload.0)
            .part_number(i32::try_from(number).unwrap_or(i32::MAX))
            .content_length(signed(body.len()))
            .body(content);
        let request = async {
            if sending.is_streamed() {
                request.customize().disable_payload_signing().send().await
            } else {
                request.send().await
            }
        };
        let sent = sending.watch(self.patience, operation, key, request).await.map_err(|failed| failed.error)?;
        Ok(PartTag(sent.e_tag.unwrap_or_default()))
    }

    async fn multipart_complete(
        &self,
        key: &Key,
        upload: &MultipartId,
        parts: Vec<PartTag>,
        mode: PutMode,
    ) -> Result<Put, BucketError> {
        let numbered = (1..)
            .zip(parts)
            .map(|(number, PartTag(etag))| CompletedPart::builder().part_number(number).e_tag(etag).build());
        let request = self
            .client()
            .await
            .complete_multipart_upload()
            .bucket(&self.name)
            .key(key.as_str())
            .upload_id(&upload.0)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(numbered.collect())).build());
        let condition = self.condition(&mode);
        let conditional = condition.is_some();
        let first = request.clone();
        let first = first.set_if_none_match(condition.as_ref().and_then(Condition::if_none_match));
        let first = first.set_if_match(condition.as_ref().and_then(Condition::if_match)).send();
        let answer = self.answer(Operation::MultipartComplete, key.as_str(), first).await;
        if let Some(put) = self.written(answer.map(|done| done.e_tag), &mode, conditional) {
            return put;
        }
        // Once in the life of a node, at a service that does not know the condition.
        let answer = self.answer(Operation::MultipartComplete, key.as_str(), request.send()).await;
        answer.map(|done| Put::Done(etag_of(done.e_tag))).map_err(|failed| failed.error)
    }

    async fn multipart_unfinished(&self, key: &Key) -> Result<Vec<MultipartId>, BucketError> {
        let client = self.client().await;
        let mut found = Vec::new();
        let (mut after_key, mut after_id) = (None, None);
        loop {
            // MinIO lists only those of a whole key, which is all that is wanted here.
            let request = client
                .list_multipart_uploads()
                .bucket(&self.name)
                .prefix(key.as_str())
                .set_key_marker(after_key.take())
                .set_upload_id_marker(after_id.take());
            let request = self.answer(Operation::MultipartUnfinished, key.as_str(), request.send());
            let listed = request.await.map_err(|failed| failed.error)?;
            let uploads = listed.uploads.unwrap_or_default().into_iter();
            let its = uploads.filter(|upload| upload.key.as_deref() == Some(key.as_str()));
            found.extend(its.filter_map(|upload| upload.upload_id).map(MultipartId));
            (after_key, after_id) = (listed.next_key_marker, listed.next_upload_id_marker);
            if listed.is_truncated != Some(true) || after_key.is_none() {
                return Ok(found);
            }
        }
    }

    async fn multipart_abort(&self, key: &Key, upload: &MultipartId) -> Result<(), BucketError> {
        let client = self.client().await;
        let request = client.abort_multipart_upload().bucket(&self.name).key(key.as_str()).upload_id(&upload.0);
        match self.answer(Operation::MultipartAbort, key.as_str(), request.send()).await {
            Ok(_) => Ok(()),
            Err(failed) if failed.is_missing() => Ok(()),
            Err(failed) => Err(failed.error),
        }
    }
}

#[cfg(test)]
mod tests;
