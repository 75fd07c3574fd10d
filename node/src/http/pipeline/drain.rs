//! Request data that arrives after the response was sent.
//!
//! If a connection is closed while data is unread, TCP resets it, and the reset can destroy the
//! response before the client reads it. A client that sends a chunk out of order would see a broken
//! pipe instead of the 416 response with the offset to resume at. So the unread data is read and
//! discarded, within limits.

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use entrepot_runtime::tasks;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// The most bytes that are discarded; a client that sends more is disconnected. S3 clients and
/// registry clients send chunks of up to this size.
const BYTES: usize = 64 << 20;
/// The longest time for which data is discarded; nginx's `lingering_timeout` is also 5 s.
const TIME: Duration = Duration::from_secs(5);

/// Reads and discards what nobody reads of the request's body.
pub fn unread_data(request: Request) -> Request {
    request.map(|body| Body::new(DrainOnDrop::new(body)))
}

/// The body of a request. When it is dropped, the rest of the data is read and discarded.
struct DrainOnDrop {
    inner: Option<Body>,
}

impl DrainOnDrop {
    fn new(inner: Body) -> DrainOnDrop {
        DrainOnDrop { inner: Some(inner) }
    }
}

impl HttpBody for DrainOnDrop {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let frame = Pin::new(inner).poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = frame {
            self.inner = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for DrainOnDrop {
    fn drop(&mut self) {
        if let Some(body) = self.inner.take().filter(|body| !body.is_end_stream()) {
            tasks::brief(TIME, discard(body));
        }
    }
}

async fn discard(mut body: Body) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > BYTES {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{StreamExt, stream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A body of `count` pieces, and the number of pieces that were read.
    fn pieces(count: usize, size: usize) -> (Body, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = taken.clone();
        let pieces = stream::iter(0..count).map(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok::<_, std::io::Error>(Bytes::from(vec![0; size]))
        });
        (Body::from_stream(pieces), taken)
    }

    #[tokio::test]
    async fn an_unread_body_is_discarded() {
        let (body, taken) = pieces(10, 1000);
        let mut body = DrainOnDrop::new(body);
        body.frame().await.unwrap().unwrap();
        drop(body);
        entrepot_runtime::testing::eventually("the whole body is read", || taken.load(Ordering::SeqCst) == 10).await;
    }

    #[tokio::test]
    async fn a_client_that_sends_far_too_much_is_disconnected() {
        let (body, taken) = pieces(1000, 1 << 20);
        drop(DrainOnDrop::new(body));
        entrepot_runtime::testing::eventually("the allowed amount is read", || taken.load(Ordering::SeqCst) > 64).await;
        assert_eq!(taken.load(Ordering::SeqCst), 65);
    }
}
