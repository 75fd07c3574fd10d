//! The latency of cached blobs while uncached blobs are requested, with and without eviction.

use super::content;
use crate::download::Downloads;
use crate::memory;
use crate::peers::document::Table;
use crate::peers::load::open;
use crate::peers::rounds::turns;
use crate::peers::systems::Bucket;
use crate::samples::Samples;
use anyhow::{Result, ensure};
use entrepot_config::ByteSize;
use entrepot_e2e::Content;
use std::sync::Arc;

/// Number of rounds with and without eviction. Now and then the p99 of a round, with or without
/// eviction, is ten times that of the others.
const ROUNDS: usize = 8;
const SECONDS: usize = 6;
/// Requests of cached blobs per second. At this rate, about two dozen requests of a round are above
/// its p99.
const CACHED_RATE: usize = 400;
/// Requests of uncached blobs per second.
const UNCACHED_RATE: usize = 20;
/// The size of each uncached blob in bytes.
const UNCACHED_SIZE: u64 = 4 << 20;
/// A store with room for all blobs, and one that is so small that the node evicts all the time.
const STORES: [(&str, ByteSize); 2] =
    [("room for all blobs", ByteSize::mebibytes(8192)), ("constant eviction", ByteSize::mebibytes(128))];

/// The measurements with one store.
#[derive(Default)]
struct Latency {
    p50: Samples,
    p99: Samples,
    eviction_runs: f64,
}

/// Clients request cached blobs of 256 KiB at a fixed rate, while others request uncached blobs of
/// 4 MiB at a fixed rate, with each of the two stores. Returns the table, and the p99 with eviction
/// as a ratio of that without.
///
/// # Errors
/// If a node does not start, a request fails, or the nodes do not evict as planned.
pub async fn measure(bucket: &Bucket) -> Result<(Table, Samples)> {
    let cached = content::push(bucket, 16, 256 << 10).await?;
    let mut found = <[Latency; STORES.len()]>::default();
    for round in 0..ROUNDS {
        let uncached = content::push(bucket, SECONDS * UNCACHED_RATE, UNCACHED_SIZE).await?;
        for index in turns(round, STORES.len()) {
            found[index].add(bucket, STORES[index].1, &cached, &uncached).await?;
        }
    }
    let [without, with] = &found;
    ensure!(with.eviction_runs > 10.0, "expected more than 10 eviction runs, found {}", with.eviction_runs);
    let mut table = Table::new(
        &format!(
            "Latency of cached blobs of 256 KiB, {CACHED_RATE} requests per second, while {UNCACHED_RATE} uncached \
             blobs of 4 MiB are requested per second, {ROUNDS} rounds"
        ),
        &["store", "eviction runs", "p50 ms", "p99 ms"],
    );
    for ((name, _), of) in STORES.iter().zip(&found) {
        table.add(vec![(*name).to_owned(), of.eviction_runs.to_string(), of.p50.shown(""), of.p99.shown("")]);
    }
    let ratio = with.p99.0.iter().zip(&without.p99.0).map(|(with, without)| with / without).collect();
    Ok((table, Samples(ratio)))
}

impl Latency {
    /// Adds a round with a new node.
    async fn add(
        &mut self,
        bucket: &Bucket,
        capacity: ByteSize,
        cached: &[Content],
        uncached: &[Content],
    ) -> Result<()> {
        let node = content::node(bucket, |config| config.store.capacity = Some(capacity)).await?;
        let downloads = Downloads::from(node.registry.url());
        for content in cached {
            downloads.get(&content::path(content)).await?;
        }
        let pull = |path: Arc<String>| {
            let downloads = downloads.clone();
            async move { downloads.get(&path).await }
        };
        let cached_paths = cached.iter().cycle().take(SECONDS * CACHED_RATE).map(content::path).collect();
        let uncached_paths = uncached.iter().map(content::path).collect();
        memory::settle()?;
        let (of_cached, of_uncached) = tokio::try_join!(
            open(CACHED_RATE as f64, cached_paths, pull),
            open(UNCACHED_RATE as f64, uncached_paths, pull)
        )?;
        ensure!(
            of_cached.failures.is_empty() && of_uncached.failures.is_empty(),
            "{:?}",
            of_cached.failures.iter().chain(&of_uncached.failures).next()
        );
        let metrics = node.metrics().await?;
        ensure!(
            metrics.sum("fills_total", &[]) as usize == cached.len() + of_uncached.done.len(),
            "the node evicted a blob of the cached set"
        );
        self.eviction_runs += metrics.sum("clean_duration_seconds_count", &[]);
        self.p50.0.push(of_cached.times.at(0.5));
        self.p99.0.push(of_cached.times.at(0.99));
        Ok(())
    }
}
