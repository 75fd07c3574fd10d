//! The bodies that the handlers read and write.

use crate::http::pace::{Pace, PaceLimit};
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

/// The body of a request, as a stream and as a body to forward. If the client sends too slowly while
/// it is being read, the stream fails with `TimedOut`. Time in which nothing reads the body does not
/// count.
pub struct RequestBody<B = Body> {
    inner: B,
    pace: Pace,
}

impl<B> RequestBody<B> {
    pub fn new(inner: B, limit: PaceLimit) -> RequestBody<B> {
        RequestBody { inner, pace: Pace::new(limit) }
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
            let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
            this.pace.moved(bytes);
            return Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)));
        }
        ready!(this.pace.poll_too_slow(cx));
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
    use std::time::Duration;

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
        let mut body = RequestBody::new(StreamBody::new(Box::pin(slow)), PaceLimit::new(Duration::from_secs(10), 0));
        for _ in 0..3 {
            assert_eq!(body.next().await.unwrap().unwrap(), "x");
            // Time in which the server is busy does not count against the client.
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        assert_eq!(body.next().await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_client_that_sends_byte_by_byte_is_cut_off() {
        let slow = futures::stream::unfold((), |()| async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Some((Ok::<_, io::Error>(Frame::data(Bytes::from_static(b"x"))), ()))
        });
        let limit = PaceLimit::new(Duration::from_millis(200), 10_000);
        let mut body = RequestBody::new(StreamBody::new(Box::pin(slow)), limit);
        let received = async { while body.next().await.is_some_and(|piece| piece.is_ok()) {} };
        tokio::time::timeout(Duration::from_secs(60), received).await.expect("the client is cut off");
    }
}
