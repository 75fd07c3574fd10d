//! Pulls of images: what they take when a system has them stored, and when it has not.

use super::document::{Goal, Plot, Section, Table, Target};
use super::fleet::{DISTRIBUTION, ENTREPOT, Fleet, MIRROR, NGINX, S3_SERVER, System};
use super::load::{self, Outcome, Times};
use super::push::tag;
use super::rates::{self, Rates};
use super::steps::{self, Pull, Urls};
use super::{Form, ROUNDS, account, first_byte, layers, turns};
use crate::bench::load::wrk;
use crate::bench::memory;
use crate::bench::report::{GIB, MIB, Samples};
use crate::proxy::Line;
use crate::push::{IMAGE, Image};
use crate::usage;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::sync::Arc;

const REPOSITORY: &str = "bench/app";

/// Layers of an image, and clients, each of which pulls an image of its own.
const CELLS: [(usize, usize); 5] = [(1, 4), (1, 16), (10, 1), (10, 4), (50, 1)];
/// The cell of the targets.
const TARGET: (usize, usize) = (10, 4);
/// Rounds of what has a target: each of the five systems is the first of two of them, and the first of all meets a system
/// that has just started. Of manifests the median of three rounds was once 2.68 where that of six runs is 3.19 to 3.42.
const TARGET_ROUNDS: usize = 10;
/// Images a second that are asked for at a fixed rate, and for how long in seconds.
const RATES: [f64; 4] = [2.0, 4.0, 8.0, 16.0];
const RATE_SECONDS: f64 = 6.0;

/// The two ways in which an image is pulled.
const WAYS: [&str; 2] = ["missed", "stored"];

/// A system's measurements of one way, one a round.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    pub rates: Rates,
    /// Processor time of the clients, in seconds a GiB.
    pub clients: Samples,
    pub first_byte: Samples,
    memory: Samples,
}

/// By system and way.
pub type All = BTreeMap<(&'static str, &'static str), Measured>;

pub async fn measure(form: Form) -> Result<Section> {
    let columns =
        [&["layers", "clients", "pull", "system"][..], &rates::COLUMNS, &["first byte ms", "peak MiB"]].concat();
    let mut table = Table::new("Images pulled", &columns);
    let (mut targets, mut plots, mut account) = (Vec::new(), Vec::new(), String::new());
    for cell in CELLS.into_iter().filter(|cell| form == Form::Whole || *cell == TARGET) {
        let all = measure_cell(cell).await?;
        rows(&mut table, cell, &all);
        if cell == TARGET {
            targets.extend(targets_of(&all)?);
            account = account::of(&all)?;
            plots.extend(WAYS.map(|way| plot(way, cell, &all)));
        }
    }
    let (manifests, target) = manifests().await?;
    targets.push(target);
    let (first_bytes, target) = first_byte::measure().await?;
    targets.push(target);
    let mut tables = vec![table, manifests, first_bytes];
    if form == Form::Whole {
        tables.push(costs().await?);
        tables.push(single_blob().await?);
        tables.push(at_fixed_rates().await?);
    }
    let text = format!(
        "Each client pulls an image as container engines do: its manifest by the tag, then three blobs at a time. Layers \
         have the sizes of {}. All systems pull the same images from the same bucket, where another node of Entrepot \
         pushed them: first none has them stored (*missed*), then each that stores anything has (*stored*). \
         Distribution stores nothing, but by then knows which blobs there are. What arrives is counted and thrown away; \
         the time to the first byte is that of each blob's request, the median. Images of {} layers by {} clients, of which \
         the targets are, and manifests have {TARGET_ROUNDS} rounds.",
        layers::SOURCE,
        TARGET.0,
        TARGET.1,
    ) + &account;
    Ok(Section { title: "Pull", text, tables, plots, targets })
}

fn rows(table: &mut Table, cell: (usize, usize), all: &All) {
    for ((system, way), of) in all {
        let mut row = vec![cell.0.to_string(), cell.1.to_string(), (*way).to_owned(), (*system).to_owned()];
        row.extend(of.rates.cells());
        row.extend([of.first_byte.shown(""), of.memory.shown("")]);
        table.add(row);
    }
}

fn plot(way: &'static str, cell: (usize, usize), all: &All) -> Plot {
    let bars = all.iter().filter(|((_, which), _)| *which == way);
    Plot {
        name: if way == "stored" { "pull-stored" } else { "pull-missed" },
        title: format!("Images of {} layers, {way}, pulled by {} clients", cell.0, cell.1),
        unit: "MiB/s",
        bars: bars.map(|((system, _), of)| ((*system).to_owned(), of.rates.bytes.median())).collect(),
    }
}

