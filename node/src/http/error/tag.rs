//! Errors of writing or deleting a tag.

use super::refusal::{ContentKind, Refusal, UNAVAILABLE, code, retry_after};
use super::store;
use crate::repository::tags::TagError;
use axum::http::StatusCode;

pub fn refusal(error: &TagError) -> Refusal {
    match error {
        TagError::NotFound => Refusal::new(ContentKind::Manifest.absent(), error),
        TagError::Immutable(_) => Refusal::new((StatusCode::CONFLICT, code::DENIED), error),
        TagError::Precondition => Refusal::new((StatusCode::PRECONDITION_FAILED, code::DENIED), error),
        TagError::OutcomeUnknown => store::bucket_failed(error),
        TagError::TooMany => Refusal::new(UNAVAILABLE, error).retry_after(retry_after::REQUESTS),
        TagError::Bucket(error) => store::bucket(error),
    }
}
