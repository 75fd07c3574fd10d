//! The meaning of S3's error responses and of SDK errors.

use super::{BucketError, BucketErrorKind, Operation};
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::RequestId;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use std::error::Error;

/// A failed request, before it is known whether that is an error: for some requests "not found" is
/// a result.
pub(super) struct Failed {
    /// The status of the response, if there was one.
    pub(super) status: Option<u16>,
    /// The code in S3's error document; empty without one.
    code: String,
    /// Whether S3 itself sent the 404. See [`states_absence`].
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

    /// Whether the requested item does not exist although the bucket does, and S3 itself says so.
    pub(super) fn is_missing(&self) -> bool {
        self.stated && self.error.kind != BucketErrorKind::NoBucket
    }

    /// The same for an object, when the missing item may also be a multipart upload.
    pub(super) fn is_missing_object(&self) -> bool {
        self.is_missing() && self.code != "NoSuchUpload"
    }

    /// Whether this is a 404 that another server may have written.
    pub(super) fn is_doubtful(&self) -> bool {
        self.status == Some(404) && !self.stated
    }

    /// Whether the service does not support the request.
    pub(super) fn is_unknown(&self) -> bool {
        self.status == Some(501) || self.code == "NotImplemented"
    }

    /// The service's own message.
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
            // Usually the 404 of a proxy. The next request may reach the bucket again.
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

/// Why a 404 does not mean that the object is missing.
const NOT_OF_S3: &str = "the 404 response has no S3 error document; a proxy or load balancer in front of the bucket \
                         may have sent it: check bucket.s3.endpoint";

/// The header in which S3 services identify a response; seen from Amazon S3, MinIO and versitygw.
const REQUEST_ID: &str = "x-amz-request-id";

/// Whether S3 itself sent this 404. Then its body is an error document. The response to a head has no
/// body, so a request ID identifies it.
fn states_absence(operation: Operation, response: &HttpResponse, code: Option<&str>) -> bool {
    if response.status().as_u16() != 404 {
        return false;
    }
    let body = response.body().bytes().unwrap_or_default();
    if operation == Operation::Head {
        return response.headers().contains_key(REQUEST_ID);
    }
    // If the body is empty, the SDK invents a code.
    code.is_some_and(|code| !code.is_empty()) && body.windows(ERROR_ELEMENT.len()).any(|window| window == ERROR_ELEMENT)
}

/// The start of S3's error documents.
const ERROR_ELEMENT: &[u8] = b"<Error";

/// The text that a log needs to find the cause: S3's own message and request ID, or the chain of
/// local causes.
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

/// Whether the request was never sent because of missing credentials.
fn lacks_credentials(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|error| error.is::<aws_credential_types::provider::error::CredentialsError>())
}

/// The source of credentials may fail transiently, as the bucket may. If it rejects the request, it
/// will reject it again.
fn without_credentials(error: &(dyn Error + 'static)) -> BucketErrorKind {
    let mut asked = chain(error).filter_map(|error| error.downcast_ref::<SdkError<AssumeRoleWithWebIdentityError>>());
    let failed = asked.next().map(|error| error.failed(Operation::Get, "").error);
    failed.filter(BucketError::is_transient).map_or(BucketErrorKind::NoCredentials, |error| error.kind)
}

/// The meaning of S3's status and code ("Amazon S3 error responses"). Codes come first, because a
/// late failure of a completion has a code and the status 200.
fn refusal(status: u16, code: &str) -> BucketErrorKind {
    match (status, code) {
        (_, "NoSuchBucket") => BucketErrorKind::NoBucket,
        (_, "SlowDown" | "ServiceUnavailable" | "ThrottlingException" | "TooManyRequests") => BucketErrorKind::SlowDown,
        // S3 waited for the body, because this node or the network was slow.
        (_, "RequestTimeout") => BucketErrorKind::Timeout,
        (_, "IncompleteBody") => BucketErrorKind::Truncated,
        (_, "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") => BucketErrorKind::Denied,
        (_, "AuthorizationHeaderMalformed" | "PermanentRedirect" | "IllegalLocationConstraintException") | (301, _) => {
            BucketErrorKind::WrongRegion
        }
        (_, "InternalError") => BucketErrorKind::Server,
        // Another request for the key was in progress. S3 asks to retry.
        (_, "ConditionalRequestConflict" | "OperationAborted") => BucketErrorKind::Server,
        // versitygw returns this when a delete removes the directory of a key while a put creates
        // it. None of our keys is a directory, so a retry succeeds.
        (_, "ExistingObjectIsDirectory") => BucketErrorKind::Server,
        // The bytes received do not match their checksum or signed hash. The last code is MinIO's.
        (_, "BadDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch") => BucketErrorKind::WrongContent,
        (_, "QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded") => BucketErrorKind::Full,
        (401 | 403, _) => BucketErrorKind::Denied,
        (429 | 503, _) => BucketErrorKind::SlowDown,
        (507, _) => BucketErrorKind::Full,
        (408, _) => BucketErrorKind::Timeout,
        // Without a code, this is the short form of a conflict of two requests, or comes from a
        // proxy.
        (409, "") => BucketErrorKind::Server,
        // The service does not support the request, now or later.
        (501, _) => BucketErrorKind::Refused,
        // A status below 300 means an unreadable response, for example the page of a proxy instead
        // of XML.
        (..=300 | 500.., _) => BucketErrorKind::Server,
        _ => BucketErrorKind::Refused,
    }
}
