//! A proxy in front of an S3 server that injects faults and records the requests.
//!
//! It forwards requests with their original `Host` header, so that their signatures stay valid.

mod faulty_body;
mod late;
mod line;
mod resettable_stream;

use crate::client::Registry;
use anyhow::{Context, Result};
use bytes::Bytes;
use faulty_body::FaultyBody;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use late::Late;
pub use line::{Line, Traffic};
use line::{Meter, Way};
use resettable_stream::ResettableStream;
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A fault of a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Forwarded after a delay.
    Delay(Duration),
    /// Never gets a response.
    Hang,
    /// The connection is closed without a response.
    Drop,
    /// Gets this status with an error code in S3's XML, and is not forwarded.
    Status(u16, &'static str),
    /// The response body is cut off after so many bytes by a connection reset.
    Reset(u64),
    /// The response body ends after so many bytes by an orderly close.
    Truncate(u64),
    /// One byte of the response body, at this offset, is changed.
    Corrupt(u64),
    /// The response body is limited to so many bytes per second.
    Slow(u64),
    /// The request body is cut off after so many bytes on the way to the server.
    ResetUpload(u64),
    /// Forwarded and processed, but the connection is closed without the response.
    LoseAnswer,
    /// Held with its whole body and forwarded after a delay, even if the client has given up by
    /// then.
    Late(Duration),
    /// Gets this status and an HTML page, as from another proxy on the way, and is not forwarded.
    ErrorPage(u16),
}

impl Fault {
    /// The name of the fault in a list.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Delay(_) => "delayed",
            Fault::Hang => "no response",
            Fault::Drop => "dropped",
            Fault::Status(..) => "refused",
            Fault::Reset(_) => "response reset",
            Fault::Truncate(_) => "response cut short",
            Fault::Corrupt(_) => "response corrupted",
            Fault::Slow(_) => "response slow",
            Fault::ResetUpload(_) => "upload reset",
            Fault::LoseAnswer => "response lost",
            Fault::Late(_) => "arrived late",
            Fault::ErrorPage(_) => "error page",
        }
    }
}

/// The name of the fault of every request while the bucket is unreachable.
pub const UNREACHABLE: &str = "unreachable";

/// The requests to which a fault applies.
#[derive(Clone, Debug)]
pub struct Rule {
    method: Option<Method>,
    path: String,
    fault: Fault,
    /// How many more times it applies.
    left: Arc<AtomicU32>,
}

impl Rule {
    /// Applies to every request whose path and query contain `path`.
    pub fn always(path: &str, fault: Fault) -> Rule {
        Rule { method: None, path: path.to_owned(), fault, left: Arc::new(AtomicU32::new(u32::MAX)) }
    }

    /// Limits the number of times.
    #[must_use]
    pub fn times(self, times: u32) -> Rule {
        Rule { left: Arc::new(AtomicU32::new(times)), ..self }
    }

    /// Applies only to this method.
    #[must_use]
    pub fn of(self, method: Method) -> Rule {
        Rule { method: Some(method), ..self }
    }

    fn takes(&self, method: &Method, target: &str) -> bool {
        let meets = self.method.as_ref().is_none_or(|wanted| wanted == method) && target.contains(&self.path);
        let one_less = |left: u32| if left == u32::MAX { Some(left) } else { left.checked_sub(1) };
        meets && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
    }
}

/// A request that passed the proxy.
#[derive(Clone, Debug)]
pub struct ProxiedRequest {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    /// Whether a rule applied to it.
    pub failed: bool,
    /// The fault that applied to it.
    pub fault: Option<&'static str>,
}

type AnswerBody = UnsyncBoxBody<Bytes, io::Error>;

struct Shared {
    upstream: String,
    client: Client<HttpConnector, UnsyncBoxBody<Bytes, io::Error>>,
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<ProxiedRequest>>,
    unreachable: AtomicBool,
    meter: Arc<Meter>,
    late: Late,
}

/// A proxy on its own port. It stops when the value is dropped.
pub struct Proxy {
    pub url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy for the server at the URL `upstream`.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(upstream: &str) -> Result<Proxy> {
        Proxy::over(upstream, Line::default()).await
    }

    /// The same over a line with limits.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn over(upstream: &str, line: Line) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared {
            upstream: Registry::new(upstream).host().to_owned(),
            client: Client::builder(TokioExecutor::new()).build(HttpConnector::new()),
            rules: Mutex::default(),
            seen: Mutex::default(),
            unreachable: AtomicBool::new(false),
            meter: Arc::new(Meter::new(line)),
            late: Late::default(),
        });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Ok(Proxy { url, shared, task })
    }

    /// Adds a fault; the first matching rule applies.
    pub fn fail(&self, rule: Rule) {
        self.shared.rules.lock().unwrap_or_else(PoisonError::into_inner).push(rule);
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.shared.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.shared.unreachable.store(false, Ordering::SeqCst);
    }

    /// Closes every connection without a response from now on, including open ones at their next
    /// request.
    pub fn make_unreachable(&self) {
        self.shared.unreachable.store(true, Ordering::SeqCst);
    }

    /// Number of held requests that will arrive late.
    pub fn held(&self) -> u32 {
        self.shared.late.held()
    }

    /// Method and path of the requests that have arrived late.
    pub fn arrived_late(&self) -> Vec<(Method, String)> {
        self.shared.late.arrived()
    }

    /// The traffic since the last call.
    pub fn take_traffic(&self) -> Traffic {
        self.shared.meter.take()
    }

    /// The requests since the last call.
    pub fn take_requests(&self) -> Vec<ProxiedRequest> {
        std::mem::take(&mut *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let _ = serve(stream, shared).await;
        });
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) -> Result<(), hyper::Error> {
    let reset = Arc::new(AtomicBool::new(false));
    let io = TokioIo::new(ResettableStream::new(stream, reset.clone()));
    let service = service_fn(move |request| handle(request, shared.clone(), reset.clone()));
    hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
}

