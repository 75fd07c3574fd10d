//! The pending blobs, and the tasks that make them durable. Several blobs are sent at the same
//! time, each until it is durable.

use super::journal::{Journal, Left, Unreadable};
use super::markers::Markers;
use super::send::Sender;
use crate::observe::Metrics;
use crate::repository::replicator::{Elsewhere, Journaled, Pending, Replicator};
use crate::repository::{Environment, PendingHere};
use crate::store::Store;
use crate::store::{Pin, StoreError};
use async_trait::async_trait;
use dashmap::DashMap;
use entrepot_bucket::{BucketError, BucketErrorKind, Operation};
use entrepot_oci::{Digest, Repository};
use entrepot_runtime::clock::{Clock, Timestamp};
use entrepot_runtime::{Tasks, crash, retry};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore, watch};

/// The replicate flow. Clones share the state.
#[derive(Clone)]
pub struct Replicate {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    sender: Sender,
    journal: Journal,
    /// Pins of content that may not be durable and cannot be sent, because its repository is
    /// unknown.
    kept: parking_lot::Mutex<Vec<Pin>>,
    tasks: Tasks,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Limits the number of blobs sent at the same time.
    turns: Semaphore,
    pending: DashMap<Name, Vec<Waited>>,
    pending_here: PendingHere,
    markers: Markers,
    /// Held while the data of a digest is sent, so that two repositories do not send it at the same
    /// time.
    sending: DashMap<Digest, Weak<Mutex<()>>>,
}

type Name = (Repository, Digest);

/// One pending blob, as seen by the requests that wait for it.
struct Waited {
    size: u64,
    since: Timestamp,
    progress: watch::Receiver<Progress>,
}

/// Progress of a pending blob.
#[derive(Clone, Debug)]
enum Progress {
    /// The first attempt has not ended yet.
    Sending,
    /// The bucket failed for a whole retry budget. The blob is tried again.
    Failing {
        operation: Operation,
        key: String,
        kind: BucketErrorKind,
    },
    Durable,
    /// Nothing can be sent: the store lost the content before it was durable.
    Lost,
}

impl Replicate {
    /// Resumes the blobs that earlier runs left pending. Blocking, because it reads the journal.
    pub fn start(env: Environment) -> Replicate {
        let config = &env.config.replication;
        let journal = Journal::new(env.store.dirs.pending());
        let left = journal.left();
        let markers = Markers {
            bucket: env.bucket.clone(),
            layout: env.layout.clone(),
            links: env.links.clone(),
            clock: env.clock.clone(),
            node: env.config.node.name.clone(),
            write_back: config.is_write_back(),
            retry_budget: env.config.bucket.retry_budget.get(),
        };
        let sender = Sender {
            bucket: env.bucket,
            layout: env.layout,
            links: env.links,
            recent_puts: env.recent_puts,
            damaged: env.damaged,
            part_size: config.part_size.get(),
            parallel_parts: config.parallel_parts as usize,
        };
        let inner = Inner {
            store: env.store,
            sender,
            journal,
            kept: parking_lot::Mutex::default(),
            tasks: env.tasks,
            clock: env.clock,
            metrics: env.metrics,
            turns: Semaphore::new(config.parallel_blobs as usize),
            pending: DashMap::new(),
            pending_here: env.pending_here,
            markers,
            sending: DashMap::new(),
        };
        let replicate = Replicate { inner: Arc::new(inner) };
        replicate.resume(left);
        replicate
    }

    /// Sends what earlier runs left pending. Blocking.
    fn resume(&self, left: Left) {
        if !left.entries.is_empty() {
            tracing::info!(blobs = left.entries.len(), "resuming pending uploads of earlier runs");
        }
        for journaled in left.entries {
            let pin = self.inner.store.contents.pin(&journaled.pending.digest);
            self.begin(journaled, pin, true);
        }
        for lost in &left.unreadable {
            // The entry of a blob that is not journaled again stays in place for the next start,
            // because nothing else records that the blob was acknowledged.
            if self.recover(lost)
                && let Some(entry) = &lost.entry
            {
                self.inner.journal.set_aside(entry);
            }
        }
        // All pending content is pinned now.
        self.inner.store.contents.drop_hard_links();
    }

