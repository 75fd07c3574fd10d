//! Why a fetch failed, in a form that every reader of one fill can be given.

use super::FetchError;
use crate::oci::Digest;
use crate::store::bucket::{BucketError, BucketErrorKind, ObjectMeta, Operation};
use std::io;
use std::sync::Arc;

/// Why content does not arrive. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The bucket has no such object.
    Missing,
    /// The bytes are not those of the digest. The version that was read, if it was one and the same.
    Mismatch(Option<ObjectMeta>),
    Bucket(Arc<BucketError>),
    /// The disk of this node failed: the bucket can still be read without it.
    Local(Arc<io::Error>),
}

impl Failure {
    /// The task that did the work ended without a result: it panicked, or the node stops.
    pub(super) fn abandoned(digest: &Digest) -> Failure {
        let error = BucketError::new(Operation::Get, digest.to_string(), BucketErrorKind::Connection);
        error.because("the fill was given up").into()
    }

    /// What the caller of the flow is told.
    pub(super) fn into_error(self, digest: &Digest) -> FetchError {
        match self {
            Failure::Missing => FetchError::ContentMissing(*digest),
            Failure::Mismatch(_) => FetchError::Mismatch(*digest),
            Failure::Bucket(error) => FetchError::Bucket(copy(&error)),
            Failure::Local(error) => {
                let error = io::Error::new(error.kind(), error.to_string());
                FetchError::Store(crate::store::disk::StoreError::Io {
                    action: "fill",
                    path: digest.to_string().into(),
                    source: error,
                })
            }
        }
    }

    /// How a stream of bytes ends.
    pub(super) fn into_io(self, digest: &Digest) -> io::Error {
        io::Error::other(self.into_error(digest))
    }
}

impl From<BucketError> for Failure {
    fn from(error: BucketError) -> Failure {
        Failure::Bucket(Arc::new(error))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Local(Arc::new(error))
    }
}

/// The same error once more, for another reader; of its source the words are kept.
fn copy(error: &BucketError) -> BucketError {
    let copy = BucketError::new(error.operation, error.key.clone(), error.kind);
    match &error.source {
        Some(source) => copy.because(source.to_string()),
        None => copy,
    }
}
