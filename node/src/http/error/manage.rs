//! Errors of deletions.

use super::refusal::{ContentKind, Refusal, code};
use super::{store, tag};
use crate::manage::ManageError;
use axum::http::StatusCode;

pub fn refusal(error: &ManageError, kind: ContentKind) -> Refusal {
    match error {
        ManageError::NotFound => kind.not_found(),
        // 409, not 403: after a 403 a client tries other credentials, and none would help.
        ManageError::Protected(_) => Refusal::new((StatusCode::CONFLICT, code::DENIED), error),
        ManageError::Tag(error) => tag::refusal(error),
        ManageError::Bucket(error) => store::bucket(error),
    }
}
