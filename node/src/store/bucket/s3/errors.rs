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
    /// The code of S3's error document; empty where there is none.
    code: String,
    /// A 404 that S3 itself stated: it came with an error document or, to a head, with a request id.
    stated: bool,
    pub(super) error: BucketError,
}

impl Failed {
    pub(super) fn new(operation: Operation, key: &str, kind: BucketErrorKind) -> Failed {
        let error = BucketError::new(operation, key, kind);
        Failed { status: None, code: String::new(), stated: false, error }
    }

    pub(super) fn timeout(operation: Operation, key: &str) -> Failed {
        Failed::new(operation, key, BucketErrorKind::Timeout)
    }

    pub(super) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Failed {
        self.error = self.error.because(source);
        self
    }

    /// Whether what was asked for is not there, while the bucket is, and the bucket itself says so.
    pub(super) fn is_missing(&self) -> bool {
        self.stated && self.error.kind != BucketErrorKind::NoBucket
    }

    /// The same of an object, where a multipart upload may be missing instead.
    pub(super) fn is_missing_object(&self) -> bool {
        self.is_missing() && self.code != "NoSuchUpload"
    }

    /// A 404 that another server may have written.
    pub(super) fn is_doubtful(&self) -> bool {
        self.status == Some(404) && !self.stated
    }

    /// Whether the service does not know what was asked of it.
    pub(super) fn is_unknown(&self) -> bool {
        self.status == Some(501) || self.code == "NotImplemented"
    }

    /// What the service said.
    pub(super) fn told(&self) -> String {
        self.error.source.as_deref().map(ToString::to_string).unwrap_or_default()
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
        let stated = self.raw_response().is_some_and(|response| states_absence(operation, response, code));
        let kind = match self {
            // Of a proxy, as a rule: the next request may reach the bucket again.
            SdkError::ServiceError(_) if status == Some(404) && !stated => BucketErrorKind::Server,
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
        let mut told = Told::told(self, status, code);
        if status == Some(404) && !stated {
            told = format!("{NOT_OF_S3} ({told})");
        }
        let error = BucketError::new(operation, key, kind).because(told);
        Failed { status, code: code.unwrap_or_default().to_owned(), stated, error }
    }
}

/// Why a 404 is not absence.
const NOT_OF_S3: &str = "the 404 has no error document of S3: a proxy or load balancer before the bucket may have \
                         written it; check bucket.s3.endpoint";

/// The header with which S3 services name an answer; seen from Amazon S3, MinIO and versitygw.
const REQUEST_ID: &str = "x-amz-request-id";

/// Whether a 404 is S3's own: its body is an error document, or, where there is no body because a head was asked, it
/// has a request id.
fn states_absence(operation: Operation, response: &HttpResponse, code: Option<&str>) -> bool {
    if response.status().as_u16() != 404 {
        return false;
    }
    let body = response.body().bytes().unwrap_or_default();
    if operation == Operation::Head {
        return response.headers().contains_key(REQUEST_ID);
    }
    // The SDK makes up a code where the body is empty.
    code.is_some_and(|code| !code.is_empty()) && body.windows(ERROR_ELEMENT.len()).any(|window| window == ERROR_ELEMENT)
}

/// How the document element of S3's errors begins.
const ERROR_ELEMENT: &[u8] = b"<Error";

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
    failed.filter(BucketError::is_transient).map_or(BucketErrorKind::NoCredentials, |error| error.kind)
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
        (_, "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException") | (301, _) => {
            BucketErrorKind::WrongRegion
        }
        (_, "InternalError") => BucketErrorKind::Server,
        // Another request for the key was under way; S3 asks to try again.
        (_, "ConditionalRequestConflict" | "OperationAborted") => BucketErrorKind::Server,
        // versitygw says so when a delete removes the folder of a key while a put makes it. No key of ours is a folder,
        // so it passes.
        (_, "ExistingObjectIsDirectory") => BucketErrorKind::Server,
        // What was sent is not what its checksum or its signed hash says. MinIO's name for it comes last.
        (_, "BadDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch") => BucketErrorKind::WrongContent,
        (_, "QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded") => BucketErrorKind::Full,
        (401 | 403, _) => BucketErrorKind::Denied,
        (429 | 503, _) => BucketErrorKind::SlowDown,
        (507, _) => BucketErrorKind::Full,
        (408, _) => BucketErrorKind::Timeout,
        // Without a code it is the short form of a conflict of two requests, or of a proxy.
        (409, "") => BucketErrorKind::Server,
        // The service does not know what was asked, and will not later.
        (501, _) => BucketErrorKind::Refused,
        // Below 300 it is an answer that cannot be read, as a proxy's page in the place of XML.
        (..=300 | 500.., _) => BucketErrorKind::Server,
        _ => BucketErrorKind::Refused,
    }
}
