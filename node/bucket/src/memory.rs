//! A bucket in memory. Tests of the flows run on it, and it is the simplest definition of what a
//! bucket does.

use super::list::page_of;
use super::{
    BodyStream, Bucket, BucketError, BucketErrorKind, Capabilities, Delete, ETag, Get, GetOptions, ListOptions,
    MultipartId, Object, ObjectMeta, Operation, Page, PartTag, Put, PutBody, PutMode, READ_SIZE, resolve_range,
};
use crate::Key;
use async_trait::async_trait;
use bytes::Bytes;
use entrepot_runtime::tasks::blocking;
use futures::StreamExt;
use parking_lot::{Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::os::unix::fs::FileExt;

/// An empty bucket. Its content is lost with the value.
pub struct Memory {
    capabilities: Capabilities,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    versions_of_content: bool,
    objects: BTreeMap<String, Stored>,
    uploads: BTreeMap<String, Upload>,
    /// Numbers versions and multipart uploads, so each has a unique name.
    counter: u64,
}

#[derive(Clone)]
struct Stored {
    content: Bytes,
    etag: ETag,
}

struct Upload {
    key: Key,
    parts: BTreeMap<u32, (PartTag, Bytes)>,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::with_capabilities(Capabilities {
            conditional_put: true,
            conditional_delete: true,
            cheap_reads: false,
            part_threshold: 0,
            parallel_ranges: false,
            adopts_files: false,
        })
    }
}

impl Memory {
    /// A bucket that claims these capabilities, so a flow behaves as it does with S3. Without
    /// `conditional_put` it overwrites where another bucket would return `Exists`.
    pub fn with_capabilities(capabilities: Capabilities) -> Memory {
        Memory { capabilities, state: Mutex::default() }
    }

    /// A bucket that derives the version of an object from its content, as S3 does. The same bytes,
    /// put again, get the same version.
    pub fn with_versions_of_content() -> Memory {
        let memory = Memory::default();
        memory.state().versions_of_content = true;
        memory
    }

    /// All keys, in order.
    pub fn keys(&self) -> Vec<Key> {
        self.state().objects.keys().map(|key| Key::new(key.as_str())).collect()
    }

    /// The bytes of an object.
    pub fn content(&self, key: &Key) -> Option<Bytes> {
        self.state().objects.get(key.as_str()).map(|stored| stored.content.clone())
    }

    /// The number of multipart uploads that are neither completed nor aborted.
    pub fn unfinished_uploads(&self) -> usize {
        self.state().uploads.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No change leaves the maps inconsistent, so the state is usable after a panic of another
        // holder.
        self.state.lock()
    }
}

impl State {
    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn version(&self, key: &Key) -> Option<ETag> {
        self.objects.get(key.as_str()).map(|stored| stored.etag.clone())
    }

    /// `conditional`: whether `IfAbsent` is honored.
    fn write(&mut self, key: &Key, content: Bytes, mode: &PutMode, conditional: bool) -> Put {
        match mode {
            PutMode::IfAbsent if conditional && self.objects.contains_key(key.as_str()) => return Put::Exists,
            PutMode::IfMatch(version) if self.version(key) != *version => return Put::Changed,
            _ => {}
        }
        let etag = ETag(if self.versions_of_content {
            entrepot_oci::Digest::of(entrepot_oci::Algorithm::Sha256, &content).hex().to_owned()
        } else {
            format!("version-{}", self.next())
        });
        self.objects.insert(key.as_str().to_owned(), Stored { content, etag: etag.clone() });
        Put::Done(etag)
    }
}

#[async_trait]
impl Bucket for Memory {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, BucketError> {
        Ok(self.state().objects.get(key.as_str()).map(meta_of))
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Get, BucketError> {
        let Some(stored) = self.state().objects.get(key.as_str()).cloned() else { return Ok(Get::Missing) };
        if options.if_none_match.as_ref() == Some(&stored.etag) {
            return Ok(Get::NotModified);
        }
        let meta = meta_of(&stored);
        let range = resolve_range(key, options.range, meta.size)?;
        Ok(Get::Found(Object { body: body(&stored.content, &range), meta, range }))
    }

    async fn put(&self, key: &Key, body: PutBody, mode: PutMode) -> Result<Put, BucketError> {
        let content = collect(Operation::Put, key, body).await?;
        Ok(self.state().write(key, content, &mode, self.capabilities.conditional_put))
    }

    async fn delete(&self, key: &Key) -> Result<(), BucketError> {
        self.state().objects.remove(key.as_str());
        Ok(())
    }

    async fn delete_if_match(&self, key: &Key, version: &ETag) -> Result<Delete, BucketError> {
        let mut state = self.state();
        if state.version(key).as_ref() != Some(version) {
            return Ok(Delete::Changed);
        }
        state.objects.remove(key.as_str());
        Ok(Delete::Done)
    }