    /// Resumes a blob whose journal entry cannot be read. The digest and the repository in the file
    /// name are enough to send it again. Returns whether its entry is not needed any more. Blocking.
    fn recover(&self, lost: &Unreadable) -> bool {
        let Inner { store, journal, clock, kept, .. } = &*self.inner;
        // A link seen earlier must not count as proof that the bucket has the content.
        store.links.forget_all(&lost.digest);
        if !store.contents.contains(&lost.digest) {
            tracing::error!(digest = %lost.digest,
                "the content of an unreadable journal entry is not in the store; it cannot be sent");
            return true;
        }
        let pin = store.contents.pin(&lost.digest);
        let size = std::fs::metadata(store.contents.path(&lost.digest)).map_or(0, |file| file.len());
        let recovered = lost.repository.clone().map(|repository| {
            let pending = Pending { repository, digest: lost.digest, size, since: clock.now() };
            journal.write_now(pending, true)
        });
        match recovered {
            Some(Ok(journaled)) => self.begin(journaled, pin, true),
            Some(Err(error)) => {
                tracing::error!(digest = %lost.digest, %error,
                    "cannot journal content that may not be durable; \
                     it is kept in the store and sent after the next start");
                kept.lock().push(pin);
                return false;
            }
            None => {
                tracing::error!(digest = %lost.digest,
                    "content may not be durable and its repository is unknown; \
                     it is kept in the store until it is pushed again and its .unreadable journal entry is removed");
                kept.lock().push(pin);
            }
        }
        true
    }

    /// Age of the oldest pending blob.
    pub fn oldest(&self) -> Duration {
        let now = self.inner.clock.now();
        let ages = self.inner.pending.iter();
        ages.flat_map(|waited| waited.iter().map(|one| now.since(one.since)).max()).max().unwrap_or_default()
    }

    /// `resumed`: an earlier run journaled the blob, and may have left it in any state.
    fn begin(&self, journaled: Journaled, pin: Pin, resumed: bool) {
        let (progress, receiver) = watch::channel(Progress::Sending);
        let Pending { repository, digest, size, since } = journaled.pending.clone();
        let waited = Waited { size, since, progress: receiver };
        self.inner.metrics.pending.blobs.inc();
        self.inner.metrics.pending.bytes.add(waited.size.cast_signed());
        self.inner.pending.entry((repository, digest)).or_default().push(waited);
        let mark = self.inner.pending_here.mark(&journaled.pending.repository, &journaled.pending.digest);
        let inner = self.inner.clone();
        self.inner.tasks.spawn("replicate", async move {
            inner.until_durable(&journaled, &progress, resumed).await;
            inner.forget(&journaled.pending, &progress);
            drop(mark);
            // The content may be evicted only from here on.
            drop(pin);
            if inner.sender.bucket.capabilities().adopts_files
                && let Err(error) = inner.store.contents.drop_if_hard_linked(&journaled.pending.digest).await
            {
                tracing::warn!(%error, "cannot remove the cached hard link to an object in the bucket");
            }
        });
    }
}

