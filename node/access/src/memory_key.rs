//! What caches keep instead of secrets.

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// A random key of this process. Caches know a secret by its HMAC under this key, so that memory
/// that leaks does not contain the secret, and nobody can compute which secrets collide.
pub(crate) struct MemoryKey(hmac::Key);

impl MemoryKey {
    /// `None` if the system provides no random bytes.
    pub(crate) fn new() -> Option<MemoryKey> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).ok()?;
        Some(MemoryKey(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The hash of some texts. Their lengths are part of it: `("a", "bc")` is not `("ab", "c")`.
    pub(crate) fn hash(&self, texts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for text in texts {
            context.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(text);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(context.sign().as_ref());
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_depends_on_where_one_text_ends_and_on_the_process() {
        let (one, other) = (MemoryKey::new().unwrap(), MemoryKey::new().unwrap());
        assert_eq!(one.hash(&[b"ab", b"c"]), one.hash(&[b"ab", b"c"]));
        assert_ne!(one.hash(&[b"ab", b"c"]), one.hash(&[b"a", b"bc"]));
        assert_ne!(one.hash(&[b"ab", b"c"]), other.hash(&[b"ab", b"c"]));
    }
}
