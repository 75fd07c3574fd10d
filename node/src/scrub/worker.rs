//! The task that scrubs.

use super::schedule::{pause, share};
use crate::observe::Metrics;
use crate::store::Store;
use crate::store::{Scrubbed, Step};
use entrepot_config as config;
use entrepot_oci::Digest;
use entrepot_runtime::clock::Stopwatch;
use entrepot_runtime::{BackgroundBlocking, Clock, Tasks};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Number of items chosen at once, because choosing looks at all stored content.
const CHOSEN: usize = 1024;

/// Pause if the store is empty or no thread is available.
const PAUSE: Duration = Duration::from_secs(60);

/// Restores content that the scrub removed.
pub trait Refill: Send + Sync + 'static {
    /// Starts a download of content that the store lost, if the bucket has it.
    fn refill(&self, digest: &Digest);
}

/// The parts of the scrub flow.
pub struct Scrub {
    /// The content to verify.
    pub store: Store,
    /// Reads and hashes on these threads, which have a lower priority than requests.
    pub background: BackgroundBlocking,
    /// Replaces damaged content from the bucket.
    pub refill: Arc<dyn Refill>,
    /// When content was verified last.
    pub clock: Clock,
    /// Counts damaged content.
    pub metrics: Arc<Metrics>,
}

impl Scrub {
    /// Scrubs in the background until the tasks stop. Does nothing if the period is zero.
    pub fn start(self, tasks: &Tasks, config: &config::Scrub) {
        let period = config.period.get();
        if period.is_zero() {
            return;
        }
        let stop = tasks.clone();
        tasks.spawn("scrub", async move {
            tokio::select! {
                // The scrub can stop between any two pieces of a file, because it writes nothing.
                () = stop.stopping() => {}
                () = self.run(period) => {}
            }
        });
    }

    async fn run(&self, period: Duration) {
        loop {
            self.round(period).await;
        }
    }

    /// Scrubs the rest of a round.
    pub(super) async fn round(&self, period: Duration) {
        loop {
            let chosen = self.store.scrub.next(CHOSEN);
            if chosen.is_empty() {
                return self.end_round().await;
            }
            for digest in chosen {
                self.one(&digest, period).await;
                self.store.scrub.done(&digest);
            }
        }
    }

    /// Ends a round: all content that was stored at its beginning was read.
    async fn end_round(&self) {
        let whole = self.store.scrub.end_round();
        if self.store.contents.count() == 0 {
            sleep(PAUSE).await;
        } else if whole {
            let seconds = self.clock.now().0 / 1000;
            self.metrics.scrub_completed.set(i64::try_from(seconds).unwrap_or(i64::MAX));
            tracing::info!("scrub finished a round; all stored content was verified");
        }
    }

    /// Scrubs one item, and waits until the next one is due.
    async fn one(&self, digest: &Digest, period: Duration) {
        let spent = Stopwatch::start();
        let mut paused = Duration::ZERO;
        let (stored, contents) =
            (self.store.room.usage().used, u64::try_from(self.store.contents.count()).unwrap_or(u64::MAX));
        let mut share_of = Duration::ZERO;
        let (store, digest) = (self.store.clone(), *digest);
        let mut next = match self.background.run(move || store.scrub.begin(&digest)).await {
            Ok(next) => next,
            Err(error) => return failed(&digest, error).await,
        };
        while let Some(scrubbing) = next.take() {
            let size = scrubbing.size();
            share_of = share(period, size, stored, contents);
            let step = match self.background.run(move || scrubbing.step()).await {
                Ok(step) => step,
                Err(error) => return failed(&digest, error).await,
            };
            match step {
                Ok(Step::More(scrubbing, read)) => {
                    self.metrics.scrubbed_bytes.inc_by(read);
                    next = Some(scrubbing);
                    let pause = pause(share_of, size, read);
                    paused += pause;
                    sleep(pause).await;
                }
                Ok(Step::Done(Scrubbed::Kept)) => {}
                Ok(Step::Done(Scrubbed::Removed)) => self.refill.refill(&digest),
                Err(error) => tracing::error!(%digest, %error, "cannot verify stored content"),
            }
        }
        sleep(share_of.saturating_sub(paused.max(spent.elapsed()))).await;
    }
}

/// A thread panicked, or the node is shutting down.
async fn failed(digest: &Digest, error: io::Error) {
    tracing::error!(%digest, %error, "the scrub of an item failed; continuing after a pause");
    sleep(PAUSE).await;
}
