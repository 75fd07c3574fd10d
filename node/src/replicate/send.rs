//! Sending one blob: its data to the final key, then the link.

use super::plan::{Plan, plan};
use crate::repository::layout::LinkKind;
use crate::repository::replicator::Pending;
use crate::repository::{Damaged, Layout, Links, RecentPuts};
use entrepot_bucket::Key;
use entrepot_bucket::{Bucket, BucketError, Checksum, MultipartId, PartTag, Put, PutBody, PutMode};
use entrepot_oci::Digest;
use entrepot_runtime::crash;
use futures::{StreamExt, TryStreamExt, stream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Sends blobs to the bucket.
pub(super) struct Sender {
    pub bucket: Arc<dyn Bucket>,
    pub layout: Layout,
    pub links: Links,
    pub recent_puts: RecentPuts,
    /// Objects in the bucket that are known to be damaged.
    pub damaged: Arc<Damaged>,
    /// Size of a part in bytes.
    pub part_size: u64,
    /// Number of parts of one blob that are sent at the same time.
    pub parallel_parts: usize,
}

/// The origin of the data in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// This node sent it.
    Put,
    /// It was there already.
    Found,
}

impl Sender {
    /// Makes the blob in `file` durable. A small blob needs 3 requests, whether it is new or
    /// already in the bucket.
    ///
    /// `again`: an earlier attempt may have left a multipart upload, which is aborted first.
    pub async fn send(&self, pending: &Pending, file: PathBuf, again: bool) -> Result<(), BucketError> {
        let sent = self.send_data(&pending.digest, pending.size, &file, again).await?;
        crash::point("replicate.data-written");
        // The link is written after the data: a crash before it leaves the blob unreachable, not broken.
        self.links.write(&pending.repository, LinkKind::Layer, &pending.digest).await?;
        crash::point("replicate.link-written");
        if sent == Sent::Found {
            // Data that was already there may have been removed before the link was written.
            // Whatever removes data looks for links afterwards, so from here on the link protects
            // it.
            self.send_data(&pending.digest, pending.size, &file, false).await?;
        }
        Ok(())
    }

    /// Makes sure that the bucket has the data of `file`.
    pub async fn send_data(&self, digest: &Digest, size: u64, file: &Path, again: bool) -> Result<Sent, BucketError> {
        let key = self.layout.data(digest);
        let plan = plan(size, self.part_size, self.bucket.capabilities());
        if again && plan != Plan::One {
            self.abort_left(&key).await?;
        }
        let Some(mode) = self.mode(digest, &key, size).await? else { return Ok(Sent::Found) };
        crash::point("replicate.data-headed");
        let began = self.recent_puts.begin();
        let sent = match plan {
            Plan::One => {
                let body = body(file.to_owned(), 0..size, Some(Checksum::Verified(*digest)));
                match self.bucket.put(&key, body.clone(), mode).await? {
                    Put::Done(_) => Sent::Put,
                    Put::Exists | Put::Changed => self.replace_if_cut_off(&key, size, body).await?,
                }
            }
            Plan::Parts(ranges) => self.send_parts(&key, file, ranges, mode).await?,
        };
        if sent == Sent::Put {
            self.recent_puts.put(digest, began, size);
            self.damaged.repaired(digest);
        }
        Ok(sent)
    }

    /// How to put the data; `None` if the bucket has it. Data of the same size is not sent again.
    /// Data of another size is damaged and is replaced.
    async fn mode(&self, digest: &Digest, key: &Key, size: u64) -> Result<Option<PutMode>, BucketError> {
        // With a folder as bucket, the file becomes the object by a hard link. That costs less than
        // checking whether an existing object is damaged.
        if self.bucket.capabilities().adopts_files || self.damaged.is_damaged(digest) {
            return Ok(Some(PutMode::Overwrite));
        }
        Ok(match self.bucket.head(key).await? {
            Some(meta) if meta.size == size => None,
            Some(meta) => {
                tracing::error!(%key, expected = size, found = meta.size,
                    "the object in the bucket has the wrong size; replacing it");
                Some(PutMode::Overwrite)
            }
            None => Some(PutMode::IfAbsent),
        })
    }

    /// The put found an existing object. Either another node wrote it, or an earlier try of this
    /// put broke off half way: some gateways keep the bytes received so far as a whole object
    /// (versitygw 1.8).
    async fn replace_if_cut_off(&self, key: &Key, size: u64, body: PutBody) -> Result<Sent, BucketError> {
        match self.bucket.head(key).await? {
            Some(meta) if meta.size == size => Ok(Sent::Found),
            _ => self.bucket.put(key, body, PutMode::Overwrite).await.map(|_| Sent::Put),
        }
    }

    async fn send_parts(
        &self,
        key: &Key,
        file: &Path,
        ranges: Vec<Range<u64>>,
        mode: PutMode,
    ) -> Result<Sent, BucketError> {
        let upload = self.bucket.multipart_begin(key).await?;
        crash::point("replicate.multipart-begun");
        let parts: Result<Vec<PartTag>, BucketError> = stream::iter((1u32..).zip(ranges))
            .map(|(number, range)| {
                let (file, upload) = (file.to_owned(), &upload);
                async move {
                    let sent = self.bucket.multipart_part(key, upload, number, body(file, range, None)).await;
                    crash::point("replicate.part-sent");
                    sent
                }
            })
            .buffered(self.parallel_parts)
            .try_collect()
            .await;
        crash::point("replicate.parts-sent");
        let completed = match parts {
            Ok(parts) => self.bucket.multipart_complete(key, &upload, parts, mode).await,
            Err(error) => Err(error),
        };
        // The parts are also useless if another node completed the same content first.
        if !matches!(completed, Ok(Put::Done(_))) {
            self.abort(key, &upload).await;
        }
        Ok(if completed? == Put::Exists { Sent::Found } else { Sent::Put })
    }

    /// Aborts a multipart upload that is of no use any more. If this fails, the next attempt aborts
    /// it.
    async fn abort(&self, key: &Key, upload: &MultipartId) {
        if let Err(error) = self.bucket.multipart_abort(key, upload).await {
            tracing::warn!(%error, "cannot abort a multipart upload; the next attempt aborts it");
        }
    }

    /// Aborts multipart uploads that an earlier attempt, perhaps of a killed process, left for this
    /// key. If another node sends the same content at this moment, its attempt fails and is
    /// repeated.
    async fn abort_left(&self, key: &Key) -> Result<(), BucketError> {
        for upload in self.bucket.multipart_unfinished(key).await? {
            tracing::info!(%key, "aborting an unfinished multipart upload");
            self.bucket.multipart_abort(key, &upload).await?;
        }
        Ok(())
    }
}

/// A range of a stored file as a request body. The file of an empty blob is not read.
fn body(path: PathBuf, range: Range<u64>, checksum: Option<Checksum>) -> PutBody {
    if range.is_empty() { PutBody::Bytes(bytes::Bytes::new()) } else { PutBody::File { path, range, checksum } }
}
