//! The task that scrubs.

use super::schedule::{pause, share};
use crate::observe::Metrics;
use crate::oci::Digest;
use crate::run::clock::Stopwatch;
use crate::run::{Clock, Hands, Tasks};
use crate::store::Store;
use crate::store::disk::{Scrubbed, Step};
use entrepot_config as config;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Contents chosen at once: choosing looks at all that is stored.
const CHOSEN: usize = 1024;

/// How long a store is left alone that is empty, or whose threads cannot be had.
const PAUSE: Duration = Duration::from_secs(60);

/// Brings back what the scrub removed.
pub trait Refill: Send + Sync + 'static {
    /// Begins to fill the store with content that it lost, if the bucket has it.
    fn refill(&self, digest: &Digest);
}

/// What the scrub flow is made of.
pub struct Scrub {
    pub store: Store,
    /// Where it reads and hashes: threads that give way to requests.
    pub hands: Hands,
    pub refill: Arc<dyn Refill>,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
}

impl Scrub {
    /// Scrubs in the background until the tasks stop; not at all when the period is zero.
    pub fn start(self, tasks: &Tasks, config: &config::Scrub) {
        let period = config.period.get();
        if period.is_zero() {
            return;
        }
        let stop = tasks.clone();
        tasks.spawn("scrub", async move {
            tokio::select! {
                // Between two pieces of a file is as good a place to stop as any.
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

    /// Scrubs what is left of a round.
    pub(super) async fn round(&self, period: Duration) {
        loop {
            let chosen = self.store.to_scrub(CHOSEN);
            if chosen.is_empty() {
                return self.end_round().await;
            }
            for digest in chosen {
                self.one(&digest, period).await;
                self.store.scrubbed(&digest);
            }
        }
    }

    /// Everything was read that was stored since the last end of a round.
    async fn end_round(&self) {
        let whole = self.store.end_round();
        if self.store.count() == 0 {
            sleep(PAUSE).await;
        } else if whole {
            let seconds = self.clock.now().0 / 1000;
            self.metrics.scrub_completed.set(i64::try_from(seconds).unwrap_or(i64::MAX));
            tracing::info!("all stored content was verified once more");
        }
    }

    /// Scrubs one content, and waits until the next one's turn.
    async fn one(&self, digest: &Digest, period: Duration) {
        let spent = Stopwatch::start();
        let mut paused = Duration::ZERO;
        let (stored, contents) = (self.store.usage().used, u64::try_from(self.store.count()).unwrap_or(u64::MAX));
        let mut share_of = Duration::ZERO;
        let (store, digest) = (self.store.clone(), *digest);
        let mut next = match self.hands.work(move || store.scrub(&digest)).await {
            Ok(next) => next,
            Err(error) => return failed(&digest, error).await,
        };
        while let Some(scrubbing) = next.take() {
            let size = scrubbing.size();
            share_of = share(period, size, stored, contents);
            let step = match self.hands.work(move || scrubbing.step()).await {
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
                Err(error) => tracing::error!(%digest, %error, "stored content cannot be verified"),
            }
        }
        sleep(share_of.saturating_sub(paused.max(spent.elapsed()))).await;
    }
}

/// A thread panicked, or the node is going down.
async fn failed(digest: &Digest, error: io::Error) {
    tracing::error!(%digest, %error, "the scrub failed");
    sleep(PAUSE).await;
}
