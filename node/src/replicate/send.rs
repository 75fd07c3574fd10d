//! Sending one blob: its data to the final key, then the link.

use super::plan::{Plan, plan};
use crate::oci::Digest;
use crate::run::crash;
use crate::store::bucket::{Bucket, BucketError, Checksum, MultipartId, PartTag, Put, PutBody, PutMode};
use crate::store::layout::{Key, LinkKind};
use crate::store::replicator::Pending;
use crate::store::{Damaged, Layout, Links, RecentPuts};
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
    /// Objects that were seen to be damaged.
    pub damaged: Arc<Damaged>,
    /// Size of a part in bytes.
    pub part_size: u64,
    /// Parts of one blob sent at once.
    pub parallel_parts: usize,
}

/// Where the data in the bucket came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// This node has put it.
    Put,
    /// It was there.
    Found,
}

impl Sender {
    /// Makes a blob durable that lies in `file`: 3 requests for a small one, whether it is new or the bucket has it.
    ///
    /// `again`: an earlier attempt may have left a multipart upload behind, to be aborted first.
    pub async fn send(&self, pending: &Pending, file: PathBuf, again: bool) -> Result<(), BucketError> {
        let sent = self.send_data(&pending.digest, pending.size, &file, again).await?;
        crash::point("replicate.data-written");
        // The link is written after the data: a crash before it leaves the blob unreachable, not broken.
        self.links.write(&pending.repository, LinkKind::Layer, &pending.digest).await?;
        crash::point("replicate.link-written");
        if sent == Sent::Found {
            // Data that was there may have been removed before the link was. What removes data looks for links
            // afterwards, so from here on the link keeps it.
            self.send_data(&pending.digest, pending.size, &file, false).await?;
        }
        Ok(())
    }

    /// Makes sure that the bucket has the data that lies in `file`.
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
            self.recent_puts.put(digest, began);
            self.damaged.repaired(digest);
        }
        Ok(sent)
    }

    /// How the data is to be put; `None` if it is there. Data of the same size is not sent again; data of another size
    /// is damaged and is replaced.
    async fn mode(&self, digest: &Digest, key: &Key, size: u64) -> Result<Option<PutMode>, BucketError> {
        // In a folder, the file becomes the object by its name alone. That costs less than to find out whether the
        // object that is there is damaged.
        if self.bucket.capabilities().adopts_files || self.damaged.is_damaged(digest) {
            return Ok(Some(PutMode::Overwrite));
        }
        Ok(match self.bucket.head(key).await? {
            Some(meta) if meta.size == size => None,
            Some(meta) => {
                tracing::error!(%key, expected = size, found = meta.size, "replacing data of a wrong size");
                Some(PutMode::Overwrite)
            }
            None => Some(PutMode::IfAbsent),
        })
    }

    /// What a put found there is another node's work, or what a try of this put left that broke off half way: gateways
    /// there are that keep the bytes they got as a whole object (versitygw 1.8).
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
        // When another node completed the same content first, these parts are of no use either.
        if !matches!(completed, Ok(Put::Done(_))) {
            self.abort(key, &upload).await;
        }
        Ok(if completed? == Put::Exists { Sent::Found } else { Sent::Put })
    }

    /// Gives up parts that are of no use any more. When that fails too, the next attempt tries again.
    async fn abort(&self, key: &Key, upload: &MultipartId) {
        if let Err(error) = self.bucket.multipart_abort(key, upload).await {
            tracing::warn!(%error, "a multipart upload is left behind for now");
        }
    }

    /// Aborts what an earlier attempt, perhaps of a process that was killed, left behind for this key. Should another
    /// node be sending the same content at this moment, its attempt fails and is repeated.
    async fn abort_left(&self, key: &Key) -> Result<(), BucketError> {
        for upload in self.bucket.multipart_unfinished(key).await? {
            tracing::info!(%key, "aborting an unfinished multipart upload");
            self.bucket.multipart_abort(key, &upload).await?;
        }
        Ok(())
    }
}

/// The part of a stored file as a body. Nothing of an empty blob is read.
fn body(path: PathBuf, range: Range<u64>, checksum: Option<Checksum>) -> PutBody {
    if range.is_empty() { PutBody::Bytes(bytes::Bytes::new()) } else { PutBody::File { path, range, checksum } }
}
