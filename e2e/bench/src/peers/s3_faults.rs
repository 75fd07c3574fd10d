//! Pushes and pulls over an S3 server with a long round trip that rejects some requests.

use super::document::{Goal, Section, Table, Target};
use super::image_transfer;
use super::load::{Outcome, Times, closed};
use super::push::tag;
use super::rounds::Form;
use super::systems::{DISTRIBUTION, ENTREPOT, MIRROR, NGINX, System, Systems};
use crate::memory;
use crate::samples::Samples;
use crate::template::{render, template};
use anyhow::Result;
use entrepot_e2e::client::retry;
use entrepot_e2e::proxy::Line;
use entrepot_e2e::push::Image;
use minijinja::context;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const REPOSITORY: &str = "bench/faults";
const LINE: Line = Line { delay: Duration::from_millis(20), rate: None, refused_one_in: Some(100) };
const CLIENTS: usize = 16;
/// Size in bytes of the single layer of an image. It is small, so that there can be many images.
const LAYER: u64 = 256 << 10;
/// Attempts of a client for a request with a transient error, as in containerd and Docker.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

pub async fn measure(form: Form) -> Result<Section> {
    let count = if form == Form::Whole { 1000 } else { 200 };
    let systems = Systems::start(Some(LINE)).await?;
    let mut table = Table::new(
        &format!("{count} images of one layer of 256 KiB, {CLIENTS} clients"),
        &["operation", "system", "success at the first attempt", "success in the end", "p50 ms", "p99 ms"],
    );
    let mut ends = BTreeMap::new();
    for name in [ENTREPOT, DISTRIBUTION] {
        let images: Vec<_> = (0..count).map(|_| Image::fresh(&[LAYER])).collect();
        let system = systems.system(name)?;
        let work = |image: Arc<Image>| async move {
            image_transfer::push(&system.registry, REPOSITORY, &tag(&image), &image).await
        };
        let result = with_retries(images, work).await?;
        ends.insert((name, "push"), result.add_to(&mut table, "push", system));
    }
    let images: Vec<_> = (0..count).map(|_| Image::fresh(&[LAYER])).collect();
    for image in &images {
        image_transfer::push(&systems.bucket.pusher.registry, REPOSITORY, &tag(image), image).await?;
    }
    for what in ["uncached pull", "cached pull"] {
        for name in [ENTREPOT, DISTRIBUTION, MIRROR, NGINX] {
            let system = systems.system(name)?;
            let mut items = Vec::new();
            for image in &images {
                items.push(system.urls(REPOSITORY, &tag(image), image).await?);
            }
            let work = |urls: Arc<image_transfer::Urls>| async move {
                image_transfer::pull(&system.downloads, &urls).await.map(|_| ())
            };
            let result = with_retries(items, work).await?;
            ends.insert((name, what), result.add_to(&mut table, what, system));
        }
    }
    let [(stored_at_once, _), (_, pushed)] =
        [(ENTREPOT, "cached pull"), (ENTREPOT, "push")].map(|which| ends.get(&which).copied().unwrap_or_default());
    let target = |name, part, least| Target { name, ratio: Samples(vec![part]), goal: Goal::AtLeast(least) };
    let targets = vec![
        target("fraction of cached pulls that succeed at the first attempt", stored_at_once, 1.0),
        target("fraction of pushes that succeed in the end", pushed, 0.999),
    ];
    let text = render(template!("s3_faults"), context! { attempts => ATTEMPTS })?;
    Ok(Section { title: "Slow S3 with errors", text, tables: vec![table], plots: Vec::new(), targets })
}

/// Outcome of clients that retry.
struct Tried {
    outcome: Outcome<()>,
    at_once: usize,
}

impl Tried {
    /// The fractions of the items that succeeded at the first attempt, and in the end.
    fn add_to(&self, table: &mut Table, what: &str, system: &System) -> (f64, f64) {
        let all = (self.outcome.done.len() + self.outcome.failures.len()) as f64;
        let (first, end) = (self.at_once as f64 / all, self.outcome.done.len() as f64 / all);
        let times: &Times = &self.outcome.times;
        table.add(vec![
            what.to_owned(),
            system.name.to_owned(),
            format!("{:.1} %", first * 100.0),
            format!("{:.1} %", end * 100.0),
            format!("{:.0}", times.at(0.5)),
            format!("{:.0}", times.at(0.99)),
        ]);
        if let Some(failure) = self.outcome.failures.first() {
            println!("{}, {what}: {failure}", system.name);
        }
        (first, end)
    }
}

async fn with_retries<I, F>(items: Vec<I>, work: impl Fn(Arc<I>) -> F) -> Result<Tried>
where
    F: Future<Output = Result<()>>,
{
    memory::settle()?;
    let at_once = AtomicUsize::new(0);
    let attempt = async |item: Arc<I>| {
        let mut again = false;
        retry(ATTEMPTS, FIRST_PAUSE, || work(Arc::clone(&item)), |_| again = true).await?;
        at_once.fetch_add(usize::from(!again), Ordering::Relaxed);
        Ok(())
    };
    let outcome = closed(CLIENTS, items, attempt).await?;
    Ok(Tried { outcome, at_once: at_once.into_inner() })
}
