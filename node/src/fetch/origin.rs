//! An object of a source, read so that failures do not show. A body that fails is resumed at the byte
//! it reached, until the retry budget passes without one more byte.

use super::failure::Failure;
use super::source::Source;
use bytes::Bytes;
use entrepot_bucket::{BodyStream, BucketError, BucketErrorKind, Object, ObjectMeta};
use entrepot_runtime::clock::Stopwatch;
use entrepot_runtime::retry;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// One object. Cheap to clone.
#[derive(Clone)]
pub(super) struct Origin {
    source: Arc<dyn Source>,
    retry_budget: Duration,
    stall_timeout: Duration,
    versions: Arc<Mutex<Versions>>,
}

/// The versions of the object that were read so far.
#[derive(Debug, Default)]
enum Versions {
    #[default]
    None,
    One(ObjectMeta),
    Several,
}

impl Origin {
    pub(super) fn new(source: Arc<dyn Source>, retry_budget: Duration, stall_timeout: Duration) -> Origin {
        Origin { source, retry_budget, stall_timeout, versions: Arc::default() }
    }

    /// The same object, read on the background runtime.
    pub(super) fn in_background(&self) -> Origin {
        Origin { source: self.source.in_background(), ..self.clone() }
    }

    /// The object's metadata.
    pub(super) async fn head(&self) -> Result<ObjectMeta, Failure> {
        self.source.head().await
    }

    /// Requests the object or a range of it, in one request. [`Origin::bytes`] reads the body.
    pub(super) async fn open(&self, range: Option<Range<u64>>) -> Result<Object, Failure> {
        let object = self.source.open(range).await?;
        self.read_of(&object.meta);
        Ok(object)
    }

    /// Records that a response of this version is read.
    pub(super) fn read_of(&self, version: &ObjectMeta) {
        let mut versions = self.versions.lock();
        *versions = match &*versions {
            Versions::One(before) if before == version => return,
            Versions::None => Versions::One(version.clone()),
            Versions::One(_) | Versions::Several => Versions::Several,
        };
    }

    /// The failure for content that does not match the digest.
    pub(super) fn mismatch(&self) -> Failure {
        let versions = self.versions.lock();
        Failure::Mismatch(if let Versions::One(version) = &*versions { Some(version.clone()) } else { None })
    }

    /// The bytes of a range of the object, whose total size is `size`: never more, and fewer only
    /// with an error. `opened` is an open response that begins at the start of the range and saves
    /// its request.
    pub(super) fn bytes(
        &self,
        size: u64,
        range: Range<u64>,
        opened: Option<Object>,
    ) -> BoxStream<'static, Result<Bytes, Failure>> {
        let reading = Reading {
            origin: self.clone(),
            size,
            at: range.start,
            end: range.end,
            body: opened.map(|object| (object.range.end, object.body)),
            failing: None,
        };
        stream::try_unfold(reading, Reading::step).boxed()
    }

    /// Requests the rest of an object of which a part was already read.
    async fn reopen(&self, size: u64, range: Range<u64>) -> Result<(u64, BodyStream), Failure> {
        let start = range.start;
        let object = self.open(Some(range)).await?;
        if object.meta.size != size || object.range.start != start {
            let error = self.error(BucketErrorKind::Refused);
            return Err(error.because("the object was replaced while it was being read").into());
        }
        Ok((object.range.end, object.body))
    }

    pub(super) fn error(&self, kind: BucketErrorKind) -> BucketError {
        self.source.error(kind)
    }
}

/// The position of a read.
struct Reading {
    origin: Origin,
    size: u64,
    at: u64,
    end: u64,
    /// The current body, and the offset at which it ends.
    body: Option<(u64, BodyStream)>,
    /// The time since the first failure after the last byte, and the pauses between attempts.
    failing: Option<(Stopwatch, Box<dyn Iterator<Item = Duration> + Send>)>,
}

impl Reading {
    async fn step(mut self) -> Result<Option<(Bytes, Reading)>, Failure> {
        while self.at < self.end {
            match self.piece().await {
                Ok(None) => self.body = None,
                Ok(Some(mut piece)) => {
                    piece.truncate(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
                    self.at += piece.len() as u64;
                    self.failing = None;
                    return Ok(Some((piece, self)));
                }
                Err(failure) => {
                    self.body = None;
                    self.pause_after(failure).await?;
                }
            }
        }
        Ok(None)
    }

    /// The next non-empty piece. `None` if the body ended at its expected end.
    async fn piece(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.body.is_none() {
            self.body = Some(self.origin.reopen(self.size, self.at..self.end).await?);
        }
        let Some((body_end, body)) = &mut self.body else { return Ok(None) };
        loop {
            match tokio::time::timeout(self.origin.stall_timeout, body.next()).await {
                Ok(Some(Ok(piece))) if piece.is_empty() => {}
                Ok(Some(Ok(piece))) => return Ok(Some(piece)),
                Ok(Some(Err(error))) => return Err(error.into()),
                Ok(None) if self.at >= *body_end => return Ok(None),
                Ok(None) => return Err(self.origin.error(BucketErrorKind::Truncated).into()),
                Err(_) => return Err(self.origin.error(BucketErrorKind::Timeout).into()),
            }
        }
    }

    /// Waits before the next attempt, or returns the failure.
    async fn pause_after(&mut self, failure: Failure) -> Result<(), Failure> {
        let Failure::Bucket(error) = &failure else { return Err(failure) };
        let (since, pauses) = self.failing.get_or_insert_with(|| (Stopwatch::start(), Box::new(retry::pauses())));
        let pause = pauses.next().unwrap_or_default();
        if !error.is_transient() || since.elapsed() + pause > self.origin.retry_budget {
            return Err(failure);
        }
        tracing::debug!(%error, at = self.at, "the body of a response broke off; resuming at the byte it reached");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}