fn targets_of(all: &All) -> Result<Vec<Target>> {
    let of = |system, way| all.get(&(system, way)).context("a system that was measured");
    let (stored, missed) = (of(ENTREPOT, "stored")?, of(ENTREPOT, "missed")?);
    let at_least = |name, ours: &Measured, theirs: &Measured, goal| {
        Target::of(name, &ours.rates.bytes, &theirs.rates.bytes, Goal::AtLeast(goal))
    };
    Ok(vec![
        at_least("stored pulls, bytes a second, to Distribution's", stored, of(DISTRIBUTION, "stored")?, 2.0),
        at_least("stored pulls, bytes a second, to nginx's", stored, of(NGINX, "stored")?, 1.0),
        at_least("missed pulls, bytes a second, to Distribution's", missed, of(DISTRIBUTION, "missed")?, account::GOAL),
        Target::of(
            "time to the first byte of a missed blob, cores under load, to S3's own",
            &missed.first_byte,
            &of(S3_SERVER, "missed")?.first_byte,
            Goal::AtMost(1.2),
        ),
    ])
}

/// Pushes new images, and returns what each system is to be asked for them.
async fn prepared(fleet: &Fleet, layers: usize, count: usize) -> Result<Vec<Image>> {
    let images: Vec<_> = (0..count).map(|_| layers::image(layers)).collect();
    for image in &images {
        steps::push(&fleet.bucket.pusher.registry, REPOSITORY, &tag(image), image).await?;
    }
    Ok(images)
}

async fn urls(system: &System, images: &[Image]) -> Result<Vec<Urls>> {
    let mut all = Vec::new();
    for image in images {
        all.push(system.urls(REPOSITORY, &tag(image), image).await?);
    }
    Ok(all)
}

async fn pull_all(system: &System, clients: usize, items: Vec<Urls>) -> Result<Outcome<Pull>> {
    let work = |urls: Arc<Urls>| async move { steps::pull(&system.downloads, &urls).await };
    let outcome = load::closed(clients, items, work).await?;
    ensure!(outcome.failures.is_empty(), "{}: {:?}", system.name, outcome.failures);
    Ok(outcome)
}

async fn measure_cell((layers, clients): (usize, usize)) -> Result<All> {
    let fleet = Fleet::start(None).await?;
    let mut all = All::new();
    let rounds = if (layers, clients) == TARGET { TARGET_ROUNDS } else { ROUNDS };
    for round in 0..rounds {
        let images = prepared(&fleet, layers, clients).await?;
        for index in turns(round, fleet.systems.len()) {
            let system = &fleet.systems[index];
            let items = urls(system, &images).await?;
            for way in WAYS {
                // A stored image is pulled in a moment: pulled often, its time is long enough to be measured.
                let times = if way == "stored" { 8 } else { 1 };
                let items: Vec<_> = std::iter::repeat_n(items.clone(), times).flatten().collect();
                all.entry((system.name, way)).or_default().add(system, clients, items).await?;
            }
        }
    }
    Ok(all)
}

impl Measured {
    async fn add(&mut self, system: &System, clients: usize, items: Vec<Urls>) -> Result<()> {
        memory::settle()?;
        system.forget_peak()?;
        let (before, own_before) = (system.processor()?, usage::processor(std::process::id())?);
        let outcome = pull_all(system, clients, items).await?;
        let (processor, own) = (system.processor()? - before, usage::processor(std::process::id())? - own_before);
        let bytes: u64 = outcome.done.iter().map(|pull| pull.bytes).sum();
        let mut first_bytes = Times::new()?;
        outcome.done.iter().flat_map(|pull| &pull.first_bytes).for_each(|time| first_bytes.add(*time));
        self.rates.add(&outcome, bytes, processor);
        self.clients.0.push(own / (bytes as f64 / GIB));
        self.first_byte.0.push(first_bytes.at(0.5));
        self.memory.0.push(system.peak_memory()? as f64 / MIB);
        Ok(())
    }
}

