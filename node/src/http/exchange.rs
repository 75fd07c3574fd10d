//! What a connection is doing: receiving the head of a request, answering, or nothing.
//!
//! hyper measures the time for a head from the end of the last answer, so that one time would have to be short, because
//! of clients that send a head byte by byte, and long, because of load balancers that keep idle connections. Here the
//! bytes that arrive tell the two apart. A head that arrived in part together with the request before it is only seen
//! with its next byte: until then its connection counts as idle, and so is the first to end when places are needed.

use crate::run::clock::Stopwatch;
use axum::body::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// What one connection is doing. Clones of the `Arc` are with its stream, its requests and whoever ends it.
pub struct Exchange {
    phase: Mutex<Phase>,
    /// Told when the connection becomes idle.
    became_idle: Arc<Notify>,
    end: Notify,
}

#[derive(Clone, Copy)]
enum Phase {
    /// The head of a request is being received: the first one since the connection began, any other since its first
    /// byte.
    Head(Stopwatch),
    /// Requests whose bodies are not over, in either direction, or an answer that the socket has not taken whole.
    Busy { requests: usize, unsent: bool, kind: Kind },
    /// Nothing was asked since the last answer.
    Idle { since: Stopwatch, kind: Kind },
    /// The same, and the connection was told to end.
    Ending { since: Stopwatch },
}

/// What is known of a connection's protocol when it has had a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// HTTP/1: bytes that arrive on an idle connection are the head of a request.
    Serial,
    /// HTTP/2: they may be anything of the protocol, such as answers to pings; what is sent may be anything too.
    Multiplexed,
}

/// When a connection has to be looked at next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Later(Duration),
    /// A head did not come in time.
    HeadLate,
    /// Nothing was asked for the idle time.
    IdleOver,
    /// The connection was told to end and did not in the time for a head. Over HTTP/2 its client has to agree.
    EndLate,
}

impl Exchange {
    pub fn new(became_idle: Arc<Notify>) -> Exchange {
        Exchange { phase: Mutex::new(Phase::Head(Stopwatch::start())), became_idle, end: Notify::new() }
    }

    /// A request has begun; it ends when all clones of what is returned are dropped.
    pub fn begin(self: &Arc<Self>, kind: Kind) -> Arc<InProgress> {
        let mut phase = self.phase();
        *phase = match *phase {
            Phase::Busy { requests, unsent, .. } => Phase::Busy { requests: requests + 1, unsent, kind },
            Phase::Head(_) | Phase::Idle { .. } | Phase::Ending { .. } => {
                Phase::Busy { requests: 1, unsent: false, kind }
            }
        };
        Arc::new(InProgress(Arc::clone(self)))
    }

    /// How long the connection has been idle. `None` when it is not, or was told to end.
    pub fn idle(&self) -> Option<Duration> {
        match *self.phase() {
            Phase::Idle { since, .. } => Some(since.elapsed()),
            _ => None,
        }
    }

    /// Tells the connection to end if it is idle still, and returns whether it is.
    pub fn end_if_idle(&self) -> bool {
        let mut phase = self.phase();
        let Phase::Idle { .. } = *phase else { return false };
        *phase = Phase::Ending { since: Stopwatch::start() };
        self.end.notify_one();
        true
    }

    /// Resolves when the connection is to end.
    pub async fn told_to_end(&self) {
        self.end.notified().await;
    }

    /// Whether it is late. A phase that begins later than now is looked at in time, because no look is further away than
    /// the shorter of the two times.
    pub fn due(&self, header: Duration, idle: Duration) -> Due {
        let (since, limit, over) = match *self.phase() {
            Phase::Busy { .. } => return Due::Later(header.min(idle)),
            Phase::Head(since) => (since, header, Due::HeadLate),
            Phase::Idle { since, .. } => (since, idle, Due::IdleOver),
            Phase::Ending { since } => (since, header, Due::EndLate),
        };
        let left = limit.saturating_sub(since.elapsed());
        if left.is_zero() { over } else { Due::Later(left.min(header).min(idle)) }
    }

    fn ended(&self) {
        let mut phase = self.phase();
        if let Phase::Busy { requests, unsent, kind } = *phase {
            self.settle(&mut phase, requests.saturating_sub(1), unsent, kind);
        }
    }

    fn settle(&self, phase: &mut Phase, requests: usize, unsent: bool, kind: Kind) {
        *phase = if requests == 0 && !unsent {
            self.became_idle.notify_one();
            Phase::Idle { since: Stopwatch::start(), kind }
        } else {
            Phase::Busy { requests, unsent, kind }
        };
    }

    fn received(&self) {
        let mut phase = self.phase();
        if let Phase::Idle { kind: Kind::Serial, .. } = *phase {
            *phase = Phase::Head(Stopwatch::start());
        }
    }

    fn sending(&self) {
        let mut phase = self.phase();
        match *phase {
            Phase::Busy { requests, unsent: false, kind: Kind::Serial } => {
                *phase = Phase::Busy { requests, unsent: true, kind: Kind::Serial };
            }
            Phase::Idle { kind: Kind::Serial, .. } => {
                *phase = Phase::Busy { requests: 0, unsent: true, kind: Kind::Serial };
            }
            _ => {}
        }
    }

    fn sent(&self) {
        let mut phase = self.phase();
        if let Phase::Busy { requests, unsent: true, kind } = *phase {
            self.settle(&mut phase, requests, false, kind);
        }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that has begun.
pub struct InProgress(Arc<Exchange>);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.ended();
    }
}

/// A body, in either direction, of a request that is in progress until the body is dropped.
pub struct Held<B> {
    inner: B,
    _request: Arc<InProgress>,
}

impl<B> Held<B> {
    pub fn new(inner: B, request: Arc<InProgress>) -> Held<B> {
        Held { inner, _request: request }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Held<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A connection's stream that tells what passes through it.
pub struct Heard<S> {
    inner: Pin<Box<S>>,
    exchange: Arc<Exchange>,
}

impl<S> Heard<S> {
    pub fn new(inner: S, exchange: Arc<Exchange>) -> Heard<S> {
        Heard { inner: Box::pin(inner), exchange }
    }
}

impl<S: AsyncRead> AsyncRead for Heard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.inner.as_mut().poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.exchange.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.exchange.sending();
        self.inner.as_mut().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.exchange.sending();
        self.inner.as_mut().poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// hyper flushes its stream only when it has written all that it had.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.inner.as_mut().poll_flush(cx))?;
        self.exchange.sent();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_shutdown(cx)
    }
}
