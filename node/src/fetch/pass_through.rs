//! Pass-through: content directly from the bucket to a reader, without the store.

use super::failure::Failure;
use super::origin::Origin;
use bytes::{Buf, Bytes};
use entrepot_bucket::Object;
use entrepot_oci::{Digest, Hasher};
use entrepot_runtime::BackgroundBlocking;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use std::io;
use std::ops::Range;

/// Larger pieces are hashed off the async threads. Hashing this many bytes takes tens of
/// microseconds.
const HASHED_INLINE: usize = 64 << 10;

/// A range of the content, unverified, because a part cannot be checked against the digest of the
/// whole.
pub(super) fn part(
    origin: &Origin,
    size: u64,
    range: Range<u64>,
    opened: Option<Object>,
) -> BoxStream<'static, Result<Bytes, Failure>> {
    origin.bytes(size, range, opened)
}

/// The content from `from` to its end, verified from its first byte. The last piece is returned
/// only if the digest of the whole content matches.
pub(super) fn whole(
    origin: &Origin,
    background: BackgroundBlocking,
    digest: Digest,
    size: u64,
    from: u64,
    opened: Option<Object>,
) -> BoxStream<'static, Result<Bytes, Failure>> {
    if let Some(object) = &opened {
        origin.read_of(&object.meta);
    }
    let body = origin.bytes(size, 0..size, opened);
    let passing = Passing {
        origin: origin.clone(),
        body,
        background,
        digest,
        size,
        from,
        at: 0,
        hasher: Hasher::new(digest.algorithm()),
    };
    stream::try_unfold(passing, Passing::step).boxed()
}

struct Passing {
    origin: Origin,
    body: BoxStream<'static, Result<Bytes, Failure>>,
    background: BackgroundBlocking,
    digest: Digest,
    size: u64,
    from: u64,
    at: u64,
    hasher: Hasher,
}

impl Passing {
    async fn step(mut self) -> Result<Option<(Bytes, Passing)>, Failure> {
        while let Some(mut piece) = self.body.try_next().await? {
            self.hasher = hashed(&self.background, self.hasher, piece.clone()).await?;
            let start = self.at;
            self.at += piece.len() as u64;
            if self.at == self.size && self.hasher.clone().finish() != self.digest {
                return Err(self.origin.mismatch());
            }
            if self.at > self.from {
                piece.advance(usize::try_from(self.from.saturating_sub(start)).unwrap_or_default());
                return Ok(Some((piece, self)));
            }
        }
        Ok(None)
    }
}

async fn hashed(background: &BackgroundBlocking, mut hasher: Hasher, piece: Bytes) -> io::Result<Hasher> {
    if piece.len() <= HASHED_INLINE {
        hasher.update(&piece);
        return Ok(hasher);
    }
    let work = background.run(move || {
        hasher.update(&piece);
        hasher
    });
    work.await
}
