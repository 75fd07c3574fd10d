//! The latency of operations by the number of repositories and tags in the bucket.

use super::document::{Goal, Section, Table, Target};
use super::image_transfer;
use super::load::Times;
use super::plot::Plot;
use super::push::{SYSTEMS, tag};
use super::rounds::{Form, ROUNDS, turns};
use super::systems::{ENTREPOT, Systems};
use crate::memory;
use crate::samples::{MIB, Samples};
use crate::template::{render, template};
use anyhow::{Context, Result, bail};
use entrepot_e2e::Registry;
use entrepot_e2e::push::Image;
use entrepot_e2e::s3::S3;
use futures::{StreamExt, TryStreamExt, stream};
use minijinja::context;
use std::time::{Duration, Instant};

/// Numbers of repositories in a bucket. One more repository has as many tags.
const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
/// The repository with that number of tags.
const MANY: &str = "many/tags";
/// Number of objects that are written to the bucket at the same time.
const WRITERS: usize = 32;
/// Repetitions of each operation in a round. The result is the median of their times.
const TIMES: usize = 20;
/// Time limit for a response. A measurement that exceeds it ends without a result.
const TIMEOUT: Duration = Duration::from_secs(60);

const PUSH: &str = "push";
const MISSED: &str = "pull, uncached";
const STORED: &str = "pull, cached";
const OPERATIONS: [&str; 6] = [PUSH, MISSED, STORED, "list 100 tags", "list referrers", "list 100 repositories"];

/// Times in milliseconds of each operation of one system at one size: a median for each round.
#[derive(Clone, Default)]
struct Latencies([Samples; OPERATIONS.len()]);

impl Latencies {
    fn add(&mut self, medians: [f64; OPERATIONS.len()]) {
        self.0.iter_mut().zip(medians).for_each(|(samples, median)| samples.0.push(median));
    }

    fn of(&self, operation: &str) -> Result<&Samples> {
        OPERATIONS
            .iter()
            .zip(&self.0)
            .find(|(name, _)| **name == operation)
            .map(|(_, of)| of)
            .with_context(|| format!("no operation {operation} was measured"))
    }
}

/// A bucket with a number of repositories and tags, and the systems over it.
struct Setting {
    size: usize,
    systems: Systems,
    /// The image to which all tags point.
    image: Image,
}

pub async fn measure(form: Form) -> Result<Section> {
    let sizes = if form == Form::Whole { &SIZES[..] } else { &SIZES[..2] };
    let mut settings = Vec::new();
    for size in sizes {
        settings.push(Setting::new(*size).await?);
    }
    let mut found = vec![<[Latencies; SYSTEMS.len()]>::default(); sizes.len()];
    for round in 0..ROUNDS {
        for system in turns(round, SYSTEMS.len()) {
            for (found, medians) in found.iter_mut().zip(a_round(&settings, SYSTEMS[system], round).await?) {
                found[system].add(medians);
            }
        }
    }
    let mut table = Table::new("Median times in ms", &[&["repositories and tags", "system"][..], &OPERATIONS].concat());
    for (size, of_both) in sizes.iter().zip(&found) {
        for (name, of) in SYSTEMS.iter().zip(of_both) {
            table.add([size.to_string(), (*name).to_owned()].into_iter().chain(of.0.iter().map(shown)).collect());
        }
    }
    let ours: Vec<_> = found.iter().map(|[ours, _]| ours).collect();
    let (first, last) = (ours.first().context("no size was measured")?, ours.last().context("no size was measured")?);
    let mut targets = Vec::new();
    for (name, operation) in [
        ("push, most repositories ÷ fewest", PUSH),
        ("uncached pull, most repositories ÷ fewest", MISSED),
        ("cached pull, most repositories ÷ fewest", STORED),
    ] {
        targets.push(Target::of(name, last.of(operation)?, first.of(operation)?, Goal::AtMost(1.2)));
    }
    let mut bars = Vec::new();
    for (size, of) in sizes.iter().zip(&ours) {
        for operation in [PUSH, MISSED, STORED] {
            bars.push((format!("{ENTREPOT}, {operation}, {size}"), of.of(operation)?.median()));
        }
    }
    let plots =
        vec![Plot { name: "growth", title: "Latency of Entrepot by number of repositories".into(), unit: "ms", bars }];
    let text = render(template!("growth"), context! { times => TIMES, time_limit => TIMEOUT.as_secs() })?;
    Ok(Section { title: "Growth", text, tables: vec![table, starts(&mut settings).await?], plots, targets })
}

/// The duration of a node's start with each bucket, and its memory.
async fn starts(settings: &mut [Setting]) -> Result<Table> {
    let mut table = Table::new(
        "Start of a node of Entrepot with the store of the run",
        &["repositories and tags", "start, s", "memory, MiB"],
    );
    for setting in settings {
        let (seconds, memory) = setting.systems.restart_entrepot().await?;
        table.add(vec![setting.size.to_string(), format!("{seconds:.2}"), format!("{:.0}", memory as f64 / MIB)]);
    }
    Ok(table)
}

