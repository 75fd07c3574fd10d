//! A registry client that does exactly what a test says: streams content of any size, and shows every answer.

use crate::content::Content;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use entrepot_node::oci::{Digest, digest::Hasher};
use futures::{Stream, StreamExt};
use http::{HeaderMap, Method, Request, Uri, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::client::legacy::{self, Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use std::convert::Infallible;
use std::time::{Duration, Instant};

/// A request's body.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// No answer of a test takes longer to begin, unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// The manifests that clients accept. Distribution takes `*/*` for none of them.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// A registry, known by its URL. Clones share connections.
#[derive(Clone)]
pub struct Registry {
    url: String,
    client: Client<HttpConnector, Body>,
    /// For how long a 429 or 503 is tried again.
    retry_for: Duration,
}

/// An answer, with its whole body.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// A header, if it is there and text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The code of the first error of the specification's JSON.
    pub fn code(&self) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        Some(body["errors"][0]["code"].as_str()?.to_owned())
    }

    /// # Errors
    /// When it has another status; the message has the body.
    pub fn expect(self, status: u16) -> Result<Reply> {
        if self.status == status {
            return Ok(self);
        }
        Err(Refused { status: self.status, wanted: status, body: self.body }.into())
    }

    /// # Errors
    /// When the body is not JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {:?}", self.body))
    }
}

/// An answer of another status than the one that was wanted.
#[derive(Clone, Debug)]
pub struct Refused {
    pub status: u16,
    wanted: u16,
    body: Bytes,
}

impl Refused {
    /// An answer whose body nobody reads.
    pub fn of(status: u16, wanted: u16) -> Refused {
        Refused { status, wanted, body: Bytes::new() }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "answered {} instead of {}: {:?}", self.status, self.wanted, self.body)
    }
}

impl std::error::Error for Refused {}

/// Whether a client tries again after this: no answer, half an answer, or one that says to come later. Wrong content is
/// not among them.
pub fn may_pass(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<Refused>() {
        Some(refused) => matches!(refused.status, 408 | 429 | 500..),
        None => error
            .chain()
            .any(|cause| cause.is::<hyper::Error>() || cause.is::<legacy::Error>() || cause.is::<std::io::Error>()),
    }
}

/// Tries again what may pass, so often in all, after a pause that doubles each time. `again` is told of each failure
/// that another attempt follows.
///
/// # Errors
/// Those of the last attempt.
pub async fn persist<T, F>(
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
            Err(error) if may_pass(&error) => again(&error),
            result => return result,
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    attempt().await
}

/// What a pull of a blob was like.
#[derive(Clone, Copy, Debug)]
pub struct Pulled {
    pub bytes: u64,
    /// From the request to the first byte of the body.
    pub first_byte: Duration,
    pub whole: Duration,
}

impl Registry {
    pub fn new(url: &str) -> Registry {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Registry { url: url.trim_end_matches('/').to_owned(), client, retry_for: Duration::ZERO }
    }

    /// The same registry, with 429 and 503 tried again for so long in all, as real clients do.
    #[must_use]
    pub fn patient(&self, retry_for: Duration) -> Registry {
        Registry { retry_for, ..self.clone() }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Host and port, as clients name a registry.
    pub fn host(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Whether it answers as a registry.
    pub async fn answers(&self) -> bool {
        self.get("/v2/").await.is_ok_and(|reply| reply.status == 200)
    }

    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, path: &str) -> Result<Reply> {
        self.send(Method::GET, path, &[], empty()).await
    }

    /// # Errors
    /// When there is no answer.
    pub async fn head(&self, path: &str) -> Result<Reply> {
        self.send(Method::HEAD, path, &[], empty()).await
    }

    /// # Errors
    /// When there is no answer.
    pub async fn delete(&self, path: &str) -> Result<Reply> {
        self.send(Method::DELETE, path, &[], empty()).await
    }

    /// Sends a request whose body can be made only once.
    ///
    /// # Errors
    /// When there is no answer, or its body ends early.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> Result<Reply> {
        let shown = format!("{method} {path}");
        let answer = self.open(method, path, headers, body).await?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.with_context(|| format!("the body of {shown}"))?.to_bytes();
        Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    /// Sends a request and leaves the answer's body to be read.
    ///
    /// # Errors
    /// When there is no answer.
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
        let answer = tokio::time::timeout(PATIENCE, self.client.request(request.body(body)?)).await;
        answer.with_context(|| format!("{shown}: no answer"))?.with_context(|| shown)
    }

    /// Does it again while the answer is 429 or 503 and there is time left.
    ///
    /// # Errors
    /// When there is no answer.
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

    /// A manifest by tag or digest, as the registry has it.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn manifest(&self, repository: &str, reference: &str) -> Result<Reply> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.again(|| self.send(Method::GET, &path, &[("accept", MANIFESTS)], empty())).await
    }

    /// Pushes a manifest.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn put_manifest(&self, repository: &str, reference: &str, kind: &str, content: &[u8]) -> Result<Reply> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let content = Bytes::copy_from_slice(content);
        let headers = [("content-type", kind)];
        self.again(|| self.send(Method::PUT, &path, &headers, full(content.clone()))).await
    }

    /// Pulls a blob, verifying its digest as it arrives, and keeps none of it.
    ///
    /// # Errors
    /// When it is not answered 200, ends early or does not match its digest.
    pub async fn pull(&self, repository: &str, digest: &Digest) -> Result<Pulled> {
        let path = format!("/v2/{repository}/blobs/{digest}");
        let start = Instant::now();
        let answer = self.open(Method::GET, &path, &[], empty()).await?;
        let status = answer.status().as_u16();
        if status != 200 {
            return Err(Refused::of(status, 200)).context(path);
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
        ensure!(actual == *digest, "{path}: {bytes} bytes of the digest {actual}");
        let whole = start.elapsed();
        Ok(Pulled { bytes, first_byte: first_byte.unwrap_or(whole), whole })
    }

    /// Whether the repository has the blob.
    ///
    /// # Errors
    /// When there is no answer, or it is neither yes nor no.
    pub async fn has_blob(&self, repository: &str, digest: &Digest) -> Result<bool> {
        let reply = self.again(|| self.head_blob(repository, digest)).await?;
        ensure!(matches!(reply.status, 200 | 404), "answered {}", reply.status);
        Ok(reply.status == 200)
    }

    async fn head_blob(&self, repository: &str, digest: &Digest) -> Result<Reply> {
        self.head(&format!("/v2/{repository}/blobs/{digest}")).await
    }
}

/// A body of no bytes.
pub fn empty() -> Body {
    full(Bytes::new())
}

/// A body that is in memory.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// A body that is made as it is sent, without a `Content-Length` unless the request says it.
pub fn streamed(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))).boxed_unsync()
}

/// All of some content as a body.
pub fn body_of(content: &Content) -> Body {
    streamed(content.stream(0..content.size))
}

/// The path and query of a `Location`, for a request to whichever node.
///
/// # Errors
/// When the reply has none.
pub fn location(reply: &Reply) -> Result<String> {
    let text = reply.header(header::LOCATION.as_str()).context("no Location")?;
    let uri: Uri = text.parse()?;
    Ok(uri.path_and_query().context("a Location without a path")?.to_string())
}

/// `location` with `digest` as a further parameter.
pub fn with_digest(location: &str, digest: &Digest) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}digest={digest}")
}
