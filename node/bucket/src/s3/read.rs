//! Reading objects and their metadata.

use super::errors::Failed;
use super::{
    BucketError, BucketErrorKind, ETag, Get, GetOptions, Object, ObjectMeta, Operation, S3, body, etag_of, quoted,
    resolve_range, unsigned,
};
use crate::Key;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use std::ops::Range;

impl S3 {
    pub(super) async fn head_object(&self, key: &Key) -> Result<Option<ObjectMeta>, BucketError> {
        let request = self.client().await.head_object().bucket(&self.name).key(key.as_str());
        match self.answer(Operation::Head, key.as_str(), request.send()).await {
            Ok(found) => Ok(Some(ObjectMeta { size: unsigned(found.content_length), etag: etag_of(found.e_tag) })),
            Err(failed) if failed.is_missing() => Ok(None),
            Err(failed) if failed.is_doubtful() => self.head_by_get(key).await,
            Err(failed) => Err(failed.error),
        }
    }

    /// The response to a head has no body, so S3 cannot state there what is missing. If it has no
    /// other mark of S3 either, a second request gets one byte: its error has a body.
    async fn head_by_get(&self, key: &Key) -> Result<Option<ObjectMeta>, BucketError> {
        let options = GetOptions { range: Some(0..1), ..GetOptions::default() };
        match self.get_object(key, options).await? {
            Get::Found(object) => Ok(Some(object.meta)),
            Get::NotModified | Get::Missing => Ok(None),
        }
    }

    pub(super) async fn get_object(&self, key: &Key, options: GetOptions) -> Result<Get, BucketError> {
        let GetOptions { range, if_none_match, reader: _ } = options;
        let mut answer = self.get_once(key, range.as_ref(), if_none_match.as_ref()).await;
        let begins = range.as_ref().is_some_and(|range| range.start == 0);
        if begins && answer.as_ref().is_err_and(|failed| failed.status == Some(416)) {
            // An empty object has no byte, and S3 rejects even a range from its start. Get the
            // whole object instead.
            answer = self.get_once(key, None, if_none_match.as_ref()).await;
        }
        match answer {
            Ok(found) => Ok(Get::Found(self.object(key, range, found)?)),
            Err(failed) if failed.status == Some(304) => Ok(Get::NotModified),
            Err(failed) if failed.is_missing() => Ok(Get::Missing),
            Err(failed) => Err(failed.error),
        }
    }

    async fn get_once(
        &self,
        key: &Key,
        range: Option<&Range<u64>>,
        known: Option<&ETag>,
    ) -> Result<GetObjectOutput, Failed> {
        let client = self.client().await;
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
        let Some((range, size)) = answered else { return Err(odd("the range of the response is invalid")) };
        if resolve_range(key, asked, size)? != range || range.end - range.start != length {
            return Err(odd("the response is not the requested range"));
        }
        let body = body::incoming(key, answer.body, length, self.patience);
        Ok(Object { meta: ObjectMeta { size, etag: etag_of(answer.e_tag) }, range, body })
    }
}

/// `bytes 0-9/100`: the range, end exclusive, and the size of the whole object (RFC 9110, section
/// 14.4).
pub(super) fn content_range(text: &str) -> Option<(Range<u64>, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, last) = range.split_once('-')?;
    let (start, last, size) = (start.parse().ok()?, last.parse::<u64>().ok()?, size.parse().ok()?);
    (start <= last && last < size).then_some((start..last + 1, size))
}
