//! The bodies that the handlers read and write.

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// A response without a body.
pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// A body of exactly `length` bytes. If the stream ends early or fails, the connection is closed,
/// so that the client never accepts a short body as complete.
pub fn exactly(length: u64, bytes: BoxStream<'static, io::Result<Bytes>>) -> Body {
    Body::new(Exact { bytes, left: length })
}

struct Exact {
    bytes: BoxStream<'static, io::Result<Bytes>>,
    left: u64,
}

impl HttpBody for Exact {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        Poll::Ready(match ready!(self.bytes.poll_next_unpin(cx)) {
            Some(Ok(piece)) => {
                self.left = self.left.saturating_sub(piece.len() as u64);
                Some(Ok(Frame::data(piece)))
            }
            Some(Err(error)) => Some(Err(error)),
            None if self.left > 0 => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The body of a request, as a stream and as a body to forward. If the client sends nothing for the
/// stall time while it is being read, the stream fails with `TimedOut`. Time in which nothing reads
/// the body does not count.
pub struct RequestBody<B = Body> {
    inner: B,
    stall: Duration,
    /// Runs while a read waits for the client.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<B> RequestBody<B> {
    pub fn new(inner: B, stall: Duration) -> RequestBody<B> {
        RequestBody { inner, stall, waiting: None }
    }
}

impl<B> HttpBody for RequestBody<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            this.waiting = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)));
        }
        let stall = this.stall;
        let timer = this.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> futures::Stream for RequestBody<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            match ready!(self.as_mut().poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                // A registry ignores trailers.
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, StreamBody};

    #[tokio::test]
    async fn a_stream_that_ends_early_fails_and_is_not_taken_for_whole() {
        let pieces = futures::stream::iter([Ok(Bytes::from_static(b"abc"))]);
        assert!(exactly(4, pieces.boxed()).collect().await.is_err());
        let pieces = futures::stream::iter([Ok(Bytes::from_static(b"abc"))]);
        assert_eq!(exactly(3, pieces.boxed()).collect().await.unwrap().to_bytes(), "abc");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_nothing_is_cut_off_after_the_stall_time_and_no_sooner() {
        let slow = futures::stream::unfold(0, |sent| async move {
            tokio::time::sleep(Duration::from_secs(if sent < 3 { 9 } else { 11 })).await;
            Some((Ok::<_, io::Error>(Frame::data(Bytes::from_static(b"x"))), sent + 1))
        });
        let mut body = RequestBody::new(StreamBody::new(Box::pin(slow)), Duration::from_secs(10));
        for _ in 0..3 {
            assert_eq!(body.next().await.unwrap().unwrap(), "x");
            // Time in which the server is busy does not count against the client.
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        assert_eq!(body.next().await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
