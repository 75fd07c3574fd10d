//! Writing whole objects, with and without conditions.

use super::body::Outgoing;
use super::checksums::Declared;
use super::errors::Failed;
use super::{
    BucketError, BucketErrorKind, CONTENT_TYPE, ETag, Operation, Put, PutBody, PutMode, S3, etag_of, quoted, signed,
};
use crate::Key;
use futures::FutureExt;
use std::sync::atomic::Ordering;

/// The condition of a write.
#[derive(Clone)]
pub(super) enum Condition {
    Absent,
    /// An entity tag with its quotes.
    Version(String),
}

impl Condition {
    fn of(mode: &PutMode) -> Option<Condition> {
        match mode {
            PutMode::Overwrite => None,
            PutMode::IfAbsent | PutMode::IfMatch(None) => Some(Condition::Absent),
            PutMode::IfMatch(Some(version)) => Some(Condition::Version(quoted(version))),
        }
    }

    pub(super) fn if_none_match(&self) -> Option<String> {
        matches!(self, Condition::Absent).then(|| "*".to_owned())
    }

    pub(super) fn if_match(&self) -> Option<String> {
        if let Condition::Version(etag) = self { Some(etag.clone()) } else { None }
    }
}

impl S3 {
    pub(super) async fn put_object(&self, key: &Key, body: &PutBody, mode: &PutMode) -> Result<Put, BucketError> {
        self.conditionally(key, mode, |condition| self.put_once(key, body, condition).boxed()).await
    }

    /// Sends a write with the condition of its mode. A service that does not support conditions
    /// reports it once in the life of a node. From then on `IfAbsent` overwrites, and `IfMatch`
    /// reads the version first, which loses a write of another node that comes in between.
    pub(super) async fn conditionally<F>(
        &self,
        key: &Key,
        mode: &PutMode,
        send: impl Fn(Option<Condition>) -> F,
    ) -> Result<Put, BucketError>
    where
        F: Future<Output = Result<Option<String>, Failed>>,
    {
        let condition = Condition::of(mode);
        if condition.is_some() && self.conditional.load(Ordering::Relaxed) {
            let answer = send(condition).await;
            match answer {
                Err(failed) if failed.is_unknown() => self.forget_conditions(),
                answer => return conditional_answer(answer, mode),
            }
        }
        if let PutMode::IfMatch(version) = mode
            && self.head_object(key).await?.map(|meta| meta.etag) != *version
        {
            return Ok(Put::Changed);
        }
        let answer = send(None).await;
        answer.map(|etag| Put::Done(etag_of(etag))).map_err(|failed| failed.error)
    }

    fn forget_conditions(&self) {
        if self.conditional.swap(false, Ordering::Relaxed) {
            tracing::warn!(
                bucket = self.name,
                "the S3 service does not support conditional writes (If-None-Match, If-Match); an existing object may \
                 be written again with the same content, and concurrent changes of one tag may overwrite each other"
            );
        }
    }

    /// Sends one request, and a second one if the service rejects the checksum.
    pub(super) async fn put_once(
        &self,
        key: &Key,
        body: &PutBody,
        condition: Option<Condition>,
    ) -> Result<Option<String>, Failed> {
        let declared = self.checksums.of_object(key, body).await?;
        // Boxed, because the compiler cannot check the SDK's futures through all the layers around
        // them.
        let send = |declared| self.put_declared(key, body, condition.as_ref(), declared).boxed();
        self.checksums.send(&self.name, declared, send).await
    }

    async fn put_declared(
        &self,
        key: &Key,
        body: &PutBody,
        condition: Option<&Condition>,
        declared: Option<Declared>,
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
            .set_checksum_sha256(declared.as_ref().and_then(Declared::sha256))
            .set_checksum_crc32_c(declared.as_ref().and_then(Declared::crc32c))
            .body(content);
        let request = async {
            if sending.is_streamed() {
                request.customize().disable_payload_signing().send().await
            } else {
                request.send().await
            }
        };
        let put = sending.watch(self.patience, operation, key, request).await?;
        match put.e_tag {
            Some(etag) => Ok(Some(etag)),
            // Every S3 service returns the version that it stored. A response without one does not
            // prove that anything was stored.
            None => Err(Failed::new(operation, key.as_str(), BucketErrorKind::Server)
                .because("the response has no ETag; a proxy between the node and the bucket may have sent it")),
        }
    }
}

/// The result of a write with the condition of its mode.
fn conditional_answer(answer: Result<Option<String>, Failed>, mode: &PutMode) -> Result<Put, BucketError> {
    let refused = if *mode == PutMode::IfAbsent { Put::Exists } else { Put::Changed };
    match answer {
        Ok(etag) => Ok(Put::Done(etag_of(etag))),
        Err(failed) if failed.status == Some(412) => Ok(refused),
        // With If-Match, a missing object is a failed condition; a missing multipart upload is not.
        Err(failed) if matches!(mode, PutMode::IfMatch(Some(ETag(_)))) && failed.is_missing_object() => Ok(refused),
        // 409 means that another write of the key was in progress and this one may have failed:
        // `Server`, which is retried.
        Err(failed) => Err(failed.error),
    }
}