impl Shared {
    /// The fault that the rules have for a request. Records the request.
    fn fault_of(&self, request: &Request<Incoming>, target: &str, unreachable: bool) -> Option<Fault> {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let fault = rules.iter().find(|rule| rule.takes(request.method(), target)).map(|rule| rule.fault.clone());
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(ProxiedRequest {
            method: request.method().clone(),
            target: target.to_owned(),
            headers: request.headers().clone(),
            failed: fault.is_some() || unreachable,
            fault: if unreachable { Some(UNREACHABLE) } else { fault.as_ref().map(Fault::name) },
        });
        fault
    }
}

/// An error of the service makes hyper close the connection without a response.
type Dropped = io::Error;

async fn handle(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    reset: Arc<AtomicBool>,
) -> Result<Response<AnswerBody>, Dropped> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let unreachable = shared.unreachable.load(Ordering::SeqCst);
    let fault = shared.fault_of(&request, &target, unreachable);
    if unreachable {
        return Err(io::Error::other(UNREACHABLE));
    }
    if shared.meter.request() {
        return refuse(request, 503, "SlowDown").await;
    }
    if !shared.meter.delay().is_zero() {
        tokio::time::sleep(shared.meter.delay()).await;
    }
    match fault {
        None => forward(&shared, request, &target, None).await.map(|answer| answer.map(BodyExt::boxed_unsync)),
        Some(Fault::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            forward(&shared, request, &target, None).await.map(|answer| answer.map(BodyExt::boxed_unsync))
        }
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Drop) => Err(io::Error::other("dropped")),
        Some(Fault::Status(status, code)) => refuse(request, status, code).await,
        Some(Fault::ErrorPage(status)) => error_page(request, status).await,
        Some(Fault::LoseAnswer) => {
            let answer = forward(&shared, request, &target, None).await?;
            // Read to its end, because a server may still work until it has sent the response.
            let _ = answer.into_body().collect().await;
            Err(io::Error::other("response lost on purpose"))
        }
        Some(Fault::Late(delay)) => late::hold(shared, request, target, delay).await,
        Some(Fault::ResetUpload(after)) => {
            let answer = forward(&shared, request, &target, Some(after)).await;
            reset.store(true, Ordering::SeqCst);
            answer.map(|answer| answer.map(BodyExt::boxed_unsync))
        }
        Some(fault) => {
            let answer = forward(&shared, request, &target, None).await?;
            Ok(answer.map(|body| body.with(fault, reset).boxed_unsync()))
        }
    }
}

/// Responds with an error in S3's XML.
async fn refuse(request: Request<Incoming>, status: u16, code: &str) -> Result<Response<AnswerBody>, Dropped> {
    let head = request.method() == Method::HEAD;
    // The request body is read to its end, as by a well-behaved server.
    let _ = request.into_body().collect().await;
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>on purpose</Message></Error>");
    let body = if head { String::new() } else { text };
    Response::builder()
        .status(status)
        .header("content-type", "application/xml")
        .body(Full::new(Bytes::from(body)).map_err(infallible).boxed_unsync())
        .map_err(io::Error::other)
}

/// Responds as another proxy on the way would.
async fn error_page(request: Request<Incoming>, status: u16) -> Result<Response<AnswerBody>, Dropped> {
    let _ = request.into_body().collect().await;
    let page = Bytes::from_static(b"<html><body><h1>on purpose</h1></body></html>");
    Response::builder()
        .status(status)
        .header("content-type", "text/html")
        .body(Full::new(page).map_err(infallible).boxed_unsync())
        .map_err(io::Error::other)
}

fn infallible(never: Infallible) -> io::Error {
    match never {}
}

async fn forward<B>(
    shared: &Shared,
    request: Request<B>,
    target: &str,
    cut_after: Option<u64>,
) -> Result<Response<FaultyBody<Incoming>>, Dropped>
where
    B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Send + Unpin + 'static,
{
    let (mut parts, body) = request.into_parts();
    parts.uri = format!("http://{}{target}", shared.upstream).parse::<Uri>().map_err(io::Error::other)?;
    let body = FaultyBody::over(body, Arc::clone(&shared.meter), Way::ToServer);
    let body = match cut_after {
        None => body,
        Some(after) => body.with(Fault::Truncate(after), Arc::default()),
    };
    let answer = shared.client.request(Request::from_parts(parts, body.boxed_unsync())).await;
    let answer = answer.context("the server behind the proxy did not respond").map_err(io::Error::other)?;
    Ok(answer.map(|body| FaultyBody::over(body, Arc::clone(&shared.meter), Way::FromServer)))
}
