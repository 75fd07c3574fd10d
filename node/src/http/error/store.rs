//! Errors of the bucket and of this node's disk.

use super::refusal::{Refusal, UNAVAILABLE, retry_after};
use crate::store::StoreError;
use entrepot_bucket::BucketError;

/// The message states only the kind of the error, because its text contains the key.
pub fn bucket(error: &BucketError) -> Refusal {
    bucket_failed(format!("object storage error: {}", error.kind))
}

/// The bucket failed, or has not received the content yet.
pub fn bucket_failed(external: impl ToString) -> Refusal {
    Refusal::new(UNAVAILABLE, external).retry_after(retry_after::BUCKET)
}

/// A full or broken disk affects only this node: the next attempt may reach another one.
pub fn disk(error: &StoreError) -> Refusal {
    let external = if error.is_no_room() {
        "not enough free space in the store of this node; retry later"
    } else {
        "local disk error on this node; retry later"
    };
    Refusal::new(UNAVAILABLE, external).retry_after(retry_after::ROOM)
}
