//! A start storm: many clients pull the same image at the same time, over a slow line to S3.

use super::document::{Goal, Section, Table, Target};
use super::image_transfer;
use super::load::closed;
use super::plot::Plot;
use super::push::tag;
use super::rounds::{Form, ROUNDS, turns};
use super::systems::{Bucket, ENTREPOT, MIRROR, NGINX, Speaks, System};
use crate::memory;
use crate::samples::{GIB, MIB, Samples};
use crate::template::{render, template};
use anyhow::{Result, ensure};
use entrepot_e2e::proxy::{Line, Proxy, Traffic};
use entrepot_e2e::push::Image;
use entrepot_e2e::s3::S3;
use entrepot_e2e::servers::{Distribution, Driver, Nginx};
use minijinja::context;
use std::time::Duration;
use tempfile::TempDir;

const REPOSITORY: &str = "bench/storm";
/// Number of clients that start at the same time.
const CLIENTS: usize = 200;
/// The image: eight layers of 128 MiB.
const LAYERS: [u64; 8] = [128 << 20; 8];
/// Bandwidth of the line to S3 in bytes per second.
const RATE: u64 = 100_000_000;
const LINE: Line = Line { delay: Duration::from_millis(20), rate: Some(RATE), refused_one_in: None };

/// Time limit for a peer. One that reads the image for nearly every client would take half an hour.
const TIMEOUT: Duration = Duration::from_secs(150);

/// The results of a storm.
struct Storm {
    /// Time in seconds until the last client had its last byte.
    seconds: f64,
    /// The storm was stopped at the time limit.
    given_up: bool,
    traffic: Traffic,
    /// Peak memory in bytes of the system with the largest peak.
    memory: u64,
}

/// The storms of one system.
#[derive(Default)]
struct Storms {
    seconds: Samples,
    /// S3 bytes read ÷ (size of the image × number of nodes).
    read: Samples,
    memory: Samples,
    given_up: bool,
}

impl Storms {
    fn add(&mut self, storm: &Storm, image: &Image, nodes: usize) {
        self.seconds.0.push(storm.seconds);
        self.read.0.push(storm.traffic.read as f64 / (size(image) * nodes as u64) as f64);
        self.memory.0.push(storm.memory as f64 / MIB);
        self.given_up |= storm.given_up;
    }

    fn row(&self, name: &str, nodes: usize) -> Vec<String> {
        let more = if self.given_up { "> " } else { "" };
        vec![
            name.to_owned(),
            nodes.to_string(),
            format!("{more}{}", self.seconds.shown("")),
            format!("{:.3}", self.read.median()),
            self.memory.shown(""),
        ]
    }

    fn bar(&self, name: &str, nodes: usize) -> (String, f64) {
        let end = if self.given_up { ", stopped" } else { "" };
        (format!("{name}, {nodes} node(s){end}"), self.seconds.median())
    }
}

/// The numbers of nodes of Entrepot.
const NODES: [usize; 2] = [1, 3];

pub async fn measure(form: Form) -> Result<Section> {
    let image = Image::fresh(&LAYERS);
    let rounds = if form == Form::Whole { ROUNDS } else { 1 };
    let (bound, ours) = in_turns(&image, rounds).await?;
    let mut all: Vec<_> = NODES.into_iter().zip(&ours).map(|(nodes, storms)| (ENTREPOT, nodes, storms)).collect();
    let peers = if form == Form::Whole { peers(&image).await? } else { Vec::new() };
    all.extend(peers.iter().map(|(name, storms)| (*name, 1, storms)));
    let mut table = Table::new(
        &format!("{CLIENTS} clients pull an image of 1 GiB at the same time"),
        &[
            "system",
            "nodes",
            "time until the last byte, s",
            "S3 bytes read ÷ (image size × nodes)",
            "peak memory of a node, MiB",
        ],
    );
    for (name, nodes, storms) in &all {
        table.add(storms.row(name, *nodes));
    }
    let plots = vec![Plot {
        name: "start-storm",
        title: "Time until the last of 200 clients has the image".into(),
        unit: "s",
        bars: all.iter().map(|(name, nodes, storms)| storms.bar(name, *nodes)).collect(),
    }];
    let text = text(&image, &bound, rounds)?;
    Ok(Section { title: "Start storm", text, tables: vec![table], plots, targets: targets(&image, &bound, &ours) })
}

/// The time in seconds that the clients need at least on this machine, and the storms of Entrepot
/// by [`NODES`].
async fn in_turns(image: &Image, rounds: usize) -> Result<(Samples, [Storms; 2])> {
    let (mut bound, mut ours) = (Samples::default(), <[Storms; 2]>::default());
    for round in 0..rounds {
        for turn in turns(round, 1 + NODES.len()) {
            let Some(index) = turn.checked_sub(1) else {
                bound.0.push(nginx(image, true).await?.seconds);
                continue;
            };
            let storm = entrepot(image, NODES[index]).await?;
            ensure!(!storm.given_up, "{} node(s) of Entrepot took longer than {TIMEOUT:?}", NODES[index]);
            ours[index].add(&storm, image, NODES[index]);
        }
    }
    Ok((bound, ours))
}

async fn peers(image: &Image) -> Result<Vec<(&'static str, Storms)>> {
    let mut all = Vec::new();
    for (name, storm) in [(NGINX, nginx(image, false).await?), (MIRROR, mirror(image).await?)] {
        let mut storms = Storms::default();
        storms.add(&storm, image, 1);
        all.push((name, storms));
    }
    Ok(all)
}

