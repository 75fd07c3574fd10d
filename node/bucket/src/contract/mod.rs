//! The contract of every bucket: one behaviour suite, run against each implementation and through
//! the decorators.
//!
//! It uses only what the flows use, and defines in one place what they may rely on. Each case works
//! below its own prefix, so the suite can run in a bucket that is not empty, and repeatedly in the
//! same one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "these are tests, for other crates too")]

mod checksums;
mod list;
mod multipart;
mod objects;
mod versions;

use super::{Bucket, BucketError, Checksum, Get, GetOptions, ListOptions, Object, Page, Put, PutBody, PutMode};
use crate::Key;
use bytes::Bytes;
use futures::FutureExt;
use futures::StreamExt;
use futures::future::BoxFuture;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

/// Time limit of one case. The longest sends 64 MiB, and lists a thousand keys that it put one by
/// one.
const PATIENCE: Duration = Duration::from_secs(180);

/// A case, and the name under which its failure is reported.
type Case = (&'static str, fn(Place) -> BoxFuture<'static, ()>);

fn all() -> impl Iterator<Item = &'static Case> {
    [objects::CASES, versions::CASES, checksums::CASES, multipart::CASES, list::CASES].into_iter().flatten()
}

/// Runs every case below `prefix`, which is empty or ends with `/`.
///
/// # Panics
/// If a case fails, with the names of all failed cases.
pub async fn holds(bucket: Arc<dyn Bucket>, prefix: &str) {
    let mut failed = Vec::new();
    for (name, case) in all() {
        let place = Place { bucket: bucket.clone(), prefix: format!("{prefix}{}/", name.replace(' ', "-")) };
        // The panic message is printed when it happens; the name of its case is printed at the end.
        match tokio::time::timeout(PATIENCE, AssertUnwindSafe(case(place)).catch_unwind()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => failed.push((*name).to_owned()),
            Err(_) => failed.push(format!("{name} (took longer than {PATIENCE:?})")),
        }
    }
    assert!(failed.is_empty(), "the bucket does not keep the contract:\n  {}", failed.join("\n  "));
}

/// The prefix in which one case works.
#[derive(Clone)]
struct Place {
    bucket: Arc<dyn Bucket>,
    prefix: String,
}

impl Place {
    fn key(&self, name: &str) -> Key {
        Key::new(format!("{}{name}", self.prefix))
    }

    async fn put(&self, name: &str, content: impl Into<Bytes>) -> Put {
        self.bucket.put(&self.key(name), PutBody::Bytes(content.into()), PutMode::Overwrite).await.unwrap()
    }

    async fn put_if_absent(&self, name: &str, content: impl Into<Bytes>) -> Put {
        self.bucket.put(&self.key(name), PutBody::Bytes(content.into()), PutMode::IfAbsent).await.unwrap()
    }

    /// The object, or a range of it.
    async fn get(&self, name: &str, range: Option<Range<u64>>) -> Option<Object> {
        let options = GetOptions { range, ..GetOptions::default() };
        match self.bucket.get(&self.key(name), options).await.unwrap() {
            Get::Found(object) => Some(object),
            Get::Missing => None,
            Get::NotModified => panic!("not modified, although the request had no condition"),
        }
    }

    /// All bytes of the object.
    async fn content(&self, name: &str) -> Option<Vec<u8>> {
        let object = self.get(name, None).await?;
        assert_eq!(object.range, 0..object.meta.size);
        Some(read(object).await.unwrap())
    }

    async fn list(&self, below: &str, delimiter: bool, after: Option<&str>, max: usize) -> Page {
        let prefix = format!("{}{below}", self.prefix);
        let after = after.map(|after| format!("{}{after}", self.prefix));
        let mut page = self.bucket.list(ListOptions { prefix, delimiter, after, max }).await.unwrap();
        page.keys = page.keys.iter().map(|key| Key::new(self.strip(key.as_str()))).collect();
        page.prefixes = page.prefixes.iter().map(|prefix| self.strip(prefix)).collect();
        page.next = page.next.map(|next| self.strip(&next));
        page
    }

