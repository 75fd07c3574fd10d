//! The task that waits until space is short and then evicts content.

use super::victims::victims;
use crate::observe::Metrics;
use crate::store::{CleanerHandle, Store, UnusedSessions};
use entrepot_config::EvictionPolicy;
use entrepot_runtime::Tasks;
use entrepot_runtime::clock::Stopwatch;
use entrepot_runtime::tasks::blocking;
use std::sync::Arc;
use std::time::Duration;

/// How often expired sessions are removed while space is not short. They expire after hours, so a
/// minute makes no difference.
const EXPIRY_PAUSE: Duration = Duration::from_secs(60);

/// Runs eviction in the background until the tasks stop. From this call on, reservations wait for
/// it if there is no space.
pub fn start(
    tasks: &Tasks,
    store: Store,
    policy: EvictionPolicy,
    sessions: Arc<dyn UnusedSessions>,
    metrics: Arc<Metrics>,
) {
    // Created here and not in the task, so that no later reservation is refused because the task
    // has not started.
    let cleaner = Cleaner::new(store, policy, sessions, metrics);
    let stop = tasks.clone();
    tasks.spawn("clean", async move {
        tokio::select! {
            // An eviction run can stop at any point: each removal is complete by itself.
            () = stop.stopping() => {}
            () = cleaner.run() => {}
        }
    });
}

pub(super) struct Cleaner {
    store: Store,
    pressure: CleanerHandle,
    policy: EvictionPolicy,
    sessions: Arc<dyn UnusedSessions>,
    metrics: Arc<Metrics>,
}

/// The result of one round of evictions.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Round {
    /// The number of bytes freed.
    Freed(u64),
    /// Nothing was removed, because no space was needed any more or the chosen content was pinned
    /// in the meantime. Another round is needed. Requests that wait now may have come since, and
    /// must not be refused because of this round.
    Outdated,
    /// Nothing was removed, because nothing may be removed.
    NothingRemovable,
}

impl Cleaner {
    /// Registers as the store's cleaner.
    pub(super) fn new(
        store: Store,
        policy: EvictionPolicy,
        sessions: Arc<dyn UnusedSessions>,
        metrics: Arc<Metrics>,
    ) -> Cleaner {
        Cleaner { pressure: store.room.cleaner(), store, policy, sessions, metrics }
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

    /// Runs one eviction, if space is short.
    pub(super) async fn clean_if_short(&self) {
        if self.pressure.is_short() {
            self.clean().await;
        }
    }

    /// Evicts until no more space is needed, or nothing more can be removed.
    async fn clean(&self) {
        let spent = Stopwatch::start();
        self.expire_sessions().await;
        let mut freed: u64 = 0;
        loop {
            let wanted = self.pressure.wanted();
            if wanted == 0 {
                break;
            }
            // Content is chosen again in each round, because it is written, used and pinned in the
            // meantime.
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
        self.metrics.store.eviction_seconds.observe(seconds);
        let free = self.store.room.usage().free;
        if freed > 0 {
            tracing::info!(freed, free, seconds, "freed space in the store");
        } else {
            tracing::debug!(free, seconds, "an eviction run found nothing to remove");
        }
    }

    async fn expire_sessions(&self) {
        self.metrics.store.evicted_bytes.inc_by(self.sessions.expire().await);
    }

    /// Removes unfinished uploads, but only for requests that wait for space, never to reach
    /// `targetFree`.
    async fn sessions_give_way(&self) -> u64 {
        // `wanted` includes the free space of the target; the rest is what waiting requests need.
        let missing = self.pressure.wanted().saturating_sub(self.store.room.usage().target_free);
        if missing == 0 {
            return 0;
        }
        let freed = self.sessions.give_way(missing).await;
        self.metrics.store.evicted_bytes.inc_by(freed);
        freed
    }

    /// Runs one round. Waiting requests get their space as soon as enough is freed, not at the end.
    pub(super) async fn remove_victims(&self, wanted: u64) -> Round {
        let (store, policy) = (self.store.clone(), self.policy);
        let chosen =
            blocking(move || victims(policy, store.contents.records(), wanted)).await.unwrap_or_else(|error| {
                tracing::error!(%error, "cannot select content to evict");
                Vec::new()
            });
        let mut freed: u64 = 0;
        let mut outdated = false;
        for digest in chosen {
            // The waiting request may have been cancelled, or space may have been freed by others.
            if self.pressure.wanted() == 0 {
                outdated = true;
                break;
            }
            match self.store.contents.remove(&digest).await {
                Ok(0) => outdated = true,
                Ok(bytes) => {
                    freed = freed.saturating_add(bytes);
                    self.metrics.store.evictions.with_label_values(&["policy"]).inc();
                    self.metrics.store.evicted_bytes.inc_by(bytes);
                }
                Err(error) => tracing::error!(%error, "cannot evict content"),
            }
        }
        match freed {
            0 if outdated => Round::Outdated,
            0 => Round::NothingRemovable,
            freed => Round::Freed(freed),
        }
    }
}
