//! The cost of S3 requests and transfer per month.

use super::document::{Section, Table};
use super::plot::Plot;
use super::push::tag;
use super::systems::{DISTRIBUTION, ENTREPOT, Kinds, MIRROR, NGINX, Systems};
use super::{image_transfer, layers};
use crate::template::{render, template};
use anyhow::Result;
use entrepot_e2e::proxy::Line;
use minijinja::context;

const REPOSITORY: &str = "bench/cost";
/// Pushes and pulls of an image of ten layers per month.
const PUSHES: u64 = 30_000;
const PULLS: u64 = 3_000_000;
/// Percentage of the pulls that reach a node without the image in its cache.
const MISSED: u64 = 5;
/// List prices of Amazon S3 Standard in us-east-1 in US dollars: 1,000 PUT, COPY, POST and LIST
/// requests; 1,000 other requests; a GB of transfer to another region. Transfer within the region
/// is free.
const WRITES: f64 = 0.005;
const READS: f64 = 0.0004;
const TRANSFER: f64 = 0.02;

/// Requests and bytes of one operation.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    kinds: Kinds,
    read: u64,
}

impl Cost {
    fn times(self, times: u64) -> Cost {
        let kinds = Kinds { writes: self.kinds.writes * times, reads: self.kinds.reads * times };
        Cost { kinds, read: self.read * times }
    }

    fn and(self, other: Cost) -> Cost {
        let kinds =
            Kinds { writes: self.kinds.writes + other.kinds.writes, reads: self.kinds.reads + other.kinds.reads };
        Cost { kinds, read: self.read + other.read }
    }

    fn of_requests(self) -> f64 {
        self.kinds.writes as f64 / 1000.0 * WRITES + self.kinds.reads as f64 / 1000.0 * READS
    }

    fn of_transfer(self) -> f64 {
        self.read as f64 / 1e9 * TRANSFER
    }
}

pub async fn measure() -> Result<Section> {
    let systems = Systems::start(Some(Line::default())).await?;
    let mut table = Table::new(
        "Per month, in millions of requests, TB read and US dollars",
        &["system", "writes and lists", "reads", "TB read", "requests, $", "transfer to another region, $"],
    );
    let mut bars = Vec::new();
    for (name, pushes_to) in
        [(ENTREPOT, ENTREPOT), (DISTRIBUTION, DISTRIBUTION), (MIRROR, DISTRIBUTION), (NGINX, DISTRIBUTION)]
    {
        let image = layers::image(10);
        systems.take_cost();
        image_transfer::push(&systems.system(pushes_to)?.registry, REPOSITORY, &tag(&image), &image).await?;
        let push = take(&systems);
        // Another image, which this system has not cached.
        let image = layers::image(10);
        image_transfer::push(&systems.bucket.pusher.registry, REPOSITORY, &tag(&image), &image).await?;
        let system = systems.system(name)?;
        let urls = system.urls(REPOSITORY, &tag(&image), &image).await?;
        systems.take_cost();
        image_transfer::pull(&system.downloads, &urls).await?;
        let missed = take(&systems);
        image_transfer::pull(&system.downloads, &urls).await?;
        let stored = take(&systems);
        let pulls = missed.times(PULLS / 100 * MISSED).and(stored.times(PULLS / 100 * (100 - MISSED)));
        let month = push.times(PUSHES).and(pulls);
        let millions = |count: u64| format!("{:.2}", count as f64 / 1e6);
        table.add(vec![
            name.to_owned(),
            millions(month.kinds.writes),
            millions(month.kinds.reads),
            format!("{:.1}", month.read as f64 / 1e12),
            format!("{:.2}", month.of_requests()),
            format!("{:.0}", month.of_transfer()),
        ]);
        bars.push((name.to_owned(), month.of_requests()));
    }
    let values = context! {
        pushes => PUSHES,
        pulls => PULLS,
        missed => MISSED,
        writes => WRITES,
        reads => READS,
        transfer => TRANSFER,
    };
    let text = render(template!("cost"), values)?;
    let plots = vec![Plot { name: "cost", title: "Cost of S3 requests per month".into(), unit: "$", bars }];
    Ok(Section { title: "Cost", text, tables: vec![table], plots, targets: Vec::new() })
}

fn take(systems: &Systems) -> Cost {
    let (kinds, traffic) = systems.take_cost();
    Cost { kinds, read: traffic.read }
}