    async fn list(&self, options: ListOptions) -> Result<Page, BucketError> {
        let state = self.state();
        // Both bounds apply; reading starts at the later one.
        let start = options.after.clone().unwrap_or_default().max(options.prefix.clone());
        let keys = state.objects.range::<str, _>((Bound::Included(start.as_str()), Bound::Unbounded));
        Ok(page_of(&options, keys.map(|(key, _)| key.as_str())))
    }

    async fn multipart_begin(&self, key: &Key) -> Result<MultipartId, BucketError> {
        let mut state = self.state();
        let id = format!("upload-{}", state.next());
        state.uploads.insert(id.clone(), Upload { key: key.clone(), parts: BTreeMap::new() });
        Ok(MultipartId(id))
    }

    async fn multipart_part(
        &self,
        key: &Key,
        upload: &MultipartId,
        number: u32,
        body: PutBody,
    ) -> Result<PartTag, BucketError> {
        let content = collect(Operation::MultipartPart, key, body).await?;
        let mut state = self.state();
        let tag = PartTag(format!("part-{number}-{}", state.next()));
        match state.uploads.get_mut(&upload.0).filter(|found| found.key == *key) {
            Some(found) => found.parts.insert(number, (tag.clone(), content)),
            None => return Err(no_upload(Operation::MultipartPart, key)),
        };
        Ok(tag)
    }

    async fn multipart_complete(
        &self,
        key: &Key,
        upload: &MultipartId,
        parts: Vec<PartTag>,
        mode: PutMode,
    ) -> Result<Put, BucketError> {
        let mut state = self.state();
        let Some(found) = state.uploads.get(&upload.0).filter(|found| found.key == *key) else {
            return Err(no_upload(Operation::MultipartComplete, key));
        };
        let mut content = Vec::new();
        for (number, tag) in (1..).zip(&parts) {
            match found.parts.get(&number) {
                Some((known, part)) if known == tag => content.extend_from_slice(part),
                _ => return Err(no_part(key, number)),
            }
        }
        let put = state.write(key, content.into(), &mode, self.capabilities.conditional_put);
        if let Put::Done(_) = put {
            state.uploads.remove(&upload.0);
        }
        Ok(put)
    }

    async fn multipart_unfinished(&self, key: &Key) -> Result<Vec<MultipartId>, BucketError> {
        let state = self.state();
        let unfinished = state.uploads.iter().filter(|(_, upload)| upload.key == *key);
        Ok(unfinished.map(|(id, _)| MultipartId(id.clone())).collect())
    }

    async fn multipart_abort(&self, _key: &Key, upload: &MultipartId) -> Result<(), BucketError> {
        self.state().uploads.remove(&upload.0);
        Ok(())
    }
}

fn meta_of(stored: &Stored) -> ObjectMeta {
    ObjectMeta { size: stored.content.len() as u64, etag: stored.etag.clone() }
}

/// The bytes in pieces of the size that other buckets use. Each piece is a view of the object.
fn body(content: &Bytes, range: &Range<u64>) -> BodyStream {
    // The range is within content in memory, so both ends fit into `usize`.
    let position = |offset: u64| usize::try_from(offset).unwrap_or(content.len()).min(content.len());
    let mut rest = content.slice(position(range.start)..position(range.end));
    futures::stream::iter(std::iter::from_fn(move || {
        let piece = rest.split_to(rest.len().min(READ_SIZE));
        (!piece.is_empty()).then_some(Ok(piece))
    }))
    .boxed()
}

async fn collect(operation: Operation, key: &Key, body: PutBody) -> Result<Bytes, BucketError> {
    let (path, range, checksum) = match body {
        PutBody::Bytes(bytes) => return Ok(bytes),
        PutBody::File { path, range, checksum } => (path, range, checksum),
    };
    let read = blocking(move || {
        let mut content = vec![0; usize::try_from(range.end - range.start).unwrap_or(usize::MAX)];
        std::fs::File::open(path)?.read_exact_at(&mut content, range.start)?;
        Ok(content.into())
    });
    let content: Bytes = read.await.and_then(|read| read).map_err(|error: std::io::Error| {
        BucketError::new(operation, key.as_str(), BucketErrorKind::LocalFile).because(error)
    })?;
    if checksum.is_some_and(|checksum| !checksum.is_of(&content)) {
        return Err(BucketError::new(operation, key.as_str(), BucketErrorKind::WrongContent));
    }
    Ok(content)
}

fn no_upload(operation: Operation, key: &Key) -> BucketError {
    BucketError::new(operation, key.as_str(), BucketErrorKind::Refused).because("the multipart upload does not exist")
}

fn no_part(key: &Key, number: u32) -> BucketError {
    BucketError::new(Operation::MultipartComplete, key.as_str(), BucketErrorKind::Refused)
        .because(format!("part {number} was not sent, or was sent again after its tag was returned"))
}
