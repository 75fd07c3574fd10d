//! Cache hits with a store that is smaller than the content, and the effect of eviction on
//! concurrent pulls.

use super::document::{Goal, Plot, Section, Table, Target};
use super::fleet::Bucket;
use super::load::{closed, open};
use super::trace::{CONTENTS, REQUESTS, Trace, hits_by_count, most_hits};
use super::{Form, steps, turns};
use crate::Node;
use crate::bench::download::Downloads;
use crate::bench::memory;
use crate::bench::report::{MIB, Samples};
use crate::content::Content;
use crate::servers::{Distribution, Driver};
use anyhow::{Result, ensure};
use entrepot_config::{ByteSize, EvictionPolicy, NodeConfig};
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

const REPOSITORY: &str = "bench/cleaning";
/// Size in bytes of each blob of the traces.
const SIZE: u64 = 64 << 10;
/// Sizes of the store, in percent of all blobs.
const PARTS: [usize; 4] = [1, 5, 10, 25];
const CLIENTS: usize = 4;
/// Number of rounds with and without eviction. Now and then the p99 of a round, with or without
/// eviction, is ten times that of the others.
const CLEANING_ROUNDS: usize = 8;
const POLICIES: [(&str, EvictionPolicy); 2] =
    [("LRU", EvictionPolicy::LeastRecentlyUsed), ("LFU", EvictionPolicy::LeastFrequentlyUsed)];

pub async fn measure(form: Form) -> Result<Section> {
    let bucket = Bucket::new().await?;
    let contents = bucket.push(CONTENTS, SIZE).await?;
    let mut table = Table::new(
        "Cache hits, % of requests",
        &[
            "trace",
            "store size, % of all blobs",
            "LRU",
            "LFU",
            "LFU without ageing",
            "optimum (Belady)",
            "default ÷ best policy",
        ],
    );
    let mut worst: f64 = f64::INFINITY;
    let mut bars = Vec::new();
    for trace in Trace::ALL {
        let requests = trace.requests();
        for part in PARTS {
            let room = CONTENTS * part / 100;
            let mut hits = Vec::new();
            for (_, policy) in POLICIES {
                hits.push(bucket.hits(&contents, &requests, room, policy).await?);
            }
            let ageless = hits_by_count(&requests, room) as f64 / REQUESTS as f64;
            let better = hits.iter().copied().fold(ageless, f64::max);
            let default = POLICIES.iter().zip(&hits).find(|((_, policy), _)| *policy == EvictionPolicy::default());
            let ratio = default.map_or(f64::NAN, |(_, hits)| hits / better);
            worst = worst.min(ratio);
            let best = most_hits(&requests, room) as f64 / REQUESTS as f64;
            let percent = |part: f64| format!("{:.1}", part * 100.0);
            let mut row = vec![trace.name().to_owned(), part.to_string()];
            row.extend(hits.iter().map(|hits| percent(*hits)));
            row.extend([percent(ageless), percent(best), format!("{ratio:.2}")]);
            table.add(row);
            if part == 10 {
                for ((name, _), hits) in POLICIES.iter().zip(&hits) {
                    bars.push((format!("{name}, {}", trace.name()), hits * 100.0));
                }
                bars.push((format!("Belady, {}", trace.name()), best * 100.0));
            }
        }
    }
    let mirrored = if form == Form::Whole { mirrored(&bucket, &contents).await? } else { String::new() };
    let (latency, slower) = while_cleaning(&bucket).await?;
    let targets = vec![
        Target {
            name: "hits of the default policy ÷ hits of the best policy, worst trace",
            ratio: Samples(vec![worst]),
            goal: Goal::AtLeast(0.9),
        },
        Target { name: "p99 of cached pulls, with eviction ÷ without", ratio: slower, goal: Goal::AtMost(1.5) },
    ];
    let text = format!(
        "{CLIENTS} clients pull {CONTENTS} blobs of 64 KiB in {REQUESTS} requests from a node over S3. The store of \
         the node is smaller than all blobs together; the node evicts content when less than 10 % of the store is \
         free, until 20 % are free. The hits of LRU and LFU are measured. LFU without ageing is computed for the same \
         thresholds; an evicted blob starts at zero. The optimum (Belady) is computed for a store that is always full. \
         The best policy is the best of LRU, LFU and LFU without ageing; the default policy is LFU. The traces are \
         synthetic: Zipf with an exponent of 0.9; the same with a scan of a tenth of all blobs after every 2,000 \
         requests; the same with other popular blobs after every quarter of the requests.{mirrored}"
    );
    let plots = vec![Plot { name: "hits", title: "Cache hits, store size 10 % of all blobs".into(), unit: "%", bars }];
    Ok(Section { title: "Eviction", text, tables: vec![table, latency], plots, targets })
}

impl Bucket {
    async fn push(&self, count: usize, size: u64) -> Result<Vec<Content>> {
        let contents: Vec<_> = (0..count).map(|_| Content::fresh(size)).collect();
        let mut pushes = Vec::new();
        for content in &contents {
            pushes.push(self.pusher.registry.push(REPOSITORY, content));
        }
        stream::iter(pushes).buffer_unordered(16).try_for_each(|_| async { Ok(()) }).await?;
        Ok(contents)
    }

    async fn node(&self, change: impl FnOnce(&mut NodeConfig)) -> Result<Node> {
        self.plan(&self.server.s3.endpoint)?.with(change).start().await
    }

