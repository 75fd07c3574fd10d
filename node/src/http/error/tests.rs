use super::*;
use crate::http::headers;
use crate::repository::tags::TagError;
use crate::store::StoreError;
use axum::http::header::{HeaderMap, LOCATION, RANGE, RETRY_AFTER};
use axum::response::IntoResponse;
use entrepot_bucket::{BucketErrorKind, Operation};
use entrepot_oci::{Algorithm, Digest};
use http_body_util::BodyExt;
use serde_json::Value;

async fn answer(error: ApiError) -> (u16, HeaderMap, Value) {
    let (head, body) = error.refusal().of_request("request-1").into_response().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), head.headers, serde_json::from_slice(&body).unwrap())
}

fn bucket_error() -> BucketError {
    BucketError::new(Operation::Put, "secret/key", BucketErrorKind::Denied).because("https://bucket.example:9000/x")
}

fn disk_error(kind: io::ErrorKind) -> StoreError {
    StoreError::Io { action: "write", path: "/secret/folder".into(), source: kind.into() }
}

fn session() -> (Repository, SessionId) {
    let id = SessionId::parse("a.67e55044-10b1-426f-9247-bb680e5fe0c8").unwrap();
    (Repository::parse("library/alpine").unwrap(), id)
}

#[tokio::test]
async fn no_failure_reveals_internals() {
    for error in [
        ApiError::Bucket(bucket_error()),
        ApiError::Upload(bucket_error().into()),
        ApiError::Fetch { error: bucket_error().into(), kind: ContentKind::Blob },
        ApiError::Manage { error: bucket_error().into(), kind: ContentKind::Manifest },
        ApiError::Manage { error: ManageError::Tag(TagError::Bucket(bucket_error())), kind: ContentKind::Manifest },
        ApiError::Upload(disk_error(io::ErrorKind::Other).into()),
        ApiError::Fetch { error: disk_error(io::ErrorKind::StorageFull).into(), kind: ContentKind::Blob },
        ApiError::Internal("secret".into()),
        ApiError::OwnerFailed("secret host".into()),
    ] {
        let (status, _, body) = answer(error).await;
        let text = body.to_string();
        assert!(status >= 500 && text.contains("request-1"), "{status} {text}");
        assert!(!text.contains("secret") && !text.contains("example"), "{text}");
    }
}

#[tokio::test]
async fn temporary_errors_state_when_to_retry() {
    for (error, expected) in [
        (ApiError::Bucket(bucket_error()), 503),
        (ApiError::TooManyRequests, 503),
        (ApiError::Upload(StoreError::NoRoom(1).into()), 503),
        (ApiError::Upload(disk_error(io::ErrorKind::StorageFull).into()), 503),
        (ApiError::Upload(disk_error(io::ErrorKind::ReadOnlyFilesystem).into()), 503),
        (ApiError::Upload(UploadError::Unfinished), 503),
        (ApiError::Upload(UploadError::Stopping), 503),
        (ApiError::Upload(UploadError::TooManySessions(3)), 429),
        (ApiError::Upload(UploadError::Busy), 409),
    ] {
        let (status, headers, _) = answer(error).await;
        assert_eq!(status, expected);
        assert!(headers.contains_key(RETRY_AFTER), "{headers:?}");
    }
}

#[tokio::test]
async fn the_error_for_a_chunk_out_of_order_states_the_offset() {
    let (repository, id) = session();
    let error = ApiError::of_session(UploadError::OutOfOrder { offset: 10 }, &repository, &id);
    let (status, headers, body) = answer(error).await;
    assert_eq!((status, body["errors"][0]["code"].as_str().unwrap()), (416, "BLOB_UPLOAD_INVALID"));
    assert_eq!(headers[RANGE], "0-9");
    assert_eq!(headers[LOCATION], format!("/v2/library/alpine/blobs/uploads/{id}?offset=10"));
    assert_eq!(headers[headers::UPLOAD_UUID], id.to_string());
}

#[tokio::test]
async fn each_missing_reference_is_named() {
    let digest = Digest::of(Algorithm::Sha256, b"x");
    let error = UploadError::MissingReferences { blobs: vec![digest], manifests: vec![digest, digest] };
    let (status, _, body) = answer(error.into()).await;
    assert_eq!((status, body["errors"].as_array().unwrap().len()), (400, 3));
    assert_eq!(body["errors"][2]["code"], "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(body["errors"][2]["detail"]["digest"], digest.to_string());
}

#[tokio::test]
async fn every_405_says_what_is_allowed_and_a_416_the_size() {
    assert_eq!(answer(ApiError::Method { allowed: "POST" }).await.1[ALLOW], "POST");
    assert_eq!(answer(ApiError::ReadOnly { allowed: "GET, HEAD" }).await.1[ALLOW], "GET, HEAD");
    assert_eq!(answer(ApiError::ReadOnly { allowed: "" }).await.1[ALLOW], "");
    assert_eq!(answer(RangeRefused { size: 7 }.into()).await.1[CONTENT_RANGE], "bytes */7");
}

#[test]
fn a_client_that_disconnected_is_not_a_failure_of_the_node() {
    for kind in [io::ErrorKind::ConnectionReset, io::ErrorKind::Other, io::ErrorKind::TimedOut] {
        assert!(!ApiError::Upload(UploadError::Body(kind.into())).refusal().is_failure());
    }
}

#[tokio::test]
async fn a_body_that_is_too_long_and_a_broken_connection_have_different_messages() {
    let message = async |error: UploadError| {
        let (status, _, body) = answer(error.into()).await;
        assert_eq!((status, body["errors"][0]["code"].as_str().unwrap()), (400, "BLOB_UPLOAD_INVALID"));
        body["errors"][0]["message"].as_str().unwrap().to_owned()
    };
    assert_eq!(message(UploadError::LongerThanRange).await, "the request body is longer than its Content-Range");
    let broken = UploadError::Body(io::ErrorKind::ConnectionReset.into());
    assert_eq!(message(broken).await, "cannot read the request body: the connection failed");
}
