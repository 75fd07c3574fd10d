//! How latencies grow with what is in the bucket.

use super::document::{Goal, Plot, Section, Table, Target};
use super::fleet::{DISTRIBUTION, ENTREPOT, Fleet};
use super::load::Times;
use super::push::tag;
use super::{Form, steps};
use crate::Registry;
use crate::bench::memory;
use crate::bench::report::{MIB, Samples};
use crate::push::Image;
use crate::s3::S3;
use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use std::time::{Duration, Instant};

/// Repositories in the bucket, and tags of one more repository.
const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
/// The repository with all the tags.
const MANY: &str = "many/tags";
/// Objects that are written to the bucket at once.
const WRITERS: usize = 32;
/// Each operation is done so often; its time is the median.
const TIMES: usize = 20;
/// An answer that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Milliseconds of each operation of one system at one size.
#[derive(Default)]
struct Latencies(Vec<(&'static str, f64)>);

pub async fn measure(form: Form) -> Result<Section> {
    let sizes = if form == Form::Whole { &SIZES[..] } else { &SIZES[..2] };
    let mut fleet = Fleet::start(None).await?;
    let s3 = fleet.s3().clone();
    let image = Image::fresh(&[64 << 10]);
    steps::push(&fleet.bucket.pusher.registry, MANY, "first", &image).await?;
    let mut table = Table::new(
        "Median times in milliseconds",
        &[
            "repositories and tags",
            "system",
            "push",
            "pull, missed",
            "pull, stored",
            "100 tags of many",
            "referrers",
            "100 of the catalog",
        ],
    );
    let mut starts = Table::new(
        "A node of Entrepot that starts, its store as it was",
        &["repositories and tags", "start s", "memory MiB"],
    );
    let (mut there, mut growth) = (0, Vec::new());
    for size in sizes {
        populate(&s3, &image, there..*size).await?;
        there = *size;
        for name in [ENTREPOT, DISTRIBUTION] {
            let found = latencies(&fleet, name, &image).await?;
            let shown = found.0.iter().map(|(_, time)| shown(*time));
            table.add([size.to_string(), name.to_owned()].into_iter().chain(shown).collect());
            if name == ENTREPOT {
                growth.push(found);
            }
        }
        let (seconds, memory) = fleet.restart_entrepot().await?;
        starts.add(vec![size.to_string(), format!("{seconds:.2}"), format!("{:.0}", memory as f64 / MIB)]);
    }
    let (first, last) = (growth.first().context("a size")?, growth.last().context("a size")?);
    let ratio = |operation: &str| {
        let of =
            |found: &Latencies| found.0.iter().find(|(name, _)| *name == operation).map_or(f64::NAN, |(_, time)| *time);
        Samples(vec![of(last) / of(first)])
    };
    let targets = [
        ("push, at most repositories to at fewest", "push"),
        ("missed pull, at most repositories to at fewest", "pull, missed"),
        ("stored pull, at most repositories to at fewest", "pull, stored"),
    ]
    .map(|(name, operation)| Target { name, ratio: ratio(operation), goal: Goal::AtMost(1.2) });
    let bars = sizes.iter().zip(&growth).flat_map(|(size, found)| {
        found.0.iter().take(3).map(move |(operation, time)| (format!("{ENTREPOT}, {operation}, {size}"), *time))
    });
    let plots = vec![Plot { name: "growth", title: "Growth".into(), unit: "ms", bars: bars.collect() }];
    let text = format!(
        "So many repositories with a tag each, and one with as many tags, were written to the bucket as objects. Each \
         operation is done {TIMES} times by one client; the image has one layer of 64 KiB. What takes longer than {} s is \
         given up (—). Listing is also as slow as the S3 server: versitygw reads a whole folder for each page.",
        PATIENCE.as_secs()
    );
    Ok(Section { title: "Growth", text, tables: vec![table, starts], plots, targets: targets.into() })
}

fn shown(time: f64) -> String {
    if time.is_nan() { "—".to_owned() } else { format!("{time:.1}") }
}

/// Writes repositories and tags as objects, of an image whose content is there.
async fn populate(s3: &S3, image: &Image, numbers: std::ops::Range<usize>) -> Result<()> {
    let manifest = image.digest.to_string();
    let objects = numbers.flat_map(|number| {
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

async fn latencies(fleet: &Fleet, name: &str, image: &Image) -> Result<Latencies> {
    let system = fleet.system(name)?;
    let registry = &system.registry;
    memory::settle()?;
    let (mut push, mut missed, mut stored) = (Times::new()?, Times::new()?, Times::new()?);
    for _ in 0..TIMES {
        let image = Image::fresh(&[64 << 10]);
        let start = Instant::now();
        steps::push(registry, "growth/pushed", &tag(&image), &image).await?;
        push.add(start.elapsed());
        let image = Image::fresh(&[64 << 10]);
        steps::push(&fleet.bucket.pusher.registry, "growth/pulled", &tag(&image), &image).await?;
        let urls = system.urls("growth/pulled", &tag(&image), &image).await?;
        for times in [&mut missed, &mut stored] {
            let start = Instant::now();
            steps::pull(registry, &urls).await?;
            times.add(start.elapsed());
        }
    }
    let listed = [
        ("100 tags of many", format!("/v2/{MANY}/tags/list?n=100")),
        ("referrers", format!("/v2/{MANY}/referrers/{}", image.digest)),
        ("100 of the catalog", "/v2/_catalog?n=100".to_owned()),
    ];
    let mut found =
        Latencies(vec![("push", push.at(0.5)), ("pull, missed", missed.at(0.5)), ("pull, stored", stored.at(0.5))]);
    for (operation, path) in listed {
        found.0.push((operation, list(registry, &path).await?));
    }
    Ok(found)
}

/// The median time of a list, or no number when it takes too long or is not served.
async fn list(registry: &Registry, path: &str) -> Result<f64> {
    let mut times = Times::new()?;
    let start = Instant::now();
    while times.count() < TIMES as u64 && start.elapsed() < PATIENCE {
        let begun = Instant::now();
        match tokio::time::timeout(PATIENCE, registry.get(path)).await {
            Ok(Ok(reply)) if reply.status == 200 => times.add(begun.elapsed()),
            // Distribution has no referrers.
            Ok(Ok(reply)) if reply.status == 404 => return Ok(f64::NAN),
            Ok(Ok(reply)) => bail!("{path}: answered {}", reply.status),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(f64::NAN),
        }
    }
    Ok(times.at(0.5))
}
