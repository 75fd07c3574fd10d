//! A body that is cut off, changed or slowed down on the way.

use super::Fault;
use super::line::{Meter, Way};
use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

/// A body with an optional fault.
pub struct FaultyBody<B> {
    inner: B,
    fault: Option<Fault>,
    reset: Arc<AtomicBool>,
    passed: u64,
    start: Instant,
    pause: Option<Pin<Box<Sleep>>>,
    meter: Arc<Meter>,
    way: Way,
}

impl<B> FaultyBody<B> {
    /// A body that is counted and limited to the rate of its line.
    pub fn over(inner: B, meter: Arc<Meter>, way: Way) -> FaultyBody<B> {
        let (reset, start) = (Arc::default(), Instant::now());
        FaultyBody { inner, fault: None, reset, passed: 0, start, pause: None, meter, way }
    }

    /// Adds a fault. `reset` is set if the connection must end with a reset.
    #[must_use]
    pub fn with(self, fault: Fault, reset: Arc<AtomicBool>) -> FaultyBody<B> {
        FaultyBody { fault: Some(fault), reset, ..self }
    }

    /// Applies the fault to the next piece; `None` if the body ends before it.
    fn spoil(&mut self, piece: Bytes) -> Option<Bytes> {
        let start = self.passed;
        self.passed += piece.len() as u64;
        if let Some(over) = self.meter.pass(self.way, piece.len() as u64) {
            self.pause = Some(Box::pin(tokio::time::sleep_until(over.into())));
        }
        match self.fault {
            Some(Fault::Reset(after) | Fault::Truncate(after)) => {
                let left = usize::try_from(after.saturating_sub(start)).unwrap_or(usize::MAX);
                if left == 0 { None } else { Some(piece.slice(..piece.len().min(left))) }
            }
            Some(Fault::Corrupt(at)) if (start..self.passed).contains(&at) => {
                let mut piece = BytesMut::from(&piece[..]);
                piece[usize::try_from(at - start).unwrap_or_default()] ^= 1;
                Some(piece.freeze())
            }
            Some(Fault::Slow(rate)) => {
                let due = Duration::from_secs_f64(self.passed as f64 / rate as f64);
                self.pause = Some(Box::pin(tokio::time::sleep(due.saturating_sub(self.start.elapsed()))));
                Some(piece)
            }
            _ => Some(piece),
        }
    }
}

impl<B> Body for FaultyBody<B>
where
    B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Unpin,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Err(trailers) => Poll::Ready(Some(Ok(trailers))),
            Ok(piece) => match self.spoil(piece) {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                None => {
                    if matches!(self.fault, Some(Fault::Reset(_))) {
                        self.reset.store(true, Ordering::SeqCst);
                    }
                    Poll::Ready(Some(Err(io::Error::other("cut off on purpose"))))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
