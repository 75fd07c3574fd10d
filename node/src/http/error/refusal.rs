//! What a client receives for an error: a status, a code of the specification (distribution-spec,
//! "Error Codes"), a message, and headers.

use crate::http::headers;
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use entrepot_oci::Digest;
use serde_json::{Value, json};

/// Codes of the specification, and codes of CNCF Distribution where the specification has none.
pub mod code {
    pub const BLOB_UNKNOWN: &str = "BLOB_UNKNOWN";
    pub const BLOB_UPLOAD_INVALID: &str = "BLOB_UPLOAD_INVALID";
    pub const BLOB_UPLOAD_UNKNOWN: &str = "BLOB_UPLOAD_UNKNOWN";
    pub const DENIED: &str = "DENIED";
    pub const DIGEST_INVALID: &str = "DIGEST_INVALID";
    pub const MANIFEST_BLOB_UNKNOWN: &str = "MANIFEST_BLOB_UNKNOWN";
    pub const MANIFEST_INVALID: &str = "MANIFEST_INVALID";
    pub const MANIFEST_UNKNOWN: &str = "MANIFEST_UNKNOWN";
    pub const NAME_INVALID: &str = "NAME_INVALID";
    pub const NAME_UNKNOWN: &str = "NAME_UNKNOWN";
    pub const PAGINATION_NUMBER_INVALID: &str = "PAGINATION_NUMBER_INVALID";
    pub const RANGE_INVALID: &str = "RANGE_INVALID";
    pub const SIZE_INVALID: &str = "SIZE_INVALID";
    pub const TOOMANYREQUESTS: &str = "TOOMANYREQUESTS";
    pub const UNAUTHORIZED: &str = "UNAUTHORIZED";
    pub const UNAVAILABLE: &str = "UNAVAILABLE";
    pub const UNKNOWN: &str = "UNKNOWN";
    pub const UNSUPPORTED: &str = "UNSUPPORTED";
}

/// Seconds after which a client may retry, by cause.
pub mod retry_after {
    /// A service that decides about access is asked again by then.
    pub const ACCESS: u32 = 5;
    /// Requests end all the time.
    pub const REQUESTS: u32 = 1;
    /// The bucket was already retried for its whole retry budget.
    pub const BUCKET: u32 = 5;
    /// Eviction or replication must free space first.
    pub const ROOM: u32 = 10;
    /// A session ends when its blob is complete.
    pub const SESSIONS: u32 = 5;
}

pub type StatusAndCode = (StatusCode, &'static str);

pub const UNAVAILABLE: StatusAndCode = (StatusCode::SERVICE_UNAVAILABLE, code::UNAVAILABLE);

/// The kind of the requested content. It selects the code for content that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentKind {
    Blob,
    Manifest,
}

impl ContentKind {
    pub fn absent(self) -> StatusAndCode {
        match self {
            ContentKind::Blob => (StatusCode::NOT_FOUND, code::BLOB_UNKNOWN),
            ContentKind::Manifest => (StatusCode::NOT_FOUND, code::MANIFEST_UNKNOWN),
        }
    }

    /// The refusal of content that does not exist.
    pub fn not_found(self) -> Refusal {
        let external = match self {
            ContentKind::Blob => "blob not found in this repository",
            ContentKind::Manifest => "manifest not found in this repository",
        };
        Refusal::new(self.absent(), external)
    }
}

/// The refusal because of an error that never happens.
pub fn internal() -> Refusal {
    Refusal::new((StatusCode::INTERNAL_SERVER_ERROR, code::UNKNOWN), "internal error; see the log of this node")
}

/// An error as its client receives it.
#[derive(Debug)]
pub struct Refusal {
    pub status: StatusCode,
    pub code: &'static str,
    /// The message for the client: what it can do about the error. It never contains a path, a key
    /// or a host of this node; the log has those under the request ID.
    external: String,
    /// In seconds.
    retry_after: Option<u32>,
    headers: HeaderMap,
    /// The content that the error is about; each is an entry of the error document.
    digests: Vec<Digest>,
}

impl Refusal {
    pub fn new((status, code): StatusAndCode, external: impl ToString) -> Refusal {
        let external = external.to_string();
        Refusal { status, code, external, retry_after: None, headers: HeaderMap::new(), digests: Vec::new() }
    }

    pub fn retry_after(mut self, seconds: u32) -> Refusal {
        self.retry_after = Some(seconds);
        self
    }

    pub fn header(mut self, name: HeaderName, value: &str) -> Refusal {
        headers::set(&mut self.headers, name, value);
        self
    }

    pub fn about<'a>(mut self, digests: impl Iterator<Item = &'a Digest>) -> Refusal {
        self.digests = digests.copied().collect();
        self
    }

    /// Whether the cause is the node or a service that it depends on, not the client. Such errors
    /// are logged as warnings.
    pub fn is_failure(&self) -> bool {
        self.status.is_server_error()
    }

    /// The same refusal, with the request ID if only the operator of the registry can help.
    pub fn of_request(mut self, request_id: &str) -> Refusal {
        if self.is_failure() {
            self.external = format!("{} (request ID {request_id})", self.external);
        }
        self
    }

    /// The specification's error document: one entry, or one for each digest.
    fn document(&self) -> Value {
        let entry = json!({ "code": self.code, "message": self.external });
        let about = |digest: &Digest| {
            let mut entry = entry.clone();
            entry["detail"] = json!({ "digest": digest.to_string() });
            entry
        };
        let entries: Vec<Value> =
            if self.digests.is_empty() { vec![entry] } else { self.digests.iter().map(about).collect() };
        json!({ "errors": entries })
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = self.document().to_string();
        let length = body.len();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let map = response.headers_mut();
        *map = self.headers;
        map.insert(CONTENT_TYPE, headers::JSON);
        map.insert(CONTENT_LENGTH, length.into());
        if let Some(seconds) = self.retry_after {
            map.insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}
