//! What S3's refusals and the SDK's failures mean to a caller.

use super::{BucketError, BucketErrorKind, Operation};
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use std::error::Error;

/// A request that did not succeed, before it is known whether that is an error: "not found" is an answer.
pub(super) struct Failed {
    /// The status of the answer, if there was one.
    pub(super) status: Option<u16>,
    pub(super) error: BucketError,
}

impl Failed {
    pub(super) fn new(operation: Operation, key: &str, kind: BucketErrorKind) -> Failed {
        Failed { status: None, error: BucketError::new(operation, key, kind) }
    }

    pub(super) fn timeout(operation: Operation, key: &str) -> Failed {
        Failed::new(operation, key, BucketErrorKind::Timeout)
    }

    pub(super) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Failed {
        self.error = self.error.because(source);
        self
    }

    /// Whether what was asked for is not there, while the bucket is.
    pub(super) fn is_missing(&self) -> bool {
        self.status == Some(404) && self.error.kind != BucketErrorKind::NoBucket
    }
}

/// An error of the SDK.
pub(super) trait Unanswered {
    fn failed(&self, operation: Operation, key: &str) -> Failed;
}

impl<E> Unanswered for SdkError<E, HttpResponse>
where
    E: Error + ProvideErrorMetadata + RequestId + 'static,
{
    fn failed(&self, operation: Operation, key: &str) -> Failed {
        let status = self.raw_response().map(|response| response.status().as_u16());
        let code = self.as_service_error().and_then(ProvideErrorMetadata::code);
        let kind = match self {
            SdkError::ServiceError(_) => refusal(status.unwrap_or_default(), code.unwrap_or_default()),
            SdkError::TimeoutError(_) => BucketErrorKind::Timeout,
            SdkError::DispatchFailure(failure) if failure.is_timeout() => BucketErrorKind::Timeout,
            SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) if lacks_credentials(self) => {
                without_credentials(self)
            }
            SdkError::DispatchFailure(_) => BucketErrorKind::Connection,
            SdkError::ConstructionFailure(_) => BucketErrorKind::Refused,
            _ => BucketErrorKind::Server,
        };
        let error = BucketError::new(operation, key, kind).because(self.told(status, code));
        Failed { status, error }
    }
}

/// What a log needs to find the cause: S3's own words and its request id, or the chain of local causes.
trait Told {
    fn told(&self, status: Option<u16>, code: Option<&str>) -> String;
}

impl<E> Told for SdkError<E, HttpResponse>
where
    E: Error + ProvideErrorMetadata + RequestId + 'static,
{
    fn told(&self, status: Option<u16>, code: Option<&str>) -> String {
        match self.as_service_error() {
            Some(service) => format!(
                "status {}, code {}: {} (request id {})",
                status.unwrap_or_default(),
                code.unwrap_or("none"),
                service.message().unwrap_or("no message"),
                service.request_id().unwrap_or("none")
            ),
            None => chain(self).map(ToString::to_string).collect::<Vec<_>>().join(": "),
        }
    }
}

/// An error and its causes, outermost first.
pub(super) fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// Whether the request was never sent for want of credentials.
fn lacks_credentials(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|error| error.is::<aws_credential_types::provider::error::CredentialsError>())
}

/// Who gives credentials may fail in passing, as the bucket may. What it refuses, it refuses again.
fn without_credentials(error: &(dyn Error + 'static)) -> BucketErrorKind {
    let mut asked = chain(error).filter_map(|error| error.downcast_ref::<SdkError<AssumeRoleWithWebIdentityError>>());
    let failed = asked.next().map(|error| error.failed(Operation::Get, "").error);
    failed.filter(BucketError::is_transient).map_or(BucketErrorKind::Denied, |error| error.kind)
}

/// What a status and a code of S3 mean ("Amazon S3 error responses"). Codes come first: a completion that fails late
/// says so below the status 200.
fn refusal(status: u16, code: &str) -> BucketErrorKind {
    match (status, code) {
        (_, "NoSuchBucket") => BucketErrorKind::NoBucket,
        (_, "SlowDown" | "ServiceUnavailable" | "ThrottlingException" | "TooManyRequests") => BucketErrorKind::SlowDown,
        // S3 waited for the body; this node or the network was slow.
        (_, "RequestTimeout") => BucketErrorKind::Timeout,
        (_, "IncompleteBody") => BucketErrorKind::Truncated,
        (_, "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") => BucketErrorKind::Denied,
        (_, "InternalError") => BucketErrorKind::Server,
        // Another request for the key was under way; S3 asks to try again.
        (_, "ConditionalRequestConflict" | "OperationAborted") => BucketErrorKind::Server,
        // versitygw says so when a delete removes the folder of a key while a put makes it. No key of ours is a folder,
        // so it passes.
        (_, "ExistingObjectIsDirectory") => BucketErrorKind::Server,
        (_, "QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded") => BucketErrorKind::Full,
        (401 | 403, _) => BucketErrorKind::Denied,
        (429 | 503, _) => BucketErrorKind::SlowDown,
        (507, _) => BucketErrorKind::Full,
        (408, _) => BucketErrorKind::Timeout,
        // The service does not know what was asked, and will not later.
        (501, _) => BucketErrorKind::Refused,
        // Below 300 it is an answer that cannot be read, as a proxy's page in the place of XML.
        (..300 | 500.., _) => BucketErrorKind::Server,
        _ => BucketErrorKind::Refused,
    }
}
