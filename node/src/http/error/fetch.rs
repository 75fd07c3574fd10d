//! Errors of serving content.

use super::refusal::{ContentKind, Refusal, code};
use super::store;
use crate::fetch::FetchError;
use axum::http::StatusCode;

pub fn refusal(error: &FetchError, kind: ContentKind) -> Refusal {
    match error {
        FetchError::NotFound => kind.not_found(),
        // Content that the bucket lost is reported as unknown, because the client then pushes it
        // again and so repairs it.
        FetchError::ContentMissing(_) => Refusal::new(kind.absent(), error),
        FetchError::Mismatch(_) => Refusal::new((StatusCode::BAD_GATEWAY, code::UNKNOWN), error),
        FetchError::Pending(_) => store::bucket_failed(error),
        FetchError::Bucket(error) => store::bucket(error),
        FetchError::Store(error) => store::disk(error),
    }
}
