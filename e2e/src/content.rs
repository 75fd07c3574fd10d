//! Content of any size that costs no memory. The same seed gives the same bytes each time.

use bytes::Bytes;
use entrepot_oci::digest::Hasher;
use entrepot_oci::{Algorithm, Digest};
use futures::Stream;
use rand::{RngCore, SeedableRng, rngs::SmallRng};
use std::ops::Range;
use std::sync::OnceLock;

/// Content consists of blocks of this size. All blocks share the same bytes, except the first
/// bytes, which contain the seed and the block's number.
const BLOCK: usize = 1 << 20;
const HEAD: usize = 16;

/// Content that is generated while it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    seed: u64,
    pub size: u64,
    pub digest: Digest,
}

impl Content {
    /// Content of `size` bytes; another seed gives other content. Computes the digest by hashing
    /// all bytes.
    pub fn new(seed: u64, size: u64) -> Content {
        Content::hashed_by(Algorithm::Sha256, seed, size)
    }

    /// The same with another digest algorithm.
    pub fn hashed_by(algorithm: Algorithm, seed: u64, size: u64) -> Content {
        let mut hasher = Hasher::new(algorithm);
        blocks(seed, 0..size).for_each(|piece| hasher.update(&piece));
        Content { seed, size, digest: hasher.finish() }
    }

    /// New content from a random seed.
    pub fn fresh(size: u64) -> Content {
        Content::new(rand::random(), size)
    }

    /// The bytes of a range, in pieces of at most 1 MiB.
    pub fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = Bytes> + Send + 'static {
        blocks(self.seed, range.start.min(self.size)..range.end.min(self.size))
    }

    /// The bytes of a range as a stream.
    pub fn stream(&self, range: Range<u64>) -> impl Stream<Item = Bytes> + Send + 'static {
        futures::stream::iter(self.pieces(range))
    }

    /// All bytes at once, for small content.
    pub fn bytes(&self) -> Bytes {
        self.pieces(0..self.size)
            .fold(Vec::new(), |mut all, piece| {
                all.extend_from_slice(&piece);
                all
            })
            .into()
    }
}

/// The pieces of a range. Each piece is within one block.
fn blocks(seed: u64, range: Range<u64>) -> impl Iterator<Item = Bytes> + Send + 'static {
    let mut at = range.start;
    std::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let (block, within) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
        let most = usize::try_from(range.end - at).unwrap_or(usize::MAX);
        // The head is a piece of its own, so that the rest can be a slice of the shared block
        // without a copy.
        let piece = if within < HEAD {
            Bytes::copy_from_slice(&head(seed, block)[within..]).slice(..most.min(HEAD - within))
        } else {
            shared().slice(within..BLOCK.min(within.saturating_add(most)))
        };
        at += piece.len() as u64;
        Some(piece)
    })
}

fn head(seed: u64, block: u64) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(&seed.to_le_bytes());
    head[8..].copy_from_slice(&block.to_le_bytes());
    head
}

/// The shared bytes are random, so that nothing on the way can compress them.
fn shared() -> &'static Bytes {
    static SHARED: OnceLock<Bytes> = OnceLock::new();
    SHARED.get_or_init(|| {
        let mut block = vec![0; BLOCK];
        SmallRng::seed_from_u64(1).fill_bytes(&mut block);
        block.into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_the_same_bytes_as_the_whole_content() {
        let content = Content::new(7, 3 * BLOCK as u64 + 5);
        let whole = content.bytes();
        assert_eq!(whole.len() as u64, content.size);
        assert_eq!(Digest::of(Algorithm::Sha256, &whole), content.digest);
        for range in [0..1, 3..40, 1_048_570..1_048_600, 2_000_000..3_145_733, 5..5] {
            let part: Vec<u8> = content.pieces(range.clone()).flatten().collect();
            assert_eq!(part, whole[range.start as usize..range.end as usize], "{range:?}");
        }
    }

    #[test]
    fn another_seed_gives_other_content() {
        assert_ne!(Content::new(1, 100).digest, Content::new(2, 100).digest);
    }
}
