//! A registry client that sends exactly what a test tells it to, streams content of any size, and
//! returns every response.

use crate::content::Content;
use crate::pki::Identity;
use crate::tls;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use entrepot_oci::Digest;
use entrepot_oci::digest::Hasher;
use futures::{Stream, StreamExt};
use http::{HeaderMap, Method, Request, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{self, Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;
use std::convert::Infallible;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// A request body.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Time limit for the beginning of every response; only a server that hangs reaches it.
pub const TIMEOUT: Duration = Duration::from_secs(300);

/// The manifest media types that clients accept. Distribution accepts `*/*` for none of them.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// A registry at a URL. Clones share connections.
#[derive(Clone)]
pub struct Registry {
    url: String,
    client: Client<HttpsConnector<HttpConnector>, Body>,
    /// How long a request is repeated after a 429 or 503.
    retry_for: Duration,
}

/// A response with its whole body.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// The header, if it is present and text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The code of the first error in the JSON body that the specification defines.
    pub fn code(&self) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        Some(body["errors"][0]["code"].as_str()?.to_owned())
    }

    /// # Errors
    /// If the status is another; the message contains the body.
    pub fn expect(self, status: u16) -> Result<Reply> {
        if self.status == status {
            return Ok(self);
        }
        Err(UnexpectedStatus { status: self.status, wanted: status, body: self.body }.into())
    }

    /// # Errors
    /// If the body is not JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("the body is not JSON: {:?}", self.body))
    }
}

/// A response with another status than the expected one.
#[derive(Clone, Debug)]
pub struct UnexpectedStatus {
    pub status: u16,
    wanted: u16,
    body: Bytes,
}

impl UnexpectedStatus {
    /// A response whose body was not read.
    pub fn of(status: u16, wanted: u16) -> UnexpectedStatus {
        UnexpectedStatus { status, wanted, body: Bytes::new() }
    }
}

impl std::fmt::Display for UnexpectedStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "status {} instead of {}: {:?}", self.status, self.wanted, self.body)
    }
}

impl std::error::Error for UnexpectedStatus {}

/// Whether a client retries after this error: no response, an incomplete response, or a status that
/// asks to retry. Wrong content is not among them.
pub fn is_transient(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<UnexpectedStatus>() {
        Some(refused) => matches!(refused.status, 408 | 429 | 500..),
        None => error
            .chain()
            .any(|cause| cause.is::<hyper::Error>() || cause.is::<legacy::Error>() || cause.is::<std::io::Error>()),
    }
}

