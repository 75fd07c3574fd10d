//! Content that can be read: from the store, from a running download, or directly from the bucket.
//! If this node's disk fails half way, the rest is read from the bucket.

use super::Shared;
use super::failure::Failure;
use super::fill::{Fill, Phase};
use super::pass_through;
use super::reader::Reader;
use crate::store::StoredContent;
use bytes::Bytes;
use entrepot_bucket::Object;
use entrepot_oci::Digest;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::watch;

/// Content that can be read now.
pub struct Content {
    /// Size in bytes.
    pub size: u64,
    pub(super) digest: Digest,
    pub(super) shared: Arc<Shared>,
    pub(super) source: ReadFrom,
}

/// Where content is read from.
pub(super) enum ReadFrom {
    Stored(StoredContent),
    /// Complete and verified in memory, perhaps not stored yet.
    InMemory {
        bytes: Bytes,
        /// This request started the download.
        new: bool,
    },
    Filling {
        fill: Arc<Fill>,
        phase: watch::Receiver<Phase>,
        /// This request started the download.
        new: bool,
    },
    /// Not stored. The response to a request for the beginning may already be open.
    PassThrough(Option<Object>),
}

impl ReadFrom {
    /// The source for one of several reads. An open response is not passed on: it occupies a
    /// request to the bucket and would be held until the last read.
    fn another(&self) -> ReadFrom {
        match self {
            ReadFrom::Stored(content) => ReadFrom::Stored(content.clone()),
            ReadFrom::InMemory { bytes, new } => ReadFrom::InMemory { bytes: bytes.clone(), new: *new },
            ReadFrom::Filling { fill, phase, new } => {
                ReadFrom::Filling { fill: fill.clone(), phase: phase.clone(), new: *new }
            }
            ReadFrom::PassThrough(_) => ReadFrom::PassThrough(None),
        }
    }
}

impl Content {
    /// The bytes of several ranges, as [`Content::read`] returns them. Each read starts when the
    /// iterator reaches it.
    pub fn read_each(
        self,
        ranges: Vec<Range<u64>>,
    ) -> impl Iterator<Item = BoxStream<'static, io::Result<Bytes>>> + Send + use<> {
        let Content { size, digest, shared, source } = self;
        let source = source.another();
        ranges
            .into_iter()
            .map(move |range| Content { size, digest, shared: shared.clone(), source: source.another() }.read(range))
    }

    /// The bytes of a range that is within the content. The stream ends early, with an error, if
    /// the content turns out not to match its digest.
    pub fn read(self, range: Range<u64>) -> BoxStream<'static, io::Result<Bytes>> {
        let Content { size, digest, shared, source } = self;
        let mut serving = Serving { shared, digest, size, at: range.start, range, from: From::Nothing };
        let result = serving.begin(source);
        serving.shared.parts.env.metrics.fetches.with_label_values(&[result]).inc();
        stream::try_unfold(serving, Serving::step).boxed()
    }
}

/// A range being served.
struct Serving {
    shared: Arc<Shared>,
    digest: Digest,
    size: u64,
    range: Range<u64>,
    /// Position of the next byte.
    at: u64,
    from: From,
}

enum From {
    Nothing,
    Store(BoxStream<'static, io::Result<Bytes>>),
    /// The whole range.
    Memory(Bytes),
    Fill(Box<Reader>),
    Bucket(BoxStream<'static, Result<Bytes, Failure>>),
}

impl From {
    fn name(&self) -> &'static str {
        match self {
            From::Nothing | From::Store(_) => "store",
            From::Memory(_) | From::Fill(_) => "fill",
            From::Bucket(_) => "bucket",
        }
    }
}

impl Serving {
    /// Chooses where the range is read from. Returns the result of the fetch, for the metric.
    fn begin(&mut self, source: ReadFrom) -> &'static str {
        match source {
            ReadFrom::Stored(content) => {
                self.from = From::Store(content.stream(self.range.clone()));
                "hit"
            }
            ReadFrom::InMemory { bytes, new } => {
                let offset = |at| usize::try_from(at).unwrap_or(usize::MAX);
                self.from = From::Memory(bytes.slice(offset(self.range.start)..offset(self.range.end)));
                if new { "fill" } else { "joined" }
            }
            ReadFrom::Filling { fill, phase, new } if fill.is_near(self.at) => {
                self.from = From::Fill(Box::new(Reader::new(fill, phase)));
                if new { "fill" } else { "joined" }
            }
            // Far ahead of the download: the range is requested at once, and the download
            // continues.
            ReadFrom::Filling { .. } => {
                self.pass_through(None);
                "through"
            }
            ReadFrom::PassThrough(opened) => {
                self.pass_through(opened);
                "through"
            }
        }
    }

    /// Continues from the bucket. Whole content is read from its first byte, even if a part was
    /// already sent, because it must be verified.
    fn pass_through(&mut self, opened: Option<Object>) {
        let origin = self.shared.origin(&self.digest);
        let background = self.shared.parts.background.clone();
        let opened = |at| opened.filter(|object| object.range.start == at);
        self.from = From::Bucket(if self.range == (0..self.size) {
            pass_through::whole(&origin, background, self.digest, self.size, self.at, opened(0))
        } else {
            pass_through::part(&origin, self.size, self.at..self.range.end, opened(self.at))
        });
    }

    async fn step(mut self) -> io::Result<Option<(Bytes, Serving)>> {
        while self.at < self.range.end {
            match self.piece().await {
                Ok(bytes) => {
                    self.at += bytes.len() as u64;
                    let served = &self.shared.parts.env.metrics.served_bytes;
                    served.with_label_values(&[self.from.name()]).inc_by(bytes.len() as u64);
                    return Ok(Some((bytes, self)));
                }
                Err(Failure::Local(error)) if !matches!(self.from, From::Bucket(_)) => {
                    let (digest, at) = (&self.digest, self.at);
                    tracing::warn!(%digest, at, %error, "local disk failed; reading from the bucket");
                    self.pass_through(None);
                }
                Err(failure) => {
                    if let (Failure::Mismatch(version), From::Bucket(_)) = (&failure, &self.from) {
                        self.shared.mismatch(&self.digest, version.clone());
                    }
                    return Err(failure.into_io(&self.digest));
                }
            }
        }
        Ok(None)
    }

    /// The next bytes, at least one.
    async fn piece(&mut self) -> Result<Bytes, Failure> {
        let ended = || Failure::from(io::Error::from(io::ErrorKind::UnexpectedEof));
        match &mut self.from {
            From::Nothing => Err(ended()),
            From::Store(stream) => Ok(stream.next().await.ok_or_else(ended)??),
            From::Memory(bytes) => Ok(std::mem::take(bytes)),
            From::Fill(reader) => reader.next(self.at, self.range.end).await,
            From::Bucket(stream) => stream.next().await.ok_or_else(ended)?,
        }
    }
}
