//! Tokens whose signature was verified, so that each request of a client does not verify it again.
//! `token` and `oidc` keep what such a token says.

use crate::memory_key::MemoryKey;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// The most tokens that are remembered.
const MAX_TOKENS: u64 = 10_000;

/// The most memory for them, estimated.
const MAX_BYTES: u64 = 16 << 20;

/// The bytes of an entry without the text of its token.
const ENTRY: u64 = 512;

/// What verified tokens say.
pub(crate) struct Verified<T> {
    key: MemoryKey,
    cache: Cache<[u8; 32], Entry<T>, Weight>,
}

#[derive(Clone)]
struct Entry<T> {
    valid: T,
    length: usize,
}

#[derive(Clone)]
struct Weight;

impl<T> Weighter<[u8; 32], Entry<T>> for Weight {
    /// The claims of a token take about twice the memory of its text. No entry weighs less than its
    /// share, so that the number of entries is bounded too.
    fn weight(&self, _: &[u8; 32], entry: &Entry<T>) -> u64 {
        let bytes = ENTRY + 2 * u64::try_from(entry.length).unwrap_or(u64::MAX / 4);
        bytes.max(MAX_BYTES.div_ceil(MAX_TOKENS))
    }
}

/// The place of one token.
pub(crate) struct Place<'a, T> {
    verified: &'a Verified<T>,
    key: [u8; 32],
    length: usize,
}

impl<T: Clone> Verified<T> {
    /// `None` if the system provides no random bytes.
    pub(crate) fn new() -> Option<Verified<T>> {
        let tokens = usize::try_from(MAX_TOKENS).unwrap_or(usize::MAX);
        Some(Verified { key: MemoryKey::new()?, cache: Cache::with_weighter(tokens, MAX_BYTES, Weight) })
    }

    /// The token itself is not kept.
    pub(crate) fn of(&self, token: &str) -> Place<'_, T> {
        Place { verified: self, key: self.key.hash(&[token.as_bytes()]), length: token.len() }
    }

    pub(crate) fn forget(&self) {
        self.cache.clear();
    }
}

impl<T: Clone> Place<'_, T> {
    pub(crate) fn get(&self) -> Option<T> {
        self.verified.cache.get(&self.key).map(|entry| entry.valid)
    }

    pub(crate) fn insert(&self, valid: T) {
        self.verified.cache.insert(self.key, Entry { valid, length: self.length });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_tokens_and_their_memory_are_bounded() {
        let (short, long) = (Verified::new().unwrap(), Verified::new().unwrap());
        for number in 0..12_000 {
            short.of(&number.to_string()).insert(());
        }
        for number in 0..3_000 {
            long.of(&format!("{number:08000}")).insert(());
        }
        assert!(short.cache.len() <= 10_000 && short.cache.len() > 5_000, "{}", short.cache.len());
        assert!(long.cache.len() < 1_100 && long.cache.weight() <= MAX_BYTES, "{}", long.cache.len());
        short.forget();
        assert!(short.cache.is_empty());
    }
}
