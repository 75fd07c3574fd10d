//! Why a fetch failed, in a form that can be given to every reader of a download.

use super::FetchError;
use entrepot_bucket::{BucketError, BucketErrorKind, ObjectMeta, Operation};
use entrepot_oci::Digest;
use std::io;
use std::sync::Arc;

/// Why content does not arrive. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The bucket has no such object.
    Missing,
    /// The bytes do not match the digest. Has the version that was read, if only one was read.
    Mismatch(Option<ObjectMeta>),
    Bucket(Arc<BucketError>),
    /// The disk of this node failed. The bucket can still be read without it.
    Local(Arc<io::Error>),
}

impl Failure {
    /// The task that did the work ended without a result: it panicked, or the node is shutting
    /// down.
    pub(super) fn abandoned(digest: &Digest) -> Failure {
        let error = BucketError::new(Operation::Get, digest.to_string(), BucketErrorKind::Connection);
        error
            .because("the download ended without a result; the node is shutting down, or an internal error occurred")
            .into()
    }

    /// The error for the caller of the flow.
    pub(super) fn into_error(self, digest: &Digest) -> FetchError {
        match self {
            Failure::Missing => FetchError::ContentMissing(*digest),
            Failure::Mismatch(_) => FetchError::Mismatch(*digest),
            Failure::Bucket(error) => FetchError::Bucket(copy(&error)),
            Failure::Local(error) => {
                let error = io::Error::new(error.kind(), error.to_string());
                FetchError::Store(crate::store::StoreError::Io {
                    action: "cache",
                    path: digest.to_string().into(),
                    source: error,
                })
            }
        }
    }

    /// The error that ends a stream of bytes.
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

/// A copy of the error for another reader. Of its source only the text is kept.
fn copy(error: &BucketError) -> BucketError {
    let copy = BucketError::new(error.operation, error.key.clone(), error.kind);
    match &error.source {
        Some(source) => copy.because(source.to_string()),
        None => copy,
    }
}
