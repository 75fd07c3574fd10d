//! Cache hits by trace, size of the store and eviction policy.

use super::content::{self, SIZE};
use crate::download::Downloads;
use crate::peers::document::Table;
use crate::peers::request_traces::{CONTENTS, REQUESTS, Trace, hits_by_count, most_hits};
use crate::peers::systems::Bucket;
use crate::samples::MIB;
use crate::template::{render, template};
use anyhow::Result;
use entrepot_config::{ByteSize, EvictionPolicy};
use entrepot_e2e::Content;
use entrepot_e2e::servers::{Distribution, Driver};
use minijinja::context;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Sizes of the store, in percent of all blobs.
const PARTS: [usize; 4] = [1, 5, 10, 25];
/// The size of the plot.
const PLOTTED: usize = 10;
const POLICIES: [(&str, EvictionPolicy); 2] =
    [("LRU", EvictionPolicy::LeastRecentlyUsed), ("LFU", EvictionPolicy::LeastFrequentlyUsed)];
const COLUMNS: [&str; 7] = [
    "trace",
    "store size, % of all blobs",
    "LRU",
    "LFU",
    "LFU without ageing",
    "optimum (Belady)",
    "default ÷ best policy",
];

/// The hits of all traces.
pub struct Hits {
    pub table: Table,
    pub bars: Vec<(String, f64)>,
    /// Hits of the default policy, as a ratio of those of the best policy.
    pub worst_ratio: f64,
}

/// The hits of one trace at one size of the store, as fractions of its requests.
struct Row {
    /// In the order of [`POLICIES`].
    measured: Vec<f64>,
    without_ageing: f64,
    optimum: f64,
}

/// Replays every trace with every policy and size of the store.
///
/// # Errors
/// If a node does not start or a request fails.
pub async fn measure(bucket: &Bucket, contents: &[Content]) -> Result<Hits> {
    let mut hits =
        Hits { table: Table::new("Cache hits, % of requests", &COLUMNS), bars: Vec::new(), worst_ratio: f64::INFINITY };
    for trace in Trace::ALL {
        let requests = trace.requests();
        for part in PARTS {
            let room = CONTENTS * part / 100;
            let mut measured = Vec::new();
            for (_, policy) in POLICIES {
                measured.push(of_policy(bucket, contents, &requests, room, policy).await?);
            }
            let of_all = |hits: usize| hits as f64 / REQUESTS as f64;
            let row = Row {
                measured,
                without_ageing: of_all(hits_by_count(&requests, room)),
                optimum: of_all(most_hits(&requests, room)),
            };
            hits.add(trace, part, &row);
        }
    }
    Ok(hits)
}

impl Hits {
    fn add(&mut self, trace: Trace, part: usize, row: &Row) {
        let ratio = row.default_ratio();
        self.worst_ratio = self.worst_ratio.min(ratio);
        let percent = |part: f64| format!("{:.1}", part * 100.0);
        let mut cells = vec![trace.name().to_owned(), part.to_string()];
        cells.extend(row.measured.iter().map(|hits| percent(*hits)));
        cells.extend([percent(row.without_ageing), percent(row.optimum), format!("{ratio:.2}")]);
        self.table.add(cells);
        if part == PLOTTED {
            for ((name, _), hits) in POLICIES.iter().zip(&row.measured) {
                self.bars.push((format!("{name}, {}", trace.name()), hits * 100.0));
            }
            self.bars.push((format!("Belady, {}", trace.name()), row.optimum * 100.0));
        }
    }
}

impl Row {
    /// Hits of the default policy, as a ratio of those of the best policy.
    fn default_ratio(&self) -> f64 {
        let best = self.measured.iter().copied().fold(self.without_ageing, f64::max);
        let default = POLICIES.iter().zip(&self.measured).find(|((_, policy), _)| *policy == EvictionPolicy::default());
        default.map_or(f64::NAN, |(_, hits)| hits / best)
    }
}

/// The fraction of requests that a node with room for `room` blobs serves without the bucket.
async fn of_policy(
    bucket: &Bucket,
    contents: &[Content],
    requests: &[usize],
    room: usize,
    policy: EvictionPolicy,
) -> Result<f64> {
    let node = content::node(bucket, |config| {
        config.store.capacity = Some(ByteSize::bytes(room as u64 * SIZE));
        config.store.eviction_policy = policy;
    })
    .await?;
    content::replay(&Downloads::from(node.registry.url()), contents, requests).await?;
    let metrics = node.metrics().await?;
    let of = |result: &str| metrics.sum("fetches_total", &[&format!("result=\"{result}\"")]);
    Ok((of("hit") + of("joined")) / requests.len() as f64)
}

/// Replays a trace at Distribution's pull-through cache, which keeps each blob until its time to
/// live has passed. Returns the sentences for the document.
///
/// # Errors
/// If the cache does not start or a request fails.
pub async fn of_pull_through(bucket: &Bucket, contents: &[Content]) -> Result<String> {
    let folder = TempDir::new()?;
    let origin = Distribution::with_cache(Driver::S3(&bucket.server.s3)).await?;
    let mirror = Distribution::mirror_of(origin.registry.url(), folder.path()).await?;
    let requests = Trace::Zipf.requests();
    content::replay(&Downloads::from(mirror.registry.url()), contents, &requests).await?;
    let requested: HashSet<_> = requests.iter().collect();
    let bytes = size_of(folder.path())? as f64;
    let values = context! {
        hits => (REQUESTS - requested.len()) as f64 * 100.0 / REQUESTS as f64,
        mib => bytes / MIB,
        part => bytes * 100.0 / (CONTENTS as u64 * SIZE) as f64,
    };
    render(template!("eviction_pull_through"), values)
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
