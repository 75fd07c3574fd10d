//! A store of 1 GiB under 10 GiB of pushes and pulls: it never exceeds its capacity, has enough
//! free space after every eviction run, evicts exactly what the policy selects, and no pull fails.

use anyhow::{Context, Result, ensure};
use entrepot_config::{ByteSize, EvictionPolicy};
use entrepot_e2e::node::{Metrics, Plan};
use entrepot_e2e::servers::Versitygw;
use entrepot_e2e::{Content, Node, disks, s3};
use entrepot_oci::Digest;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const CAPACITY: u64 = 1 << 30;
/// Bytes pushed and pulled in total.
const TRAFFIC: u64 = 10 << 30;
const HOT: u64 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn the_least_recently_used_content_is_evicted_first() {
    // Each hot blob is requested every eight steps, so it is never the least recently used.
    run(EvictionPolicy::LeastRecentlyUsed, 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_frequently_used_content_is_evicted_first() {
    // Less often than the whole store is replaced: by recency, the hot blobs would be evicted.
    run(EvictionPolicy::LeastFrequentlyUsed, 10).await.unwrap();
}

/// What the test knows about stored content: the number of requests since it was stored, with
/// decay, and the step of the last one.
#[derive(Clone, Copy, Debug)]
struct Use {
    count: f64,
    last: u64,
}

/// The reference model: all uses of content, in the order of the test's steps.
struct Model {
    policy: EvictionPolicy,
    step: u64,
    uses: BTreeMap<Digest, Use>,
}

impl Model {
    fn used(&mut self, digest: Digest) {
        self.step += 1;
        // An earlier request counts half after eight further requests per stored item.
        let aged = 0.5f64.powf(1.0 / (8.0 * self.uses.len().max(1) as f64));
        self.uses.values_mut().for_each(|other| other.count *= aged);
        let entry = self.uses.entry(digest).or_insert(Use { count: 0.0, last: 0 });
        *entry = Use { count: entry.count + 1.0, last: self.step };
    }

    /// The smallest rank is evicted first.
    fn rank(&self, digest: &Digest) -> f64 {
        match self.policy {
            EvictionPolicy::LeastRecentlyUsed => self.uses[digest].last as f64,
            EvictionPolicy::LeastFrequentlyUsed => self.uses[digest].count,
        }
    }

    /// How much higher the count of an evicted item may be than that of a kept one. The test does
    /// not know whether a use came before or after the evictions of a run. With 32 or 40 stored
    /// items, this shifts counts by about a thousandth of a half-life per run, and there are about
    /// sixty runs.
    fn leeway(&self) -> f64 {
        match self.policy {
            EvictionPolicy::LeastRecentlyUsed => 1.0,
            EvictionPolicy::LeastFrequentlyUsed => 1.05,
        }
    }

    /// Takes over what is stored now. Everything that was evicted must rank before everything that
    /// was kept.
    fn check(&mut self, stored: &BTreeSet<Digest>) -> Result<()> {
        let (left, gone): (Vec<_>, Vec<_>) = self.uses.keys().copied().partition(|digest| stored.contains(digest));
        let by_rank = |one: &&Digest, other: &&Digest| self.rank(one).total_cmp(&self.rank(other));
        let last_gone = gone.iter().max_by(by_rank);
        let first_left = left.iter().min_by(by_rank);
        if let (Some(gone), Some(left)) = (last_gone, first_left) {
            let (removed, kept) = (self.uses[gone], self.uses[left]);
            let right = self.rank(gone) < self.rank(left) * self.leeway();
            ensure!(right, "step {}: {removed:?} was evicted and {kept:?} was kept", self.step);
        }
        gone.iter().for_each(|digest| {
            self.uses.remove(digest);
        });
        Ok(())
    }
}

struct Run {
    node: Node,
    model: Model,
    traffic: u64,
    cleanings: f64,
    victims: f64,
    most_used: f64,
}

impl Run {
    async fn push(&mut self, blob: &Content) -> Result<()> {
        self.node.registry.retrying(Duration::from_secs(30)).push("cleaning/app", blob).await?;
        self.after(blob).await
    }

    /// Pulls a blob; returns whether it was stored.
    async fn pull(&mut self, blob: &Content) -> Result<bool> {
        let hits = self.metrics().await?.sum("fetches_total", &["result=\"hit\""]);
        self.node.registry.pull("cleaning/app", &blob.digest).await.context("pull failed")?;
        let hit = self.metrics().await?.sum("fetches_total", &["result=\"hit\""]) > hits;
        self.after(blob).await?;
        Ok(hit)
    }

    async fn metrics(&self) -> Result<Metrics> {
        self.node.metrics().await
    }

    /// Whether there is enough free space and no eviction is running.
    fn is_settled(&self, metrics: &Metrics) -> bool {
        let running = victims(metrics) > self.victims && cleanings(metrics) == self.cleanings;
        metrics.sum("store_free_bytes", &[]) >= metrics.sum("store_low_free_bytes", &[]) && !running
    }

    /// Waits until the evictions that the step caused are over, and checks them.
    async fn after(&mut self, blob: &Content) -> Result<()> {
        self.traffic += blob.size;
        self.model.used(blob.digest);
        let start = Instant::now();
        let (free, cleaned) = loop {
            // The metrics are not read atomically: the first read may see the end of an eviction
            // run without its evictions. The second read sees both.
            let first = self.metrics().await?;
            let metrics = if self.is_settled(&first) { self.metrics().await? } else { first };
            let free = metrics.sum("store_free_bytes", &[]);
            self.most_used = self.most_used.max(metrics.sum("store_used_bytes", &[]));
            if self.is_settled(&metrics) {
                let victims = victims(&metrics);
                let cleaned = victims > self.victims;
                (self.victims, self.cleanings) = (victims, cleanings(&metrics));
                let target = metrics.sum("store_target_free_bytes", &[]);
                // A blob that was being written when the run ended is not the run's fault.
                ensure!(
                    !cleaned || free + blob.size as f64 >= target,
                    "an eviction run left {free} of {target} bytes free"
                );
                break (free, cleaned);
            }
            ensure!(start.elapsed() < Duration::from_secs(20), "eviction does not finish: {free} bytes are free");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        ensure!(self.most_used <= CAPACITY as f64, "{} bytes were stored", self.most_used);
        let (stored, bytes) = stored(&self.node.store())?;
        ensure!(bytes <= CAPACITY, "{bytes} bytes are on the disk with {free} free");
        if cleaned {
            self.model.check(&stored)?;
        }
        Ok(())
    }
}

fn victims(metrics: &Metrics) -> f64 {
    metrics.sum("evictions_total", &["reason=\"policy\""])
}

/// Number of completed eviction runs.
fn cleanings(metrics: &Metrics) -> f64 {
    metrics.sum("clean_duration_seconds_count", &[])
}

/// Runs the traffic. A hot blob is requested after every `pause` steps.
async fn run(policy: EvictionPolicy, pause: u64) -> Result<()> {
    // Everything that is pushed stays in the bucket.
    disks::need(CAPACITY + TRAFFIC)?;
    // Not with a folder as the bucket: there a pushed file becomes the object, and only pulls fill
    // the store.
    let (server, keys) = (Versitygw::start().await?, TempDir::new()?);
    let plan = Plan::over(s3::node_bucket(&server.s3.endpoint, keys.path())?).with(|config| {
        config.store.capacity = Some(ByteSize::bytes(CAPACITY));
        config.store.eviction_policy = policy;
    });
    let model = Model { policy, step: 0, uses: BTreeMap::new() };
    let node = plan.start().await?;
    let mut run = Run { node, model, traffic: 0, cleanings: 0.0, victims: 0.0, most_used: 0.0 };
    run.all(pause).await
}

impl Run {
    /// Pushes and pulls until the traffic is complete.
    async fn all(&mut self, pause: u64) -> Result<()> {
        let start = Instant::now();
        let hot: Vec<_> = (0..HOT).map(|number| Content::new(number, 8 << 20)).collect();
        for blob in &hot {
            self.push(blob).await?;
        }
        for blob in hot.iter().cycle().take(4 * hot.len()) {
            ensure!(self.pull(blob).await?, "the pushed blob is not stored");
        }
        // A fixed seed, so that the traffic is the same each time.
        let mut random = SmallRng::seed_from_u64(7);
        let mut cold: Vec<Content> = Vec::new();
        let (mut steps, mut misses) = (0, 0);
        while self.traffic < TRAFFIC {
            if cold.len() < 20 || random.random_bool(0.6) {
                let blob = Content::new(1000 + steps, random.random_range(4u64 << 20..48 << 20));
                self.push(&blob).await?;
                cold.push(blob);
            } else {
                let blob = cold[random.random_range(0..cold.len())];
                misses += u64::from(!self.pull(&blob).await?);
            }
            if steps % pause == 0 {
                let blob = &hot[(steps / pause % HOT) as usize];
                ensure!(self.pull(blob).await?, "step {steps}: hot content was evicted");
            }
            steps += 1;
        }
        println!(
            "{:?}: {} MiB in {steps} steps and {:.0?}: {} cleanings removed {} blobs, {misses} pulls missed, at most \
         {} MiB stored",
            self.model.policy,
            self.traffic >> 20,
            start.elapsed(),
            self.cleanings,
            self.victims,
            self.most_used as u64 >> 20,
        );
        ensure!(
            self.victims > 100.0 && misses > 10,
            "the traffic caused too few evictions or misses to prove anything"
        );
        Ok(())
    }
}

/// The stored digests, and the disk usage of the store's folder in bytes.
fn stored(store: &Path) -> Result<(BTreeSet<Digest>, u64)> {
    let (mut digests, mut bytes) = (BTreeSet::new(), 0);
    let mut folders = vec![store.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            // The file was evicted meanwhile.
            let Ok(about) = entry.metadata() else { continue };
            if about.is_dir() {
                folders.push(entry.path());
                continue;
            }
            // The access statistics and locks are not content; they are a few KiB.
            if entry.path().strip_prefix(store)?.components().count() > 1 {
                bytes += about.len();
            }
            let name = entry.file_name();
            digests.extend(name.to_str().and_then(|hex| Digest::parse(&format!("sha256:{hex}")).ok()));
        }
    }
    Ok((digests, bytes))
}
