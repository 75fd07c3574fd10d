//! Multipart uploads.
//!
//! If checksums are on, an upload is started with CRC-32C: each part carries its own, S3 rejects a
//! part that does not match, and the completion lists the checksums of all parts.

use super::body::Outgoing;
use super::checksums::Declared;
use super::errors::Failed;
use super::write::Condition;
use super::{
    BucketError, BucketErrorKind, CONTENT_TYPE, MultipartId, Operation, PartTag, Put, PutBody, PutMode, S3, signed,
};
use crate::Key;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use futures::{FutureExt, TryFutureExt};

/// The prefix of the checksum in the tag of a part. A space and the part's ETag follow the
/// checksum.
const CHECKSUM_MARK: &str = "crc32c:";

impl S3 {
    pub(super) async fn begin_upload(&self, key: &Key) -> Result<MultipartId, BucketError> {
        let operation = Operation::MultipartBegin;
        let client = self.client().await;
        let begin = |declared: Option<()>| {
            let request = client
                .create_multipart_upload()
                .bucket(&self.name)
                .key(key.as_str())
                .content_type(CONTENT_TYPE)
                .set_checksum_algorithm(declared.map(|()| ChecksumAlgorithm::Crc32C));
            self.answer(operation, key.as_str(), request.send()).boxed()
        };
        let declared = self.checksums.are_on().then_some(());
        let begun = self.checksums.send(&self.name, declared, begin).await.map_err(|failed| failed.error)?;
        let nameless = || {
            BucketError::new(operation, key.as_str(), BucketErrorKind::Server).because("the response has no upload ID")
        };
        begun.upload_id.map(MultipartId).ok_or_else(nameless)
    }

    pub(super) async fn send_part(
        &self,
        key: &Key,
        upload: &MultipartId,
        number: u32,
        body: &PutBody,
    ) -> Result<PartTag, BucketError> {
        let send = async {
            let declared = self.checksums.of_part(key, body).await?;
            let send = |declared| self.part_once(key, upload, number, body, declared).boxed();
            self.checksums.send(&self.name, declared, send).await
        };
        send.await.map_err(|failed: Failed| failed.error)
    }

    async fn part_once(
        &self,
        key: &Key,
        upload: &MultipartId,
        number: u32,
        body: &PutBody,
        declared: Option<Declared>,
    ) -> Result<PartTag, Failed> {
        let operation = Operation::MultipartPart;
        let outgoing = Outgoing::open(operation, key, body).await?;
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
            .set_checksum_crc32_c(declared.as_ref().and_then(Declared::crc32c))
            .body(content);
        let request = async {
            if sending.is_streamed() {
                request.customize().disable_payload_signing().send().await
            } else {
                request.send().await
            }
        };
        let sent = sending.watch(self.patience, operation, key, request).await?;
        let etag = sent.e_tag.unwrap_or_default();
        // A service without support for checksums returns none, and the completion then lists none.
        Ok(PartTag(match sent.checksum_crc32_c {
            Some(checksum) => format!("{CHECKSUM_MARK}{checksum} {etag}"),
            None => etag,
        }))
    }

    pub(super) async fn complete_upload(
        &self,
        key: &Key,
        upload: &MultipartId,
        parts: Vec<PartTag>,
        mode: &PutMode,
    ) -> Result<Put, BucketError> {
        let parts: Vec<_> = (1..).zip(&parts).map(|(number, tag)| completed(number, tag)).collect();
        let request = self
            .client()
            .await
            .complete_multipart_upload()
            .bucket(&self.name)
            .key(key.as_str())
            .upload_id(&upload.0)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build());
        let complete = |condition: Option<Condition>| {
            let request = request
                .clone()
                .set_if_none_match(condition.as_ref().and_then(Condition::if_none_match))
                .set_if_match(condition.as_ref().and_then(Condition::if_match));
            let done = self.answer(Operation::MultipartComplete, key.as_str(), request.send());
            done.map_ok(|done| done.e_tag).boxed()
        };
        self.conditionally(key, mode, complete).await
    }

    pub(super) async fn unfinished_uploads(&self, key: &Key) -> Result<Vec<MultipartId>, BucketError> {
        let client = self.client().await;
        let mut found = Vec::new();
        let (mut after_key, mut after_id) = (None, None);
        loop {
            // MinIO lists only the uploads of an exact key. Nothing else is needed here.
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

    pub(super) async fn abort_upload(&self, key: &Key, upload: &MultipartId) -> Result<(), BucketError> {
        let client = self.client().await;
        let request = client.abort_multipart_upload().bucket(&self.name).key(key.as_str()).upload_id(&upload.0);
        match self.answer(Operation::MultipartAbort, key.as_str(), request.send()).await {
            Ok(_) => Ok(()),
            Err(failed) if failed.is_missing() => Ok(()),
            Err(failed) => Err(failed.error),
        }
    }
}

fn completed(number: i32, PartTag(tag): &PartTag) -> CompletedPart {
    let with_checksum = tag.strip_prefix(CHECKSUM_MARK).and_then(|rest| rest.split_once(' '));
    let (checksum, etag) = with_checksum.map_or((None, tag.as_str()), |(checksum, etag)| (Some(checksum), etag));
    CompletedPart::builder().part_number(number).e_tag(etag).set_checksum_crc32_c(checksum.map(str::to_owned)).build()
}