fn targets(image: &Image, bound: &Samples, ours: &[Storms; 2]) -> Vec<Target> {
    let names = [
        ("S3 bytes read in a start storm, 1 node ÷ image size", "time of a start storm, 1 node ÷ reference"),
        ("S3 bytes read in a start storm, 3 nodes ÷ 3 × image size", "time of a start storm, 3 nodes ÷ reference"),
    ];
    let mut targets = Vec::new();
    for ((nodes, storms), (of_bytes, of_time)) in NODES.into_iter().zip(ours).zip(names) {
        let line = over_the_line(image) * nodes as f64;
        let time = storms.seconds.0.iter().zip(&bound.0).map(|(seconds, bound)| seconds / bound.max(line)).collect();
        targets.push(Target { name: of_bytes, ratio: storms.read.clone(), goal: Goal::AtMost(1.05) });
        targets.push(Target { name: of_time, ratio: Samples(time), goal: Goal::AtMost(1.3) });
    }
    targets
}

fn text(image: &Image, bound: &Samples, rounds: usize) -> Result<String> {
    let total = (size(image) * CLIENTS as u64) as f64;
    let values = context! {
        clients => CLIENTS,
        rate => RATE / 1_000_000,
        transfer => over_the_line(image),
        bound => bound.shown("s"),
        gib => total / GIB,
        throughput => total / MIB / bound.median(),
        rounds => rounds,
        time_limit => TIMEOUT.as_secs(),
        minutes => over_the_line(image) * CLIENTS as f64 / 60.0,
    };
    render(template!("start_storm"), values)
}

fn size(image: &Image) -> u64 {
    image.blobs().map(|blob| blob.size).sum()
}

/// Time in seconds to transfer an image over the line.
fn over_the_line(image: &Image) -> f64 {
    size(image) as f64 / RATE as f64
}

/// The bucket with the image, behind the line.
struct Far {
    bucket: Bucket,
    proxy: Proxy,
}

impl Far {
    async fn with(image: &Image) -> Result<Far> {
        let bucket = Bucket::new().await?;
        image_transfer::push(&bucket.pusher.registry, REPOSITORY, &tag(image), image).await?;
        let proxy = Proxy::over(&bucket.server.s3.endpoint, LINE).await?;
        Ok(Far { bucket, proxy })
    }
}

async fn entrepot(image: &Image, count: usize) -> Result<Storm> {
    let far = Far::with(image).await?;
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(far.bucket.plan(&far.proxy.url)?.start().await?);
    }
    let systems: Vec<_> = nodes
        .iter()
        .map(|node| System::new(ENTREPOT, node.registry.url(), Speaks::Registry, vec![node.id()]))
        .collect();
    storm(&far, &systems, image).await
}

/// A storm at nginx with an empty or a full cache. With a full cache it shows the best that the
/// clients on this machine can reach.
async fn nginx(image: &Image, stored: bool) -> Result<Storm> {
    let (far, cache) = (Far::with(image).await?, TempDir::new()?);
    let nginx = Nginx::caching(&far.proxy.url, cache.path()).await?;
    let speaks = Speaks::S3(S3::new(&far.proxy.url));
    let system = System::new(NGINX, &nginx.url, speaks, nginx.workers()?);
    if stored {
        image_transfer::pull(&system.downloads, &system.urls(REPOSITORY, &tag(image), image).await?).await?;
    }
    storm(&far, &[system], image).await
}

async fn mirror(image: &Image) -> Result<Storm> {
    let (far, folder) = (Far::with(image).await?, TempDir::new()?);
    let origin = Distribution::with_cache(Driver::S3(&S3::new(&far.proxy.url))).await?;
    let mirror = Distribution::mirror_of(origin.registry.url(), folder.path()).await?;
    let processes = vec![mirror.id(), origin.id()];
    storm(&far, &[System::new(MIRROR, mirror.registry.url(), Speaks::Registry, processes)], image).await
}

async fn storm(far: &Far, systems: &[System], image: &Image) -> Result<Storm> {
    println!("running a storm of {CLIENTS} clients at {} node(s) of {}", systems.len(), systems[0].name);
    let mut items = Vec::new();
    for client in 0..CLIENTS {
        let system = &systems[client % systems.len()];
        items.push((system.downloads.clone(), system.urls(REPOSITORY, &tag(image), image).await?));
    }
    memory::settle()?;
    systems.iter().try_for_each(System::forget_peak)?;
    far.proxy.take_traffic();
    let pulls = closed(CLIENTS, items, |item| async move { image_transfer::pull(&item.0, &item.1).await });
    let outcome = tokio::time::timeout(TIMEOUT, pulls).await.ok().transpose()?;
    let failure = outcome.as_ref().and_then(|outcome| outcome.failures.first());
    ensure!(failure.is_none(), "{}: {failure:?}", systems[0].name);
    let mut memory = 0;
    for system in systems {
        memory = memory.max(system.peak_memory()?);
    }
    Ok(Storm {
        seconds: outcome.as_ref().map_or(TIMEOUT, |outcome| outcome.elapsed).as_secs_f64(),
        given_up: outcome.is_none(),
        traffic: far.proxy.take_traffic(),
        memory,
    })
}
