//! Writes the access statistics of content and the known tags to disk, in batches and never on the
//! path of a request.

use super::inner::Inner;
use super::records::{Batch, ContentRecord, Known};
use super::tag_cache::MAX_TAGS;
use entrepot_runtime::Tasks;
use std::sync::Arc;
use std::time::Duration;

/// Pause between batches: a killed node loses at most this much. A batch costs a sync of the disk.
const PAUSE: Duration = Duration::from_secs(30);

impl Inner {
    /// Restores what an earlier run of the node knew.
    pub(super) fn restore(&self, known: Known) {
        for record in known.content {
            let Some(entry) = self.index.get(&record.digest) else {
                self.recorder.removed(record.digest);
                continue;
            };
            entry.restore(record.used, record.frequency);
            for link in record.links {
                entry.links.remember(link);
            }
        }
        for (name, tag) in known.tags {
            self.tags.restore(name, tag);
        }
    }

    /// Writes what has changed. A failure is logged, and the changes are written with the next
    /// batch. Blocking.
    pub(super) fn write_records(&self) {
        let records = self.recorder.records.lock();
        let batch = self.changes();
        let Some(records) = records.as_ref().filter(|_| !batch.is_empty()) else { return };
        let most = u64::try_from(MAX_TAGS).unwrap_or(u64::MAX);
        if let Err(error) = records.write(&batch, most, |name| self.tags.is_known(name)) {
            tracing::warn!(%error, "cannot write the access statistics; retrying with the next batch");
            self.put_back(batch);
        }
    }

    fn changes(&self) -> Batch {
        let removed = self.recorder.take_removed();
        let changed = self.index.all().into_iter().filter(|(_, entry)| entry.take_dirty());
        let content = changed.map(|(digest, entry)| ContentRecord {
            digest,
            used: entry.used(),
            frequency: entry.frequency(),
            links: entry.links.all(),
        });
        let mut content: Vec<ContentRecord> = content.collect();
        // Sorted as in the file: neighbors share a page, which is then written once.
        content.sort_unstable_by_key(|record| record.digest);
        // Read after the frequencies, so that none of them is ahead of the clock.
        Batch { requests: self.requests.to_bits(), removed, content, tags: self.tags.take_dirty() }
    }

    fn put_back(&self, batch: Batch) {
        batch.removed.into_iter().for_each(|digest| self.recorder.removed(digest));
        for entry in batch.content.iter().filter_map(|record| self.index.get(&record.digest)) {
            entry.mark_dirty();
        }
        self.tags.put_back(batch.tags.into_iter().map(|(name, _)| name));
    }

    /// Writes batches in the background until the tasks stop.
    pub(super) fn keep_recording(self: &Arc<Self>, tasks: &Tasks) {
        let (inner, stop) = (Arc::clone(self), tasks.clone());
        tasks.spawn("records", async move {
            loop {
                tokio::select! {
                    () = stop.stopping() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
                let written = inner
                    .run(|inner| {
                        inner.write_records();
                        Ok(())
                    })
                    .await;
                if let Err(error) = written {
                    tracing::warn!(%error, "cannot write the access statistics; retrying with the next batch");
                }
            }
        });
    }
}
