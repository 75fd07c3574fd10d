//! Requests to the services that access control depends on: issuers and the Kubernetes API server.
//! Everything is bounded: time, size of a response, requests at the same time. It follows no
//! redirects, and no error contains a header, a body or a query.

mod error;
mod trust;

pub use error::HttpsError;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Time after which an unused connection is closed. Shorter than the idle timeout of usual servers,
/// so that a request seldom meets a connection that the server is closing.
const IDLE: Duration = Duration::from_secs(15);

/// How to reach a service.
#[derive(Clone, Debug)]
pub struct HttpsOptions {
    /// Which certificates to trust.
    pub trust: Trust,
    /// Time for a whole request: waiting for its turn, connecting, and reading the response.
    pub timeout: Duration,
    /// The largest response, in bytes.
    pub max_response: usize,
    /// Requests at the same time, and so connections. Others wait.
    pub at_once: usize,
}

/// Which certificates to trust. Files are read again for each request, so a replaced file takes
/// effect at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The CA certificates of the system, and those of a PEM file.
    System(Option<PathBuf>),
    /// Only the CA certificates of a PEM file.
    Only(PathBuf),
}

/// A client for one service. It keeps connections open.
pub struct HttpsClient {
    options: HttpsOptions,
    turns: Semaphore,
    /// The client, and the text of the CA file that it trusts.
    current: Mutex<Option<(Vec<u8>, Connections)>>,
}

type Connections = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A response, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsResponse {
    /// The status code. A redirect is a response like any other.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

impl HttpsClient {
    /// A client. It reads files and connects at the first request.
    #[must_use]
    pub fn new(options: HttpsOptions) -> HttpsClient {
        let turns = Semaphore::new(options.at_once);
        HttpsClient { options, turns, current: Mutex::new(None) }
    }

    /// Sends a GET request. The URL must be `https`, or `http` on a loopback address.
    ///
    /// # Errors
    /// If there is no whole response in time.
    pub async fn get(&self, url: &str, bearer: Option<&SecretString>) -> Result<HttpsResponse, HttpsError> {
        self.within(url, Request::get(url), bearer, Bytes::new()).await
    }

    /// Sends a POST request with a JSON body. The URL must be `https`, or `http` on a loopback
    /// address.
    ///
    /// # Errors
    /// If there is no whole response in time.
    pub async fn post_json(
        &self,
        url: &str,
        bearer: Option<&SecretString>,
        body: &(impl Serialize + Sync),
    ) -> Result<HttpsResponse, HttpsError> {
        let body = serde_json::to_vec(body).map_err(|_| HttpsError::invalid(url, "the body is not JSON"))?;
        let request = Request::post(url).header(header::CONTENT_TYPE, "application/json");
        self.within(url, request, bearer, body.into()).await
    }

    async fn within(
        &self,
        url: &str,
        request: http::request::Builder,
        bearer: Option<&SecretString>,
        body: Bytes,
    ) -> Result<HttpsResponse, HttpsError> {
        check(url)?;
        let mut request = request.header(header::ACCEPT, "application/json");
        if let Some(token) = bearer {
            let value = header::HeaderValue::try_from(format!("Bearer {}", token.expose_secret().trim()));
            let mut value = value.map_err(|_| HttpsError::invalid(url, "the token has invalid characters"))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let request =
            request.body(Full::new(body)).map_err(|_| HttpsError::invalid(url, "the request is not valid"))?;
        let answer = tokio::time::timeout(self.options.timeout, self.send(url, request)).await;
        answer.unwrap_or_else(|_| Err(HttpsError::timeout(url, self.options.timeout)))
    }

    async fn send(&self, url: &str, request: Request<Full<Bytes>>) -> Result<HttpsResponse, HttpsError> {
        let _turn = self.turns.acquire().await.map_err(|error| HttpsError::failed(url, &error))?;
        let connections = self.connections().await?;
        let response = connections.request(request).await.map_err(|error| HttpsError::failed(url, &error))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), self.options.max_response).collect().await;
        let body = body.map_err(|error| {
            if error.is::<LengthLimitError>() {
                HttpsError::too_large(url, self.options.max_response)
            } else {
                HttpsError::failed(url, error.as_ref())
            }
        })?;
        Ok(HttpsResponse { status, body: body.to_bytes() })
    }

    /// The connections that trust the CA file as it is now.
    async fn connections(&self) -> Result<Connections, HttpsError> {
        let text = trust::read(&self.options.trust).await?;
        if let Some((_, connections)) = self.current.lock().as_ref().filter(|(known, _)| *known == text) {
            return Ok(connections.clone());
        }
        let tls = trust::tls(&self.options.trust, &text).await?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let connections = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(self.options.at_once)
            .build(connector);
        *self.current.lock() = Some((text, connections.clone()));
        Ok(connections)
    }
}

/// Tokens and keys must not travel in plain text, except within this machine.
fn check(url: &str) -> Result<(), HttpsError> {
    let parsed: Uri = url.parse().map_err(|_| HttpsError::invalid(url, "it is not a URL"))?;
    let host = parsed.host().unwrap_or_default();
    match parsed.scheme_str() {
        Some("https") if !host.is_empty() => Ok(()),
        Some("http") if entrepot_config::is_loopback(host) => Ok(()),
        _ => Err(HttpsError::invalid(url, "it must begin with https://, or http:// and a loopback address")),
    }
}

#[cfg(test)]
mod tests;
