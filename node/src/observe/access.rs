//! One request for the operator of a registry: a span while it runs, a log line and metrics when it
//! ends.
//!
//! A request ends with the last byte of its response. If the log level is disabled, no span and no
//! line is created.

use super::Metrics;
use super::series::Series;
use entrepot_runtime::clock::Stopwatch;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Span;

/// The target of access log lines, so that a filter can exclude them: `info,access=off`.
const TARGET: &str = "access";

/// What is known of a request when it starts.
pub struct RequestInfo<'a> {
    /// The metrics of its route and method.
    pub series: Arc<Series>,
    pub repository: Option<&'a str>,
    pub request_id: &'a str,
    pub peer: SocketAddr,
}

/// A request in progress. The request ends when this is dropped.
pub struct Access {
    metrics: Arc<Metrics>,
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
    /// Holds one of the concurrent requests (`http.maxRequests`) until the last byte was sent.
    _place: Option<OwnedSemaphorePermit>,
}

enum End {
    None,
    Complete,
    Broken(String),
}

impl Access {
    pub fn begin(metrics: &Arc<Metrics>, request: RequestInfo<'_>, place: Option<OwnedSemaphorePermit>) -> Access {
        let span = tracing::info_span!(
            target: TARGET,
            "request",
            method = request.series.method,
            route = request.series.route,
            repository = request.repository,
            id = request.request_id,
            peer = %request.peer,
        );
        metrics.http.running.inc();
        Access {
            metrics: Arc::clone(metrics),
            series: request.series,
            span,
            begun: Stopwatch::start(),
            status: 0,
            expected: None,
            sent: 0,
            end: End::None,
            cause: None,
            _place: place,
        }
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
        self.metrics.http.running.dec();
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
        };
        let mut access = Access::begin(&metrics, request, None);
        access.answered(206, Some(10));
        assert_eq!(metrics.http.running.get(), 1);
        assert_eq!(metrics.http.requests.with_label_values(&["blob", "GET", "206"]).get(), 0);
        drop(access);
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
