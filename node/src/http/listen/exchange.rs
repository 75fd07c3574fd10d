//! What a connection is doing: receiving the head of a request, serving a request, or nothing.
//!
//! hyper measures the timeout for a head from the end of the last response. That timeout would have
//! to be short, because some clients send a head byte by byte, and long, because load balancers
//! keep idle connections. Here the arriving bytes distinguish the two cases. If a part of a head
//! arrives together with the previous request, the head is noticed only with its next byte. Until
//! then the connection counts as idle and is closed first when places are needed.

use crate::http::pace::{Pace, PaceLimit};
use axum::body::Bytes;
use entrepot_runtime::clock::Stopwatch;
use http_body::{Body, Frame, SizeHint};
use parking_lot::{Mutex, MutexGuard};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// What one connection is doing. Its stream, its requests and the code that closes it hold clones
/// of the `Arc`.
pub struct Exchange {
    phase: Mutex<Phase>,
    /// Notified when the connection becomes idle.
    became_idle: Arc<Notify>,
    end: Notify,
    cut: Notify,
}

#[derive(Clone, Copy)]
enum Phase {
    /// The head of a request is being received. For the first request the time runs from the start
    /// of the connection, for later ones from their first byte.
    Head(Stopwatch),
    /// There are requests whose bodies are not complete, in either direction, or the socket has not
    /// accepted all of a response.
    Busy { requests: usize, unsent: bool, protocol: Protocol },
    /// There was no request since the last response.
    Idle { since: Stopwatch, protocol: Protocol },
    /// Idle, and told to close.
    Ending { since: Stopwatch },
}

/// The protocol of a connection, known once it has received a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1: bytes that arrive on an idle connection are the head of a request.
    Serial,
    /// HTTP/2: arriving bytes may belong to any part of the protocol, such as replies to pings, and
    /// so may sent bytes.
    Multiplexed,
}

/// When a connection must be checked next, or what it failed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Later(Duration),
    /// The head of a request was not complete in time.
    HeadLate,
    /// There was no request for the idle timeout.
    IdleOver,
    /// The connection was told to close and did not within the header timeout. Over HTTP/2 its
    /// client must agree.
    EndLate,
}

impl Exchange {
    pub fn new(became_idle: Arc<Notify>) -> Exchange {
        Exchange {
            phase: Mutex::new(Phase::Head(Stopwatch::start())),
            became_idle,
            end: Notify::new(),
            cut: Notify::new(),
        }
    }

    /// Starts a request. It ends when all clones of the returned value are dropped.
    pub fn begin(self: &Arc<Self>, protocol: Protocol) -> Arc<InProgress> {
        let mut phase = self.phase();
        *phase = match *phase {
            Phase::Busy { requests, unsent, .. } => Phase::Busy { requests: requests + 1, unsent, protocol },
            Phase::Head(_) | Phase::Idle { .. } | Phase::Ending { .. } => {
                Phase::Busy { requests: 1, unsent: false, protocol }
            }
        };
        Arc::new(InProgress(Arc::clone(self)))
    }

    /// When the connection became idle. `None` if it is not idle, or was told to close.
    pub fn idle_since(&self) -> Option<Stopwatch> {
        match *self.phase() {
            Phase::Idle { since, .. } => Some(since),
            _ => None,
        }
    }

    /// Tells the connection to close if it is still idle, and returns whether it was.
    pub fn end_if_idle(&self) -> bool {
        let mut phase = self.phase();
        let Phase::Idle { .. } = *phase else { return false };
        *phase = Phase::Ending { since: Stopwatch::start() };
        self.end.notify_one();
        true
    }

    /// Whether the connection serves no request: it is idle, or the head of its next request is not
    /// complete.
    pub fn serves_nothing(&self) -> bool {
        !matches!(*self.phase(), Phase::Busy { .. })
    }

    /// Tells the connection to close at once, because its place was given away.
    pub fn cut(&self) {
        self.cut.notify_one();
    }

    /// Resolves when the place of the connection was given away.
    pub async fn told_to_cut(&self) {
        self.cut.notified().await;
    }

    /// Resolves when the connection should close.
    pub async fn told_to_end(&self) {
        self.end.notified().await;
    }

    /// Whether the connection exceeds a limit. A phase that begins later is still checked in time,
    /// because the interval between checks is never longer than the shorter of the two limits.
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
        if let Phase::Busy { requests, unsent, protocol } = *phase {
            self.settle(&mut phase, requests.saturating_sub(1), unsent, protocol);
        }
    }

    fn settle(&self, phase: &mut Phase, requests: usize, unsent: bool, protocol: Protocol) {
        *phase = if requests == 0 && !unsent {
            self.became_idle.notify_one();
            Phase::Idle { since: Stopwatch::start(), protocol }
        } else {
            Phase::Busy { requests, unsent, protocol }
        };
    }

    fn received(&self) {
        let mut phase = self.phase();
        if let Phase::Idle { protocol: Protocol::Serial, .. } = *phase {
            *phase = Phase::Head(Stopwatch::start());
        }
    }

    fn sending(&self) {
        let mut phase = self.phase();
        match *phase {
            Phase::Busy { requests, unsent: false, protocol: Protocol::Serial } => {
                *phase = Phase::Busy { requests, unsent: true, protocol: Protocol::Serial };
            }
            Phase::Idle { protocol: Protocol::Serial, .. } => {
                *phase = Phase::Busy { requests: 0, unsent: true, protocol: Protocol::Serial };
            }
            _ => {}
        }
    }

    fn sent(&self) {
        let mut phase = self.phase();
        if let Phase::Busy { requests, unsent: true, protocol } = *phase {
            self.settle(&mut phase, requests, false, protocol);
        }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock()
    }
}

/// A request in progress.
pub struct InProgress(Arc<Exchange>);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.ended();
    }
}

/// A request or response body. The request is in progress until its bodies are dropped.
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

/// The stream of a connection, which reports reads and writes to the [`Exchange`]. A write fails with
/// `TimedOut` if the client receives too slowly.
pub struct Heard<S> {
    inner: Pin<Box<S>>,
    exchange: Arc<Exchange>,
    pace: Pace,
}

impl<S> Heard<S> {
    pub fn new(inner: S, exchange: Arc<Exchange>, limit: PaceLimit) -> Heard<S> {
        Heard { inner: Box::pin(inner), exchange, pace: Pace::new(limit) }
    }

    /// The result of a write, or an error if the client receives too slowly.
    fn paced(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            self.pace.moved(*written.as_ref().unwrap_or(&0));
            return Poll::Ready(written);
        }
        ready!(self.pace.poll_too_slow(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
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
        let written = self.inner.as_mut().poll_write(cx, bytes);
        self.paced(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.exchange.sending();
        let written = self.inner.as_mut().poll_write_vectored(cx, pieces);
        self.paced(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// hyper flushes its stream only after it has written all of its data.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.inner.as_mut().poll_flush(cx))?;
        self.exchange.sent();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_shutdown(cx)
    }
}