    /// The fraction of requests that a node with room for `room` blobs serves without the bucket.
    async fn hits(&self, contents: &[Content], requests: &[usize], room: usize, policy: EvictionPolicy) -> Result<f64> {
        let node = self
            .node(|config| {
                config.store.capacity = Some(ByteSize::bytes(room as u64 * SIZE));
                config.store.eviction_policy = policy;
            })
            .await?;
        replay(&Downloads::from(node.registry.url()), contents, requests).await?;
        let metrics = node.metrics().await?;
        let of = |result: &str| metrics.sum("fetches_total", &[&format!("result=\"{result}\"")]);
        Ok((of("hit") + of("joined")) / requests.len() as f64)
    }
}

async fn replay(downloads: &Downloads, contents: &[Content], requests: &[usize]) -> Result<()> {
    let paths = requests.iter().map(|number| blob(&contents[*number])).collect();
    let outcome =
        closed(CLIENTS, paths, |path: Arc<String>| async move { steps::get(downloads, &path, SIZE).await }).await?;
    ensure!(outcome.failures.is_empty(), "{:?}", outcome.failures.first());
    Ok(())
}

fn blob(content: &Content) -> String {
    format!("/v2/{REPOSITORY}/blobs/{}", content.digest)
}

/// Replays a trace at Distribution's pull-through cache, which keeps each blob until its time to
/// live has passed.
async fn mirrored(bucket: &Bucket, contents: &[Content]) -> Result<String> {
    let folder = TempDir::new()?;
    let origin = Distribution::with_cache(Driver::S3(&bucket.server.s3)).await?;
    let mirror = Distribution::mirror_of(origin.registry.url(), folder.path()).await?;
    let requests = Trace::Zipf.requests();
    replay(&Downloads::from(mirror.registry.url()), contents, &requests).await?;
    let asked: HashSet<_> = requests.iter().collect();
    Ok(format!(
        " Distribution's pull-through cache has no size limit: it keeps each blob until its time to live has passed. \
         It therefore misses each blob once ({:.1} % hits in the Zipf trace). After that trace it had {:.0} MiB on \
         disk, {:.0} % of all blobs.",
        (REQUESTS - asked.len()) as f64 * 100.0 / REQUESTS as f64,
        size_of(folder.path())? as f64 / MIB,
        size_of(folder.path())? as f64 * 100.0 / (CONTENTS as u64 * SIZE) as f64,
    ))
}

/// Total size in bytes of the files below a directory.
fn size_of(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { size_of(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}

/// Clients request cached blobs of 256 KiB at a fixed rate, while others request uncached blobs of
/// 4 MiB at a fixed rate: once with a store that has room for all of them, and once with a store so
/// small that the node evicts all the time. At this rate, about two dozen requests of a round are
/// above its p99.
async fn while_cleaning(bucket: &Bucket) -> Result<(Table, Samples)> {
    const SECONDS: usize = 6;
    const STORED_RATE: usize = 400;
    const MISSED_RATE: usize = 20;
    const CAPACITIES: [ByteSize; 2] = [ByteSize::mebibytes(8192), ByteSize::mebibytes(128)];
    let hot = bucket.push(16, 256 << 10).await?;
    let mut found = [[Samples::default(), Samples::default()], [Samples::default(), Samples::default()]];
    let mut cleanings = [0.0; 2];
    for round in 0..CLEANING_ROUNDS {
        let missed: Vec<_> = bucket.push(SECONDS * MISSED_RATE, 4 << 20).await?.iter().map(blob).collect();
        for index in turns(round, CAPACITIES.len()) {
            let node = bucket.node(|config| config.store.capacity = Some(CAPACITIES[index])).await?;
            let downloads = Downloads::from(node.registry.url());
            for content in &hot {
                downloads.get(&blob(content)).await?;
            }
            let pull = |path: Arc<String>| {
                let downloads = downloads.clone();
                async move { downloads.get(&path).await }
            };
            let stored = hot.iter().cycle().take(SECONDS * STORED_RATE).map(blob).collect();
            memory::settle()?;
            let (stored, missed) = tokio::try_join!(
                open(STORED_RATE as f64, stored, pull),
                open(MISSED_RATE as f64, missed.clone(), pull)
            )?;
            ensure!(stored.failures.is_empty() && missed.failures.is_empty(), "{:?}", stored.failures.first());
            let metrics = node.metrics().await?;
            ensure!(
                metrics.sum("fills_total", &[]) as usize == hot.len() + missed.done.len(),
                "the node evicted a blob of the cached set"
            );
            cleanings[index] += metrics.sum("clean_duration_seconds_count", &[]);
            found[index][0].0.push(stored.times.at(0.5));
            found[index][1].0.push(stored.times.at(0.99));
        }
    }
    ensure!(cleanings[1] > 10.0, "expected more than 10 eviction runs, found {}", cleanings[1]);
    let mut table = Table::new(
        &format!(
            "Latency of cached blobs of 256 KiB, {STORED_RATE} requests per second, while {MISSED_RATE} uncached \
             blobs of 4 MiB are requested per second, {CLEANING_ROUNDS} rounds"
        ),
        &["store", "eviction runs", "p50 ms", "p99 ms"],
    );
    for ((name, cleanings), [p50, p99]) in ["room for all blobs", "constant eviction"].iter().zip(cleanings).zip(&found)
    {
        table.add(vec![(*name).to_owned(), cleanings.to_string(), p50.shown(""), p99.shown("")]);
    }
    let ratio = found[1][1].0.iter().zip(&found[0][1].0).map(|(with, without)| with / without).collect();
    Ok((table, Samples(ratio)))
}
