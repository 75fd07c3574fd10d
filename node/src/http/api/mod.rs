//! The operations of the registry API: which one a request is for ([`Route`]), what it needs
//! ([`access`]), and its handler.

pub mod access;
pub mod audited;
mod blobs;
pub mod body;
mod byteranges;
mod catalog;
pub mod endpoint;
mod manifest_body;
mod manifests;
mod outcome;
mod page;
mod referrers;
pub mod requester;
pub mod route;
mod services;
mod tags;
pub mod token;
pub mod uploads;

use crate::http::error::ApiError;
use crate::observe::access::Running;
use axum::body::Body;
use axum::http::Method;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use body::RequestBody;
use bytes::Bytes;
use manifest_body::ManifestMemory;
use manifests::DescriptionCache;
use requester::Requester;
use route::Route;
pub use services::Services;

/// The text at `/`, for a person who opens the registry in a browser.
const HOME: &str = "This is Entrepot, a container registry. Its API is at /v2/ (OCI distribution-spec 1.1).\n";

/// The handlers.
pub struct Api {
    pub services: Services,
    descriptions: DescriptionCache,
    manifest_memory: ManifestMemory,
}

impl Api {
    pub fn new(services: Services) -> Api {
        Api { services, descriptions: DescriptionCache::default(), manifest_memory: ManifestMemory::default() }
    }

    /// Handles a request at this node.
    ///
    /// # Errors
    /// Returns the error of the response.
    pub async fn handle(
        &self,
        route: &Route,
        head: &Parts,
        body: RequestBody,
        requester: &Requester,
    ) -> Result<Response, ApiError> {
        let (services, headers, with_body) = (&self.services, &head.headers, head.method != Method::HEAD);
        match route {
            Route::Home => Ok(text("text/plain; charset=utf-8", HOME)),
            Route::Version => Ok(text("application/json", "{}")),
            // Without access control there is no token service; with it, it has answered already.
            Route::Token(_) => Err(ApiError::NoRoute),
            Route::Catalog { page } => catalog::list(services, page, requester).await,
            Route::Tags { repository, page } => tags::list(services, repository, page).await,
            Route::Referrers { repository, subject, artifact_type, page } => {
                referrers::list(services, repository, subject, artifact_type.as_deref(), page).await
            }
            Route::PullManifest { repository, reference } => {
                let get = manifests::get(services, &self.descriptions, repository, reference, headers, with_body);
                Ok(get.await?.into_response())
            }
            Route::PushManifest { repository, reference, tags } => {
                let gathered = self.manifest_memory.collect(body, &requester.holder()).await?;
                manifests::put(services, repository, reference, tags, head, gathered).await
            }
            Route::DeleteManifest { repository, reference } => {
                manifests::delete(services, repository, reference, head).await
            }
            Route::PullBlob { repository, digest } if with_body => {
                Ok(blobs::get(services, repository, digest, headers).await?.into_response())
            }
            Route::PullBlob { repository, digest } => {
                Ok(blobs::head(services, repository, digest, headers).await?.into_response())
            }
            Route::DeleteBlob { repository, digest } => blobs::delete(services, repository, digest, head).await,
            Route::BeginUpload { repository, begin } => {
                uploads::begin(services, repository, begin, requester, body).await
            }
            Route::UploadStatus { repository, id } => uploads::status(services, repository, id).await,
            Route::AppendUpload { repository, id, offset } => {
                uploads::append(services, repository, id, *offset, headers, body).await
            }
            Route::FinishUpload { repository, id, offset, digest } => {
                uploads::finish(services, repository, (id, *offset), digest, headers, body).await
            }
            Route::CancelUpload { repository, id } => uploads::cancel(services, repository, id).await,
        }
    }
}

/// What the request holds while it runs. Work that continues after the client has left keeps it.
fn running(head: &Parts) -> Option<Running> {
    head.extensions.get::<Running>().cloned()
}

fn text(kind: &'static str, content: &'static str) -> Response {
    let mut response = Response::new(Body::from(Bytes::from_static(content.as_bytes())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
