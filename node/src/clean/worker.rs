//! The task that waits for pressure and relieves it.

use super::victims::victims;
use crate::observe::Metrics;
use crate::run::Tasks;
use crate::run::clock::Stopwatch;
use crate::run::tasks::blocking;
use crate::store::Store;
use crate::store::disk::Pressure;
use async_trait::async_trait;
use entrepot_config::EvictionPolicy;
use std::sync::Arc;
use std::time::Duration;

/// How often sessions are looked through when room is not short. They expire after hours; a minute more or less is
/// nothing to them.
const EXPIRY_PAUSE: Duration = Duration::from_secs(60);

/// The sessions of the upload flow, as far as the cleaner knows them.
#[async_trait]
pub trait UnusedSessions: Send + Sync + 'static {
    /// Removes the sessions that received nothing for too long, and counts them (`evictions`, reason `session`).
    /// Returns the bytes freed.
    async fn expire(&self) -> u64;

    /// Removes sessions that nobody used for a while, the longest unused first, until so many bytes are freed; counts
    /// them likewise. Returns the bytes freed; zero: there are none that may go.
    async fn give_way(&self, bytes: u64) -> u64;
}

/// Runs the cleaner in the background until the tasks stop. From then on reservations wait for it when there is no
/// room.
pub fn start(
    tasks: &Tasks,
    store: Store,
    policy: EvictionPolicy,
    sessions: Arc<dyn UnusedSessions>,
    metrics: Arc<Metrics>,
) {
    // Taken here and not in the task: nobody who reserves after this is refused because the task has not begun.
    let cleaner = Cleaner::new(store, policy, sessions, metrics);
    let stop = tasks.clone();
    tasks.spawn("clean", async move {
        tokio::select! {
            // Half way through a cleaning is as good a place to stop as any.
            () = stop.stopping() => {}
            () = cleaner.run() => {}
        }
    });
}

pub(super) struct Cleaner {
    store: Store,
    pressure: Pressure,
    policy: EvictionPolicy,
    sessions: Arc<dyn UnusedSessions>,
    metrics: Arc<Metrics>,
}

/// What a round of removing came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// So many bytes.
    Freed(u64),
    /// Nothing was removed, for nothing was wanted any more or the victims were pinned meanwhile: another look is due.
    /// Who waits by now may have come since, and is not to be refused for what this round found.
    Outdated,
    /// Nothing was removed, for there was nothing that may be removed.
    NothingRemovable,
}

impl Cleaner {
    /// Takes the seat of the cleaner.
    pub(super) fn new(
        store: Store,
        policy: EvictionPolicy,
        sessions: Arc<dyn UnusedSessions>,
        metrics: Arc<Metrics>,
    ) -> Cleaner {
        Cleaner { pressure: store.pressure(), store, policy, sessions, metrics }
    }

    async fn run(&self) {
        let mut expiry = tokio::time::interval(EXPIRY_PAUSE);
        expiry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.pressure.wait() => {}
                _ = expiry.tick() => self.expire_sessions().await,
            }
            self.clean_if_short().await;
        }
    }

    /// One cleaning, if it is due.
    pub(super) async fn clean_if_short(&self) {
        if self.pressure.is_short() {
            self.clean().await;
        }
    }

    /// Removes until nothing more is wanted, or nothing more can be removed.
    async fn clean(&self) {
        let spent = Stopwatch::start();
        self.expire_sessions().await;
        let mut freed: u64 = 0;
        loop {
            let wanted = self.pressure.wanted();
            if wanted == 0 {
                break;
            }
            // Chosen again after each round: others wrote, used and pinned meanwhile.
            match self.remove_victims(wanted).await {
                Round::Freed(bytes) => freed = freed.saturating_add(bytes),
                Round::Outdated => {}
                Round::NothingRemovable => match self.sessions_give_way().await {
                    0 => {
                        self.pressure.refuse_waiting();
                        break;
                    }
                    bytes => freed = freed.saturating_add(bytes),
                },
            }
        }
        let seconds = spent.elapsed().as_secs_f64();
        self.metrics.clean_seconds.observe(seconds);
        let free = self.store.usage().free;
        if freed > 0 {
            tracing::info!(freed, free, seconds, "cleaned the store");
        } else {
            tracing::debug!(free, seconds, "cleaning found no victims");
        }
    }

    async fn expire_sessions(&self) {
        self.metrics.evicted_bytes.inc_by(self.sessions.expire().await);
    }

    /// Unfinished uploads go only for those who wait for room, and never so that the target is free beside it.
    async fn sessions_give_way(&self) -> u64 {
        let missing = self.pressure.wanted().saturating_sub(self.store.usage().target_free);
        if missing == 0 {
            return 0;
        }
        let freed = self.sessions.give_way(missing).await;
        self.metrics.evicted_bytes.inc_by(freed);
        freed
    }

    /// One round. Those who wait for room get it as soon as enough is removed, not at the end.
    pub(super) async fn remove_victims(&self, wanted: u64) -> Round {
        let (store, policy) = (self.store.clone(), self.policy);
        let chosen = blocking(move || victims(policy, store.records(), wanted)).await.unwrap_or_else(|error| {
            tracing::error!(%error, "no victims could be chosen");
            Vec::new()
        });
        let mut freed: u64 = 0;
        let mut outdated = false;
        for digest in chosen {
            // What waited for room may have gone away, and others may have removed something.
            if self.pressure.wanted() == 0 {
                outdated = true;
                break;
            }
            match self.store.remove(&digest).await {
                Ok(0) => outdated = true,
                Ok(bytes) => {
                    freed = freed.saturating_add(bytes);
                    self.metrics.evictions.with_label_values(&["policy"]).inc();
                    self.metrics.evicted_bytes.inc_by(bytes);
                }
                Err(error) => tracing::error!(%error, "a victim cannot be removed"),
            }
        }
        match freed {
            0 if outdated => Round::Outdated,
            0 => Round::NothingRemovable,
            freed => Round::Freed(freed),
        }
    }
}