/// Manifests by a tag that every system has stored.
async fn manifests() -> Result<(Table, Target)> {
    let fleet = Fleet::start(None).await?;
    let images = prepared(&fleet, 1, 1).await?;
    let systems = [ENTREPOT, DISTRIBUTION, MIRROR];
    let mut found: [[Samples; 2]; 3] = <[[Samples; 2]; 3]>::default();
    for round in 0..TARGET_ROUNDS {
        for index in turns(round, systems.len()) {
            let system = fleet.system(systems[index])?;
            let path = urls(system, &images).await?.remove(0).manifest;
            let accept = format!("Accept: {IMAGE}");
            let arguments = ["-t1", "-c16", "-d3s", "-H", &accept];
            let wrk = wrk(&arguments, &format!("{}{path}", system.registry.url())).await?;
            found[index][0].0.push(wrk.requests);
            found[index][1].0.push(wrk.p99);
        }
    }
    let mut table = Table::new("A manifest by its tag, `wrk -t1 -c16 -d3s`", &["system", "requests/s", "p99 ms"]);
    for (system, [requests, p99]) in systems.iter().zip(&found) {
        table.add(vec![(*system).to_owned(), requests.shown(""), p99.shown("")]);
    }
    let target =
        Target::of("manifests by tag a second, to Distribution's", &found[0][0], &found[1][0], Goal::AtLeast(3.0));
    Ok((table, target))
}

/// What a pull costs at S3, counted by a proxy before it.
async fn costs() -> Result<Table> {
    let fleet = Fleet::start(Some(Line::default())).await?;
    let mut table = Table::new(
        "What a pull costs at S3",
        &["layers", "pull", "system", "requests", "MiB read", "MiB of the image"],
    );
    for layers in [1, 10, 50] {
        let images = prepared(&fleet, layers, 1).await?;
        for system in fleet.systems.iter().filter(|system| system.name != S3_SERVER) {
            for way in WAYS {
                let items = urls(system, &images).await?;
                fleet.take_traffic();
                let pulled = pull_all(system, 1, items).await?;
                let traffic = fleet.take_traffic();
                let bytes: u64 = pulled.done.iter().map(|pull| pull.bytes).sum();
                table.add(vec![
                    layers.to_string(),
                    way.to_owned(),
                    system.name.to_owned(),
                    traffic.requests.to_string(),
                    format!("{:.2}", traffic.read as f64 / MIB),
                    format!("{:.2}", bytes as f64 / MIB),
                ]);
            }
        }
    }
    Ok(table)
}

/// One large blob that is stored, asked for by wrk, which costs less than our client.
async fn single_blob() -> Result<Table> {
    let fleet = Fleet::start(None).await?;
    let images = prepared(&fleet, 50, 1).await?;
    let mut found: BTreeMap<&str, [Samples; 2]> = BTreeMap::new();
    for round in 0..ROUNDS {
        for index in turns(round, fleet.systems.len()) {
            let system = &fleet.systems[index];
            let urls = urls(system, &images).await?.remove(0);
            let (path, _) = urls.blobs.into_iter().max_by_key(|(_, size)| *size).context("a blob")?;
            system.downloads.get(&path).await?;
            let wrk = wrk(&["-t2", "-c4", "-d3s"], &format!("{}{path}", system.registry.url())).await?;
            let samples = found.entry(system.name).or_default();
            samples[0].0.push(wrk.bytes / MIB);
            samples[1].0.push(wrk.p99);
        }
    }
    let mut table = Table::new("A stored blob of 110 MiB, `wrk -t2 -c4 -d3s`", &["system", "MiB/s", "p99 ms"]);
    for (system, [bytes, p99]) in &found {
        table.add(vec![(*system).to_owned(), bytes.shown(""), p99.shown("")]);
    }
    Ok(table)
}

/// Stored images that are asked for at a fixed rate, whether or not those before are done.
async fn at_fixed_rates() -> Result<Table> {
    let fleet = Fleet::start(None).await?;
    let images = prepared(&fleet, 10, 4).await?;
    let mut table = Table::new(
        &format!(
            "Stored images of 10 layers (75 MiB) asked for at a fixed rate for {RATE_SECONDS} seconds; the time of each counts from when it was due"
        ),
        &["images/s asked for", "system", "p50 ms", "p99 ms"],
    );
    for system in &fleet.systems {
        pull_all(system, 4, urls(system, &images).await?).await?;
    }
    for rate in RATES {
        for system in &fleet.systems {
            let items: Vec<_> =
                urls(system, &images).await?.into_iter().cycle().take((rate * RATE_SECONDS) as usize).collect();
            let downloads = system.downloads.clone();
            let work = |urls: Arc<Urls>| {
                let downloads = downloads.clone();
                async move { steps::pull(&downloads, &urls).await }
            };
            let outcome = load::open(rate, items, work).await?;
            ensure!(outcome.failures.is_empty(), "{}: {:?}", system.name, outcome.failures);
            let time = |part| format!("{:.0}", outcome.times.at(part));
            table.add(vec![rate.to_string(), system.name.to_owned(), time(0.5), time(0.99)]);
        }
    }
    Ok(table)
}
