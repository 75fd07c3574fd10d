//! Pushes of images: throughput, latency, and requests to S3.

use super::document::{Goal, Section, Table, Target};
use super::load::{Outcome, closed};
use super::plot::Plot;
use super::rounds::{Form, ROUNDS, turns};
use super::systems::{DISTRIBUTION, ENTREPOT, System, Systems};
use super::throughput::{self, Rates};
use super::{image_transfer, layers};
use crate::memory;
use crate::samples::{MIB, Samples};
use crate::template::{render, template};
use anyhow::{Result, ensure};
use entrepot_e2e::proxy::{Line, Traffic};
use entrepot_e2e::push::Image;
use minijinja::context;
use std::sync::Arc;

/// Layers per image, concurrent clients, and images that they push together.
const CELLS: [(usize, usize, usize); 7] =
    [(1, 1, 8), (1, 4, 16), (1, 16, 32), (10, 1, 2), (10, 4, 4), (10, 16, 16), (50, 4, 4)];
/// The cell that has a target.
const TARGET: (usize, usize, usize) = (10, 4, 4);
/// The systems that accept pushes.
pub const SYSTEMS: [&str; 2] = [ENTREPOT, DISTRIBUTION];

pub async fn measure(form: Form) -> Result<Section> {
    let columns = [&["layers", "clients", "system"][..], &throughput::COLUMNS].concat();
    let mut table = Table::new("Images pushed", &columns);
    let (mut targets, mut plots) = (Vec::new(), Vec::new());
    for cell in CELLS.into_iter().filter(|cell| form == Form::Whole || *cell == TARGET) {
        let measured = measure_cell(cell).await?;
        for (name, of) in SYSTEMS.iter().zip(&measured) {
            let mut row = vec![cell.0.to_string(), cell.1.to_string(), (*name).to_owned()];
            row.extend(of.cells());
            table.add(row);
        }
        if cell == TARGET {
            let [ours, theirs] = &measured;
            targets.push(Target::of(
                "pushed images per second, Entrepot ÷ Distribution",
                &ours.images,
                &theirs.images,
                Goal::AtLeast(2.0),
            ));
            let bars =
                SYSTEMS.iter().zip(&measured).map(|(name, of)| ((*name).to_owned(), of.images.median())).collect();
            let title = format!("Images of {} layers pushed by {} clients", cell.0, cell.1);
            plots.push(Plot { name: "push", title, unit: "images/s", bars });
        }
    }
    let (costs, cost_targets) = costs().await?;
    targets.extend(cost_targets);
    let text = render(template!("push"), context! { layer_sizes => layers::source()? })?;
    Ok(Section { title: "Push", text, tables: vec![table, costs], plots, targets })
}

async fn measure_cell((layers, clients, images): (usize, usize, usize)) -> Result<[Rates; 2]> {
    let systems = Systems::start(None).await?;
    let mut measured = <[Rates; 2]>::default();
    for round in 0..ROUNDS {
        for index in turns(round, SYSTEMS.len()) {
            let system = systems.system(SYSTEMS[index])?;
            let items: Vec<_> = (0..images).map(|_| layers::image(layers)).collect();
            let bytes: u64 = items.iter().map(layers::bytes).sum();
            memory::settle()?;
            let before = system.processor()?;
            let outcome = push_all(system, clients, items).await?;
            measured[index].add(&outcome, bytes, system.processor()? - before);
        }
    }
    Ok(measured)
}

async fn push_all(system: &System, clients: usize, items: Vec<Image>) -> Result<Outcome<()>> {
    let work = |image: Arc<Image>| async move {
        image_transfer::push(&system.registry, "bench/app", &tag(&image), &image).await
    };
    let outcome = closed(clients, items, work).await?;
    ensure!(outcome.failures.is_empty(), "{}: {:?}", system.name, outcome.failures);
    Ok(outcome)
}

/// A tag that is unique to the image.
pub fn tag(image: &Image) -> String {
    format!("v{}", &image.digest.hex()[..16])
}

/// The S3 requests and bytes per pushed image, counted by a proxy in front of S3.
async fn costs() -> Result<(Table, Vec<Target>)> {
    let systems = Systems::start(Some(Line::default())).await?;
    let mut table = Table::new(
        "S3 traffic per pushed image",
        &["layers", "system", "requests", "MiB written", "MiB read", "image size, MiB"],
    );
    let mut all: Vec<[Traffic; 2]> = Vec::new();
    for layers in [1, 10, 50] {
        let mut of_both = [Traffic::default(); 2];
        for (traffic, name) in of_both.iter_mut().zip(SYSTEMS) {
            let (system, image) = (systems.system(name)?, layers::image(layers));
            let size = layers::bytes(&image);
            systems.take_traffic();
            push_all(system, 1, vec![image]).await?;
            *traffic = systems.take_traffic();
            let mib = |bytes: u64| format!("{:.2}", bytes as f64 / MIB);
            table.add(vec![
                layers.to_string(),
                name.to_owned(),
                traffic.requests.to_string(),
                mib(traffic.written),
                mib(traffic.read),
                mib(size),
            ]);
        }
        all.push(of_both);
    }
    let of =
        |part: fn(&Traffic) -> u64, whose: usize| Samples(all.iter().map(|both| part(&both[whose]) as f64).collect());
    let requests = Target::of(
        "S3 requests per push, Entrepot ÷ Distribution",
        &of(|traffic| traffic.requests, 0),
        &of(|traffic| traffic.requests, 1),
        Goal::AtMost(0.2),
    );
    // The goal allows the XML bodies in the responses to writes. Reading a single MiB back would
    // exceed it.
    let read = Target::of(
        "S3 bytes read during pushes ÷ bytes written",
        &of(|traffic| traffic.read, 0),
        &of(|traffic| traffic.written, 0),
        Goal::AtMost(0.001),
    );
    Ok((table, vec![requests, read]))
}