/// Attempts something up to `tries` times while its errors are transient, after a pause that
/// doubles each time. `again` is called with each error after which another attempt follows.
///
/// # Errors
/// The error of the last attempt.
pub async fn retry<T, F>(
    tries: u32,
    mut pause: Duration,
    mut attempt: impl FnMut() -> F,
    mut again: impl FnMut(&anyhow::Error),
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    for _ in 1..tries {
        match attempt().await {
            Err(error) if is_transient(&error) => again(&error),
            result => return result,
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    attempt().await
}

/// The figures of one pull of a blob.
#[derive(Clone, Copy, Debug)]
pub struct Pulled {
    pub bytes: u64,
    /// Time from the request to the first byte of the body.
    pub first_byte: Duration,
    pub whole: Duration,
}

impl Registry {
    /// A registry that is reached without TLS.
    pub fn new(url: &str) -> Registry {
        Registry::of(url, tls::trusting_nobody(), None)
    }

    /// A client with this address, which must be one of the machine.
    pub fn from_address(url: &str, address: IpAddr) -> Registry {
        Registry::of(url, tls::trusting_nobody(), Some(address))
    }

    /// The same registry over new connections, with TLS: the client trusts an authority, and has a
    /// certificate of its own if `own` is given.
    ///
    /// # Errors
    /// If a file is invalid.
    pub fn over_tls(&self, authority: &Path, own: Option<&Identity>) -> Result<Registry> {
        Ok(Registry::of(&self.url, tls::trusting(authority, own)?, None))
    }

    fn of(url: &str, tls: ClientConfig, address: Option<IpAddr>) -> Registry {
        let mut connector = HttpConnector::new();
        connector.set_local_address(address);
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let connector = HttpsConnector::from((connector, tls));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Registry { url: url.trim_end_matches('/').to_owned(), client, retry_for: Duration::ZERO }
    }

    /// The same registry with requests that are repeated after 429 and 503 for up to `retry_for`,
    /// as real clients do.
    #[must_use]
    pub fn retrying(&self, retry_for: Duration) -> Registry {
        Registry { retry_for, ..self.clone() }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Host and port, the form in which clients name a registry.
    pub fn host(&self) -> &str {
        self.url.split_once("://").map_or(&self.url, |(_, host)| host)
    }

    /// Whether it responds as a registry.
    pub async fn answers(&self) -> bool {
        self.get("/v2/").await.is_ok_and(|reply| reply.status == 200)
    }

    /// # Errors
    /// If there is no response.
    pub async fn get(&self, path: &str) -> Result<Reply> {
        self.send(Method::GET, path, &[], empty()).await
    }

    /// # Errors
    /// If there is no response.
    pub async fn head(&self, path: &str) -> Result<Reply> {
        self.send(Method::HEAD, path, &[], empty()).await
    }

    /// # Errors
    /// If there is no response.
    pub async fn delete(&self, path: &str) -> Result<Reply> {
        self.send(Method::DELETE, path, &[], empty()).await
    }

    /// Sends a request whose body can be sent only once.
    ///
    /// # Errors
    /// If there is no response, or its body ends early.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> Result<Reply> {
        let shown = format!("{method} {path}");
        let answer = self.open(method, path, headers, body).await?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.with_context(|| format!("cannot read the body of {shown}"))?.to_bytes();
        Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    /// Sends a request and returns the response with its body unread.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Result<http::Response<Incoming>> {
        let shown = format!("{method} {path}");
        let uri: Uri = if path.starts_with("http") { path.parse()? } else { format!("{}{path}", self.url).parse()? };
        let request = headers
            .iter()
            .fold(Request::builder().method(method).uri(uri), |request, (name, value)| request.header(*name, *value));
        let answer = tokio::time::timeout(TIMEOUT, self.client.request(request.body(body)?)).await;
        answer.with_context(|| format!("{shown}: no response"))?.with_context(|| shown)
    }

    /// Repeats the request while the response is 429 or 503 and there is time left.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn again<F>(&self, mut attempt: impl FnMut() -> F) -> Result<Reply>
    where
        F: Future<Output = Result<Reply>>,
    {
        let start = Instant::now();
        loop {
            let reply = attempt().await?;
            let later = matches!(reply.status, 429 | 503) && start.elapsed() < self.retry_for;
            if !later {
                return Ok(reply);
            }
            let seconds = reply.header("retry-after").and_then(|text| text.parse().ok()).unwrap_or(1);
            tokio::time::sleep(Duration::from_secs(seconds).min(Duration::from_secs(2))).await;
        }
    }

    /// Reads a manifest by tag or digest.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn manifest(&self, repository: &str, reference: &str) -> Result<Reply> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.again(|| self.send(Method::GET, &path, &[("accept", MANIFESTS)], empty())).await
    }

    /// Pushes a manifest.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn put_manifest(&self, repository: &str, reference: &str, kind: &str, content: &[u8]) -> Result<Reply> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let content = Bytes::copy_from_slice(content);
        let headers = [("content-type", kind)];
        self.again(|| self.send(Method::PUT, &path, &headers, full(content.clone()))).await
    }

    /// Pulls a blob, verifies its digest as it arrives, and discards the bytes.
    ///
    /// # Errors
    /// If the status is not 200, or the body ends early or does not match the digest.
    pub async fn pull(&self, repository: &str, digest: &Digest) -> Result<Pulled> {
        let path = format!("/v2/{repository}/blobs/{digest}");
        let start = Instant::now();
        let answer = self.open(Method::GET, &path, &[], empty()).await?;
        let status = answer.status().as_u16();
        if status != 200 {
            return Err(UnexpectedStatus::of(status, 200)).context(path);
        }
        let mut body = answer.into_body();
        let mut hasher = Hasher::new(digest.algorithm());
        let (mut bytes, mut first_byte) = (0, None);
        while let Some(frame) = body.frame().await {
            if let Ok(piece) = frame.with_context(|| format!("{path}: after {bytes} bytes"))?.into_data() {
                first_byte.get_or_insert_with(|| start.elapsed());
                bytes += piece.len() as u64;
                hasher.update(&piece);
            }
        }
        let actual = hasher.finish();
        ensure!(actual == *digest, "{path}: digest mismatch: got {actual} ({bytes} bytes)");
        let whole = start.elapsed();
        Ok(Pulled { bytes, first_byte: first_byte.unwrap_or(whole), whole })
    }

    /// Whether the repository has the blob.
    ///
    /// # Errors
    /// If there is no response, or its status is neither 200 nor 404.
    pub async fn has_blob(&self, repository: &str, digest: &Digest) -> Result<bool> {
        let reply = self.again(|| self.head_blob(repository, digest)).await?;
        ensure!(matches!(reply.status, 200 | 404), "unexpected status {}", reply.status);
        Ok(reply.status == 200)
    }

    async fn head_blob(&self, repository: &str, digest: &Digest) -> Result<Reply> {
        self.head(&format!("/v2/{repository}/blobs/{digest}")).await
    }
}

/// An empty body.
pub fn empty() -> Body {
    full(Bytes::new())
}

/// A body from memory.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// A body that is generated while it is sent, without a `Content-Length` unless the request has
/// that header.
pub fn streamed(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))).boxed_unsync()
}

/// The whole content as a body.
pub fn body_of(content: &Content) -> Body {
    streamed(content.stream(0..content.size))
}

/// Path and query of the `Location` header, so that the next request can go to any node.
///
/// # Errors
/// If the response has no `Location`.
pub fn location(reply: &Reply) -> Result<String> {
    let text = reply.header(header::LOCATION.as_str()).context("the response has no Location header")?;
    let uri: Uri = text.parse()?;
    Ok(uri.path_and_query().context("the Location header has no path")?.to_string())
}

/// `location` with the additional parameter `digest`.
pub fn with_digest(location: &str, digest: &Digest) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}digest={digest}")
}
