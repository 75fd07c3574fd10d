//! Responses over HTTP/2 that their client does not read. The connection may be busy with other
//! responses, so its socket may never be full, and the rule of HTTP/1.1 (a write makes no progress)
//! does not detect them. Here a response is stalled when a piece of it was handed to hyper and the
//! next one is not requested.

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
pub struct ResponseWatchdog(Mutex<Vec<Weak<Progress>>>);

/// How long the client has had the last piece. `None` while the client waits for the server.
struct Progress(Mutex<Option<Stopwatch>>);

impl ResponseWatchdog {
    /// Watches a response, which its client should read from now on.
    pub fn watch(&self, response: Body) -> WatchedBody {
        let progress = Arc::new(Progress(Mutex::new(Some(Stopwatch::start()))));
        let mut responses = self.0.lock();
        responses.retain(|response| response.strong_count() > 0);
        responses.push(Arc::downgrade(&progress));
        WatchedBody { inner: response, progress: Some(progress) }
    }

    /// Resolves when the client read nothing of a response for `stall`, at most `stall / 4` late.
    pub async fn stalled(&self, stall: Duration) {
        loop {
            tokio::time::sleep(stall / 4).await;
            let responses = self.0.lock();
            if responses.iter().filter_map(Weak::upgrade).any(|response| response.unread_for() > stall) {
                return;
            }
        }
    }
}

impl Progress {
    /// The client can receive more.
    fn requested(&self) {
        *self.0.lock() = None;
    }

    /// A piece was handed to hyper.
    fn handed_over(&self) {
        *self.0.lock() = Some(Stopwatch::start());
    }

    fn unread_for(&self) -> Duration {
        let since = *self.0.lock();
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// The body of a response that reports, over HTTP/2, whether its client reads it.
pub struct WatchedBody {
    inner: Body,
    progress: Option<Arc<Progress>>,
}

impl WatchedBody {
    /// The body of a response over HTTP/1.1, which a write timeout of the socket covers.
    pub fn unwatched(inner: Body) -> WatchedBody {
        WatchedBody { inner, progress: None }
    }
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(progress) = &self.progress {
            progress.requested();
        }
        let next = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(progress) = &self.progress {
            progress.handed_over();
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