impl Inner {
    /// Sends a blob until it is durable or the node stops. If the node stops, the journal keeps the
    /// blob for the next start.
    async fn until_durable(&self, journaled: &Journaled, progress: &watch::Sender<Progress>, resumed: bool) {
        let pending = &journaled.pending;
        let mut pauses = retry::pauses();
        let mut again = resumed;
        loop {
            match self.attempt(pending, again).await {
                Ok(Attempt::Durable) => {
                    // The marker is removed after the link is written, so another node that finds
                    // no marker finds the link.
                    self.markers.remove(pending).await;
                    self.finish(journaled).await;
                    progress.send_replace(Progress::Durable);
                    return;
                }
                Ok(Attempt::NothingToSend) => {
                    tracing::warn!(digest = %pending.digest, repository = %pending.repository,
                        "a pending blob is missing or damaged in the store; \
                         it was never acknowledged, or the disk lost it");
                    self.markers.remove(pending).await;
                    self.finish(journaled).await;
                    progress.send_replace(Progress::Lost);
                    return;
                }
                Err(error) => {
                    tracing::warn!(digest = %pending.digest, %error, "replication failed; retrying");
                    progress.send_replace(Progress::Failing {
                        operation: error.operation,
                        key: error.key,
                        kind: error.kind,
                    });
                    again = true;
                }
            }
            let pause = pauses.next().unwrap_or_default();
            tokio::select! {
                () = self.tasks.stopping() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn attempt(&self, pending: &Pending, again: bool) -> Result<Attempt, BucketError> {
        let Ok(_turn) = self.turns.acquire().await else { return Ok(Attempt::NothingToSend) };
        let lock = self.lock_of(pending.digest);
        let _sending = lock.lock().await;
        // A file that changed since it was verified is verified again, because damaged content must
        // not become durable.
        match self.store.contents.is_sound(&pending.digest).await {
            Ok(true) => {}
            Ok(false) => return Ok(Attempt::NothingToSend),
            Err(error) => return Err(local(pending, error)),
        }
        let sent = self.sender.send(pending, self.store.contents.path(&pending.digest), again).await;
        if sent.as_ref().is_err_and(|error| error.kind == BucketErrorKind::WrongContent) {
            // The next attempt verifies the file, and gives up the blob if the file is damaged.
            self.store.contents.doubt(&pending.digest);
        }
        sent.map(|()| Attempt::Durable)
    }

    fn lock_of(&self, digest: Digest) -> Arc<Mutex<()>> {
        let mut entry = self.sending.entry(digest).or_default();
        if let Some(lock) = entry.upgrade() {
            return lock;
        }
        let lock = Arc::new(Mutex::new(()));
        *entry = Arc::downgrade(&lock);
        lock
    }

    /// A journal entry that cannot be removed is harmless: the next start finds its blob durable
    /// and removes it.
    async fn finish(&self, journaled: &Journaled) {
        if let Err(error) = self.journal.remove(journaled).await {
            tracing::error!(%error,
                "cannot remove the journal entry of a replicated blob; it will be removed at the next start");
        }
        crash::point("replicate.journal-removed");
    }

    fn forget(&self, pending: &Pending, progress: &watch::Sender<Progress>) {
        self.metrics.pending.blobs.dec();
        self.metrics.pending.bytes.sub(pending.size.cast_signed());
        let name = (pending.repository.clone(), pending.digest);
        if let Some(mut waited) = self.pending.get_mut(&name) {
            let own = progress.subscribe();
            waited.retain(|one| !one.progress.same_channel(&own));
        }
        self.pending.remove_if(&name, |_, waited| waited.is_empty());
        self.sending.remove_if(&pending.digest, |_, lock| lock.strong_count() == 0);
    }
}

enum Attempt {
    Durable,
    NothingToSend,
}

fn local(pending: &Pending, error: StoreError) -> BucketError {
    BucketError::new(Operation::Put, pending.digest.to_string(), BucketErrorKind::LocalFile).because(error)
}

#[async_trait]
impl Replicator for Replicate {
    async fn journal(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        sync: bool,
    ) -> Result<Journaled, StoreError> {
        let since = self.inner.clock.now();
        let pending = Pending { repository: repository.clone(), digest: *digest, size, since };
        if !sync {
            return self.inner.journal.write(pending, false).await;
        }
        let marked = self.inner.markers.put(&pending);
        let (journaled, ()) = tokio::join!(self.inner.journal.write(pending.clone(), true), marked);
        journaled
    }

    fn send(&self, journaled: Journaled, pin: Pin) {
        self.begin(journaled, pin, false);
    }

    async fn durable(&self, repository: &Repository, digest: &Digest) -> Result<(), BucketError> {
        let name = (repository.clone(), *digest);
        let Some(progress) =
            self.inner.pending.get(&name).and_then(|waited| waited.last().map(|one| one.progress.clone()))
        else {
            return Ok(());
        };
        wait(progress, digest).await
    }

    async fn ensure_data(&self, digest: &Digest) -> Result<Option<u64>, BucketError> {
        let inner = &self.inner;
        let found = inner.sender.bucket.head(&inner.sender.layout.data(digest)).await?;
        let stored = inner.store.contents.size(digest);
        let found = found.map(|found| found.size);
        if found.is_some_and(|found| stored.is_none_or(|size| size == found))
            && !inner.sender.damaged.is_damaged(digest)
        {
            return Ok(found);
        }
        inner.sender.recent_puts.forget(digest);
        let _pin = inner.store.contents.pin(digest);
        // This verifies the content, because damaged content must not become durable.
        let sound = inner.store.contents.is_sound(digest).await;
        let sound = sound.inspect_err(
            |error| tracing::warn!(%digest, %error, "cannot read stored content; relying on the object in the bucket"),
        );
        let Some(size) = inner.store.contents.size(digest).filter(|_| sound.unwrap_or(false)) else {
            return Ok(found);
        };
        tracing::warn!(%digest, "an object is missing or damaged in the bucket; uploading it again from the store");
        let lock = inner.lock_of(*digest);
        let _sending = lock.lock().await;
        let path = inner.store.contents.path(digest);
        inner.sender.send_data(digest, size, &path, true).await?;
        Ok(Some(size))
    }

    async fn elsewhere(&self, repository: &Repository, digest: &Digest) -> Result<Elsewhere, BucketError> {
        self.inner.markers.wait(repository, digest).await
    }
}

async fn wait(mut progress: watch::Receiver<Progress>, digest: &Digest) -> Result<(), BucketError> {
    let reached = progress.wait_for(|progress| !matches!(progress, Progress::Sending)).await.map(|now| now.clone());
    match reached {
        Ok(Progress::Durable) => Ok(()),
        Ok(Progress::Failing { operation, key, kind }) => Err(BucketError::new(operation, key, kind)),
        Ok(Progress::Sending | Progress::Lost) | Err(_) => {
            Err(BucketError::new(Operation::Put, digest.to_string(), BucketErrorKind::LocalFile))
        }
    }
}
