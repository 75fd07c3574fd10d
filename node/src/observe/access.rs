//! One request for the operator of a registry: a span while it runs, a log line and metrics when it
//! ends.
//!
//! A request ends with the last byte of its response. If the log level is disabled, no span and no
//! line is created.

use super::Metrics;
use super::series::Series;
use entrepot_runtime::clock::Stopwatch;
use entrepot_runtime::share::Share;
use prometheus::IntGauge;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tracing::Span;

/// The target of access log lines, so that a filter can exclude them: `info,access=off`.
const TARGET: &str = "access";

/// What is known of a request when it starts.
pub struct RequestInfo<'a> {
    /// The metrics of its route and method.
    pub series: Arc<Series>,
    /// The repository in the path, if there is one.
    pub repository: Option<&'a str>,
    /// The id of the request in its response and in the log.
    pub request_id: &'a str,
    /// The client's address.
    pub peer: SocketAddr,
    /// Name of the client's certificate.
    pub client: Option<&'a str>,
    /// The client's address, if a trusted proxy (`http.trustedProxies`) stated it.
    pub forwarded_for: Option<IpAddr>,
}

/// What a request takes of the node while it runs: it is counted as running, and it holds one of the
/// concurrent requests (`http.maxRequests`). Work that continues after the client has left keeps a
/// clone, so that the work is neither invisible nor unlimited.
#[derive(Clone)]
pub struct Running(#[expect(dead_code, reason = "it acts when it is dropped")] Arc<Place>);

struct Place {
    running: IntGauge,
    _share: Option<Share>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.running.dec();
    }
}

impl Running {
    fn begin(metrics: &Metrics, share: Option<Share>) -> Running {
        let running = metrics.http.running.clone();
        running.inc();
        Running(Arc::new(Place { running, _share: share }))
    }
}

/// A request in progress. The request ends when this is dropped.
pub struct Access {
    series: Arc<Series>,
    span: Span,
    begun: Stopwatch,
    status: u16,
    /// Size of the body in bytes, if known.
    expected: Option<u64>,
    sent: u64,
    end: End,
    /// The cause of a failure; only for the log.
    cause: Option<String>,
    /// Held until the last byte was sent.
    running: Running,
}

enum End {
    None,
    Complete,
    Broken(String),
}

impl Access {
    /// Starts the record of a request. `place` is its share of `http.maxRequests`, held until the last byte.
    pub fn begin(metrics: &Arc<Metrics>, request: RequestInfo<'_>, place: Option<Share>) -> Access {
        let span = tracing::info_span!(
            target: TARGET,
            "request",
            method = request.series.method,
            route = request.series.route,
            repository = request.repository,
            id = request.request_id,
            peer = %request.peer,
            user = tracing::field::Empty,
            forwardedFor = request.forwarded_for.map(tracing::field::display),
            client = request.client,
        );
        Access {
            series: request.series,
            span,
            begun: Stopwatch::start(),
            status: 0,
            expected: None,
            sent: 0,
            end: End::None,
            cause: None,
            running: Running::begin(metrics, place),
        }
    }

    /// What the request holds, for work that may outlive it.
    pub fn running(&self) -> Running {
        self.running.clone()
    }

    /// The span of the request.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// Records the status of the response; `expected` is the size of its body in bytes.
    pub fn answered(&mut self, status: u16, expected: Option<u64>) {
        self.status = status;
        self.expected = expected;
    }

    /// Records the cause of a failure.
    pub fn failed(&mut self, error: &(dyn std::error::Error + 'static)) {
        self.cause = Some(chain(error));
    }

    /// Records bytes that were handed to the connection.
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Records that the response ended early.
    pub fn broke(&mut self, error: &(dyn std::error::Error + 'static)) {
        self.end = End::Broken(chain(error));
    }

    /// Records that the client has the whole response.
    pub fn complete(&mut self) {
        self.end = End::Complete;
    }

    fn log(&self, seconds: f64) {
        // Whole microseconds: further digits are noise, and cost most of the time to write the
        // number.
        let (status, bytes, duration_ms) = (self.status, self.sent, (seconds * 1e6).round() / 1e3);
        let gone = matches!(self.end, End::None) && self.expected != Some(self.sent);
        match (&self.end, &self.cause) {
            (End::Broken(error), _) => {
                tracing::warn!(target: TARGET, status, bytes, duration_ms, error, "response aborted before completion");
            }
            (_, Some(error)) => tracing::warn!(target: TARGET, status, bytes, duration_ms, error, "request failed"),
            _ if self.status == 0 => {
                tracing::info!(target: TARGET, duration_ms, "client disconnected before the response")
            }
            _ if gone => {
                tracing::info!(target: TARGET, status, bytes, duration_ms, "client disconnected during the response")
            }
            _ => tracing::info!(target: TARGET, status, bytes, duration_ms, "request completed"),
        }
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        let seconds = self.begun.elapsed().as_secs_f64();
        self.series.count(self.status, seconds);
        self.span.in_scope(|| self.log(seconds));
    }
}

/// An error with its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        append(&mut text, cause);
        next = cause.source();
    }
    text
}

/// Appends a cause, unless the text already ends with it. A transparent error has the text of its
/// source.
fn append(text: &mut String, cause: impl Display) {
    let cause = cause.to_string();
    if !text.ends_with(&cause) {
        text.push_str(": ");
        text.push_str(&cause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn a_request_is_counted_once_with_its_labels_when_it_ends() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let request = RequestInfo {
            series: Arc::new(Series::new(&metrics, "blob", "GET")),
            repository: Some("a/b"),
            request_id: "1",
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            forwarded_for: None,
            client: None,
        };
        let mut access = Access::begin(&metrics, request, None);
        access.answered(206, Some(10));
        let work = access.running();
        assert_eq!(metrics.http.running.get(), 1);
        assert_eq!(metrics.http.requests.with_label_values(&["blob", "GET", "206"]).get(), 0);
        drop(access);
        assert_eq!(metrics.http.running.get(), 1, "its work continues");
        drop(work);
        assert_eq!(metrics.http.running.get(), 0);
        assert_eq!(metrics.http.requests.with_label_values(&["blob", "GET", "206"]).get(), 1);
        assert!(!String::from_utf8(metrics.text().unwrap()).unwrap().contains("a/b"));
    }

    #[test]
    fn a_cause_is_not_repeated() {
        let inner = io::Error::other("no answer");
        let outer = crate::store::StoreError::Io { action: "read", path: "x".into(), source: inner };
        assert_eq!(chain(&outer), "cannot read x: no answer");
        assert_eq!(chain(&crate::upload::UploadError::from(outer)), "cannot read x: no answer");
    }
}
