//! Sending one blob: its data to the final key, then the link.

use super::plan::{Plan, plan};
use crate::run::crash;
use crate::store::bucket::{Bucket, BucketError, Checksum, MultipartId, PartTag, Put, PutBody, PutMode};
use crate::store::layout::{Key, LinkKind};
use crate::store::replicator::Pending;
use crate::store::{Layout, Links};
use futures::{StreamExt, TryStreamExt, stream};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Sends blobs to the bucket.
pub(super) struct Sender {
    pub bucket: Arc<dyn Bucket>,
    pub layout: Layout,
    pub links: Links,
    /// Size of a part in bytes.
    pub part_size: u64,
    /// Parts of one blob sent at once.
    pub parallel_parts: usize,
}

impl Sender {
    /// Makes a blob durable that lies in `file`: 3 requests for a small one that is new, 2 for one that is there.
    ///
    /// `again`: an earlier attempt may have left a multipart upload behind, to be aborted first.
    pub async fn send(&self, pending: &Pending, file: PathBuf, again: bool) -> Result<(), BucketError> {
        self.send_data(pending, file, again).await?;
        crash::point("replicate.data-written");
        // The link is written last: a crash before it leaves the blob unreachable, not broken.
        self.links.write(&pending.repository, LinkKind::Layer, &pending.digest).await?;
        crash::point("replicate.link-written");
        Ok(())
    }

    async fn send_data(&self, pending: &Pending, file: PathBuf, again: bool) -> Result<(), BucketError> {
        let key = self.layout.data(&pending.digest);
        let plan = plan(pending.size, self.part_size, self.bucket.capabilities());
        if again && plan != Plan::One {
            self.abort_left(&key).await?;
        }
        // Data of the same size is not sent again; of another size it is damaged and is replaced.
        let mode = match self.bucket.head(&key).await? {
            Some(meta) if meta.size == pending.size => return Ok(()),
            Some(meta) => {
                tracing::error!(%key, expected = pending.size, found = meta.size, "replacing data of a wrong size");
                PutMode::Overwrite
            }
            None => PutMode::IfAbsent,
        };
        crash::point("replicate.data-headed");
        match plan {
            Plan::One => {
                let body = body(file, 0..pending.size, Some(Checksum::Digest(pending.digest)));
                match self.bucket.put(&key, body.clone(), mode).await? {
                    Put::Done(_) => Ok(()),
                    Put::Exists | Put::Changed => self.replace_if_cut_off(&key, pending.size, body).await,
                }
            }
            Plan::Parts(ranges) => self.send_parts(&key, file, ranges, mode).await,
        }
    }

    /// What a put found there is another node's work, or what a try of this put left that broke off half way: gateways
    /// there are that keep the bytes they got as a whole object (versitygw 1.8).
    async fn replace_if_cut_off(&self, key: &Key, size: u64, body: PutBody) -> Result<(), BucketError> {
        match self.bucket.head(key).await? {
            Some(meta) if meta.size == size => Ok(()),
            _ => self.bucket.put(key, body, PutMode::Overwrite).await.map(|_| ()),
        }
    }

    async fn send_parts(
        &self,
        key: &Key,
        file: PathBuf,
        ranges: Vec<Range<u64>>,
        mode: PutMode,
    ) -> Result<(), BucketError> {
        let upload = self.bucket.multipart_begin(key).await?;
        crash::point("replicate.multipart-begun");
        let parts: Result<Vec<PartTag>, BucketError> = stream::iter((1u32..).zip(ranges))
            .map(|(number, range)| {
                let (file, upload) = (file.clone(), &upload);
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
        completed.map(|_| ())
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