fn shown(times: &Samples) -> String {
    if times.median().is_nan() { "—".to_owned() } else { times.shown("") }
}

/// The median time of each operation at each size.
async fn a_round(settings: &[Setting], system: &str, round: usize) -> Result<Vec<[f64; OPERATIONS.len()]>> {
    memory::settle()?;
    let mut times = Vec::new();
    for _ in settings {
        times.push([Times::new()?, Times::new()?, Times::new()?]);
    }
    for time in 0..TIMES {
        for index in turns(round + time, settings.len()) {
            settings[index].push_and_pull(system, &mut times[index]).await?;
        }
    }
    let mut medians = Vec::new();
    for (setting, [push, missed, stored]) in settings.iter().zip(times) {
        let [tags, referrers, catalog] = setting.lists(system).await?;
        medians.push([push.at(0.5), missed.at(0.5), stored.at(0.5), tags, referrers, catalog]);
    }
    Ok(medians)
}

impl Setting {
    async fn new(size: usize) -> Result<Setting> {
        let systems = Systems::start(None).await?;
        let image = Image::fresh(&[64 << 10]);
        image_transfer::push(&systems.bucket.pusher.registry, MANY, "first", &image).await?;
        populate(systems.s3(), &image, size).await?;
        Ok(Setting { size, systems, image })
    }

    /// Pushes an image, and pulls another image twice: first uncached, then cached.
    async fn push_and_pull(&self, system: &str, [push, missed, stored]: &mut [Times; 3]) -> Result<()> {
        let system = self.systems.system(system)?;
        let image = Image::fresh(&[64 << 10]);
        let start = Instant::now();
        image_transfer::push(&system.registry, "growth/pushed", &tag(&image), &image).await?;
        push.add(start.elapsed());
        let image = Image::fresh(&[64 << 10]);
        image_transfer::push(&self.systems.bucket.pusher.registry, "growth/pulled", &tag(&image), &image).await?;
        let urls = system.urls("growth/pulled", &tag(&image), &image).await?;
        for times in [missed, stored] {
            let start = Instant::now();
            image_transfer::pull(&system.downloads, &urls).await?;
            times.add(start.elapsed());
        }
        Ok(())
    }

    /// The median times of the three lists.
    async fn lists(&self, system: &str) -> Result<[f64; 3]> {
        let registry = &self.systems.system(system)?.registry;
        let tags = list(registry, &format!("/v2/{MANY}/tags/list?n=100")).await?;
        let referrers = list(registry, &format!("/v2/{MANY}/referrers/{}", self.image.digest)).await?;
        Ok([tags, referrers, list(registry, "/v2/_catalog?n=100").await?])
    }
}

/// Writes repositories and tags as objects. The content of their image is already in the bucket.
async fn populate(s3: &S3, image: &Image, size: usize) -> Result<()> {
    let manifest = image.digest.to_string();
    let objects = (0..size).flat_map(|number| {
        let repository = format!("group-{}/app-{number}", number % 100);
        let layers = image
            .blobs()
            .map(|blob| (format!("{repository}/_layers/sha256/{}", blob.digest.hex()), blob.digest.to_string()));
        let mut links: Vec<_> = layers.collect();
        let of = |folder: String| (folder, manifest.clone());
        links.push(of(format!("{repository}/_manifests/revisions/sha256/{}", image.digest.hex())));
        for (repository, tag) in [(repository.as_str(), "v1".to_owned()), (MANY, format!("v{number}"))] {
            let tags = format!("{repository}/_manifests/tags/{tag}");
            links.push(of(format!("{tags}/index/sha256/{}", image.digest.hex())));
            links.push(of(format!("{tags}/current")));
        }
        links
    });
    let write = |(folder, digest): (String, String)| async move {
        s3.put(&format!("docker/registry/v2/repositories/{folder}/link"), digest.into_bytes()).await
    };
    stream::iter(objects).map(write).buffer_unordered(WRITERS).try_collect().await
}

/// The median time of a list, or NaN if it takes too long or is not supported.
async fn list(registry: &Registry, path: &str) -> Result<f64> {
    let mut times = Times::new()?;
    let start = Instant::now();
    while times.count() < TIMES as u64 && start.elapsed() < TIMEOUT {
        let begun = Instant::now();
        match tokio::time::timeout(TIMEOUT, registry.get(path)).await {
            Ok(Ok(reply)) if reply.status == 200 => times.add(begun.elapsed()),
            // Distribution has no referrers API.
            Ok(Ok(reply)) if reply.status == 404 => return Ok(f64::NAN),
            Ok(Ok(reply)) => bail!("{path}: expected status 200 or 404, got {}", reply.status),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(f64::NAN),
        }
    }
    Ok(times.at(0.5))
}
