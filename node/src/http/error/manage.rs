//! Errors of deletions.

use super::refusal::{ContentKind, Refusal, UNAVAILABLE, code, retry_after};
use super::{store, tag};
use crate::manage::ManageError;
use axum::http::StatusCode;

pub fn refusal(error: &ManageError, kind: ContentKind) -> Refusal {
    match error {
        ManageError::NotFound => kind.not_found(),
        // 409, not 403: after a 403 a client tries other credentials, and none would help.
        ManageError::Protected(_) | ManageError::Unchecked(_) => {
            Refusal::new((StatusCode::CONFLICT, code::DENIED), error)
        }
        ManageError::Stopping => Refusal::new(UNAVAILABLE, error).retry_after(retry_after::REQUESTS),
        ManageError::Tag(error) => tag::refusal(error),
        ManageError::Bucket(error) => store::bucket(error),
    }
}