    /// All pages of a listing in order: keys, prefixes and the number of pages.
    async fn list_all(&self, below: &str, delimiter: bool, max: usize) -> (Vec<String>, Vec<String>, usize) {
        let (mut keys, mut prefixes, mut pages, mut after) = (Vec::new(), Vec::new(), 0, None::<String>);
        loop {
            let page = self.list(below, delimiter, after.as_deref(), max).await;
            assert!(page.keys.len() + page.prefixes.len() <= max, "a page of more than {max}");
            keys.extend(page.keys.iter().map(ToString::to_string));
            prefixes.extend(page.prefixes);
            pages += 1;
            match page.next {
                None => return (keys, prefixes, pages),
                Some(next) => {
                    assert!(after.is_none_or(|after| after < next), "pages go forward");
                    after = Some(next);
                }
            }
        }
    }

    fn strip(&self, key: &str) -> String {
        key.strip_prefix(&self.prefix).unwrap_or_else(|| panic!("{key} is outside {}", self.prefix)).to_owned()
    }
}

/// The bytes of a body; never more than its range.
async fn read(object: Object) -> Result<Vec<u8>, BucketError> {
    let mut content = Vec::new();
    let mut body = object.body;
    while let Some(piece) = body.next().await {
        content.extend_from_slice(&piece?);
    }
    assert_eq!(content.len() as u64, object.range.end - object.range.start, "a body is as long as its range");
    Ok(content)
}

/// Bytes that differ from position to position, so a part in the wrong position is detected.
fn pattern(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut content = Vec::with_capacity(size + 8);
    while content.len() < size {
        // xorshift64 (Marsaglia, 2003): enough to distinguish positions.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(&state.to_le_bytes());
    }
    content.truncate(size);
    content
}

/// A file with these bytes, which exists for as long as the value.
struct TemporaryFile(std::path::PathBuf);

impl TemporaryFile {
    fn new(content: &[u8]) -> TemporaryFile {
        let path = std::env::temp_dir().join(format!("entrepot-contract-{}", uuid::Uuid::new_v4()));
        std::fs::write(&path, content).unwrap();
        TemporaryFile(path)
    }

    fn range(&self, range: Range<u64>) -> PutBody {
        PutBody::File { path: self.0.clone(), range, checksum: None }
    }

    fn checked(&self, range: Range<u64>, checksum: Checksum) -> PutBody {
        PutBody::File { path: self.0.clone(), range, checksum: Some(checksum) }
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fault::{Faults, Faulty};
    use super::super::{Counted, Limited, Memory, Retried};
    use super::*;
    use crate::BucketMetrics;

    #[tokio::test]
    async fn memory_keeps_the_contract() {
        holds(Arc::new(Memory::default()), "").await;
        holds(Arc::new(Memory::default()), "team-a/").await;
    }

    #[tokio::test]
    async fn the_decorators_keep_the_contract() {
        let faulty = Faulty::new(Arc::new(Memory::default()), &Faults::default());
        let counted = Counted::new(Arc::new(faulty), BucketMetrics::new().unwrap());
        let limited = Limited::new(Arc::new(counted), 4, 1 << 20);
        holds(Arc::new(Retried::new(Arc::new(limited), Duration::from_secs(5))), "").await;
    }

    #[tokio::test]
    #[should_panic(expected = "a missing key is not an error")]
    async fn a_bucket_that_breaks_the_contract_is_detected() {
        use super::super::{BucketErrorKind, Operation, fault};
        let faults = Faults::default();
        faults.add(fault::Fault::error(Operation::Head, BucketErrorKind::Refused).on_key("missing-key"));
        holds(Arc::new(Faulty::new(Arc::new(Memory::default()), &faults)), "").await;
    }
}
