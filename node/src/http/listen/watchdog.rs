//! Responses over HTTP/2 that their client does not read. The connection may be busy with other
//! responses, so its socket may never be full, and the rule of HTTP/1.1 (a write makes no progress)
//! does not detect them. Here a response is stalled when a piece of it was handed to hyper and the
//! next one is not requested. It is also stalled when its client is too slow (`http.minRate`).

use crate::http::pace::{PaceLimit, Progress};
use axum::body::Body;
use bytes::Bytes;
use entrepot_runtime::clock::Stopwatch;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// The responses of one connection.
#[derive(Default)]
pub struct ResponseWatchdog(Mutex<Vec<Weak<Reading>>>);

/// How fast the client reads a response.
struct Reading(Mutex<State>);

struct State {
    /// When the client got the last piece. `None` while the client waits for the server.
    since: Option<Stopwatch>,
    /// The size of the last piece.
    bytes: usize,
    progress: Progress,
}

impl ResponseWatchdog {
    /// Watches a response, which its client should read from now on.
    pub fn watch(&self, response: Body, limit: PaceLimit) -> WatchedBody {
        let state = State { since: Some(Stopwatch::start()), bytes: 0, progress: Progress::default() };
        let reading = Arc::new(Reading(Mutex::new(state)));
        let mut responses = self.0.lock();
        responses.retain(|response| response.strong_count() > 0);
        responses.push(Arc::downgrade(&reading));
        WatchedBody { inner: response, reading: Some((reading, limit)) }
    }

    /// Resolves when the client reads a response too slowly, late by at most a quarter of the stall
    /// time.
    pub async fn stalled(&self, limit: PaceLimit) {
        loop {
            tokio::time::sleep(limit.stall() / 4).await;
            let responses = self.0.lock();
            if responses.iter().filter_map(Weak::upgrade).any(|response| response.is_late(limit)) {
                return;
            }
        }
    }
}

impl Reading {
    /// The client can receive more, so it has read the last piece.
    fn requested(&self, limit: PaceLimit) {
        let mut state = self.0.lock();
        if let Some(since) = state.since.take() {
            let bytes = std::mem::take(&mut state.bytes);
            state.progress.add(limit, since.elapsed(), bytes);
        }
    }

    /// A piece was handed to hyper.
    fn handed_over(&self, bytes: usize) {
        let mut state = self.0.lock();
        (state.since, state.bytes) = (Some(Stopwatch::start()), bytes);
    }

    fn is_late(&self, limit: PaceLimit) -> bool {
        let state = self.0.lock();
        let unread_for = state.since.map_or(Duration::ZERO, |since| since.elapsed());
        unread_for > state.progress.left(limit)
    }
}

/// The body of a response that reports, over HTTP/2, whether its client reads it.
pub struct WatchedBody {
    inner: Body,
    reading: Option<(Arc<Reading>, PaceLimit)>,
}

impl WatchedBody {
    /// The body of a response over HTTP/1.1, which the pace of the socket covers.
    pub fn unwatched(inner: Body) -> WatchedBody {
        WatchedBody { inner, reading: None }
    }
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some((reading, limit)) = &self.reading {
            reading.requested(*limit);
        }
        let next = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some((reading, _)) = &self.reading {
            let piece = next.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            reading.handed_over(piece.map_or(0, Bytes::len));
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
