//! Request and response bodies of S3: never whole in memory, never copied, and never stalled
//! forever.

use super::errors::{Failed, Unanswered, chain};
use super::{BucketError, BucketErrorKind, Operation};
use crate::Key;
use crate::{BodyStream, PutBody, READ_SIZE, file_pieces};
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use entrepot_runtime::tasks::blocking;
use futures::{Stream, StreamExt};
use http_body::{Body, Frame, SizeHint};
use std::error::Error;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send + Sync>>;

/// The body of a put, with its file opened.
pub(super) struct Outgoing {
    body: SdkBody,
    sending: Sending,
}

/// Watches the progress of a body.
pub(super) struct Sending {
    /// `None` for a small body, which is sent in one piece and signed.
    progress: Option<Arc<Progress>>,
}

#[derive(Default)]
struct Progress {
    sent: AtomicU64,
    /// Whether the local file failed, rather than S3.
    local_failure: AtomicBool,
}

impl Outgoing {
    pub(super) async fn open(operation: Operation, key: &Key, body: &PutBody) -> Result<Outgoing, Failed> {
        let pieces: Pieces = match body {
            // The body is signed with its hash, which costs nothing at this size and lets S3 detect
            // damage in transit.
            PutBody::Bytes(bytes) if bytes.len() <= READ_SIZE => {
                return Ok(Outgoing { body: SdkBody::from(bytes.clone()), sending: Sending { progress: None } });
            }
            PutBody::Bytes(bytes) => Box::pin(slices(bytes.clone())),
            PutBody::File { path, range, .. } => {
                let (path, end) = (path.clone(), range.end);
                let opened = blocking(move || open(&path, end)).await.and_then(|opened| opened);
                let unreadable =
                    |error| Failed::new(operation, key.as_str(), BucketErrorKind::LocalFile).because(error);
                Box::pin(file_pieces(Arc::new(opened.map_err(unreadable)?), range.clone()))
            }
        };
        let progress = Arc::new(Progress::default());
        let watched = Watched { pieces, left: body.len(), progress: progress.clone() };
        Ok(Outgoing { body: SdkBody::from_body_1_x(watched), sending: Sending { progress: Some(progress) } })
    }

    pub(super) fn into_parts(self) -> (ByteStream, Sending) {
        (ByteStream::new(self.body), self.sending)
    }
}

fn open(path: &std::path::Path, end: u64) -> io::Result<File> {
    let file = File::open(path)?;
    // Checked before the request starts, because S3 would wait for the missing rest.
    if file.metadata()?.len() < end { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(file) }
}

/// Views of bytes that are in memory anyway.
fn slices(mut bytes: Bytes) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync {
    futures::stream::iter(std::iter::from_fn(move || {
        let piece = bytes.split_to(bytes.len().min(READ_SIZE));
        (!piece.is_empty()).then_some(Ok(piece))
    }))
}

impl Sending {
    /// Whether the body is sent unsigned, because signing requires its hash before the first byte.
    pub(super) fn is_streamed(&self) -> bool {
        self.progress.is_some()
    }

    fn sent(&self) -> u64 {
        self.progress.as_ref().map_or(0, |progress| progress.sent.load(Ordering::Relaxed))
    }

    /// Waits for the response for as long as the body makes progress. `patience` limits the time
    /// without a byte; the timeout may come as late as twice that time.
    pub(super) async fn watch<T, E: Unanswered>(
        &self,
        patience: Duration,
        operation: Operation,
        key: &Key,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failed> {
        let mut request = std::pin::pin!(request);
        loop {
            let before = self.sent();
            match tokio::time::timeout(patience, &mut request).await {
                Ok(Err(error)) => return Err(self.blame(error.failed(operation, key.as_str()))),
                Ok(Ok(answer)) => return Ok(answer),
                Err(_) if self.sent() == before => return Err(Failed::timeout(operation, key.as_str())),
                Err(_) => {}
            }
        }
    }

    fn blame(&self, mut failed: Failed) -> Failed {
        if self.progress.as_ref().is_some_and(|progress| progress.local_failure.load(Ordering::Relaxed)) {
            failed.error.kind = BucketErrorKind::LocalFile;
        }
        failed
    }
}

/// A body whose progress can be observed.
struct Watched {
    pieces: Pieces,
    left: u64,
    progress: Arc<Progress>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let piece = match ready!(self.pieces.as_mut().poll_next(context)) {
            None => return Poll::Ready(None),
            Some(Ok(piece)) => piece,
            Some(Err(error)) => {
                self.progress.local_failure.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err(error)));
            }
        };
        self.left = self.left.saturating_sub(piece.len() as u64);
        self.progress.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// The body of a get, in the pieces in which it arrives. It fails if no byte arrives for
/// `patience`, and if it is shorter or longer than announced.
pub(super) fn incoming(key: &Key, body: ByteStream, length: u64, patience: Duration) -> BodyStream {
    let failed = {
        let key = key.clone();
        move |kind| BucketError::new(Operation::Get, key.as_str(), kind)
    };
    // The state is `None` after a failure, which ends the stream.
    let pieces = futures::stream::unfold(Some((body, length)), move |state| {
        let failed = failed.clone();
        async move {
            let (mut body, left) = state?;
            let piece = match tokio::time::timeout(patience, body.next()).await {
                Err(_) => Err(failed(BucketErrorKind::Timeout)),
                Ok(None) if left == 0 => return None,
                Ok(None) => Err(failed(BucketErrorKind::Truncated)),
                Ok(Some(Err(error))) => Err(failed(broken(&error)).because(error)),
                Ok(Some(Ok(piece))) if piece.len() as u64 > left => {
                    Err(failed(BucketErrorKind::Server).because("the response body is longer than announced"))
                }
                Ok(Some(Ok(piece))) => Ok(piece),
            };
            let rest = piece.as_ref().ok().map(|piece| (body, left - piece.len() as u64));
            Some((piece, rest))
        }
    });
    pieces.boxed()
}

/// The kind of the error that ended a body.
fn broken(error: &(dyn Error + 'static)) -> BucketErrorKind {
    let ended = chain(error).any(|cause| {
        cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message)
            || cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::UnexpectedEof)
    });
    if ended { BucketErrorKind::Truncated } else { BucketErrorKind::Connection }
}
