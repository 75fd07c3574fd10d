//! What a month costs at S3.

use super::document::{Plot, Section, Table};
use super::fleet::{DISTRIBUTION, ENTREPOT, Fleet, Kinds, MIRROR, NGINX};
use super::push::tag;
use super::{layers, steps};
use crate::proxy::Line;
use anyhow::Result;

const REPOSITORY: &str = "bench/cost";
/// The month: pushes and pulls of an image of ten layers.
const PUSHES: u64 = 30_000;
const PULLS: u64 = 3_000_000;
/// Of a hundred pulls, those at a node that does not have the image stored.
const MISSED: u64 = 5;
/// List prices of Amazon S3 Standard in us-east-1, in dollars: a thousand PUT, COPY, POST and LIST requests, a thousand of all
/// others, and a GB sent to another region. Within the region sending is free.
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
    let fleet = Fleet::start(Some(Line::default())).await?;
    let mut table = Table::new(
        "A month, in millions of requests, TB read and dollars",
        &["system", "writes and lists", "reads", "TB read", "requests $", "transfer to another region $"],
    );
    let mut bars = Vec::new();
    for (name, pushes_to) in
        [(ENTREPOT, ENTREPOT), (DISTRIBUTION, DISTRIBUTION), (MIRROR, DISTRIBUTION), (NGINX, DISTRIBUTION)]
    {
        let image = layers::image(10);
        fleet.take_cost();
        steps::push(&fleet.system(pushes_to)?.registry, REPOSITORY, &tag(&image), &image).await?;
        let push = take(&fleet);
        // Another image, which this system has not seen.
        let image = layers::image(10);
        steps::push(&fleet.bucket.pusher.registry, REPOSITORY, &tag(&image), &image).await?;
        let system = fleet.system(name)?;
        let urls = system.urls(REPOSITORY, &tag(&image), &image).await?;
        fleet.take_cost();
        steps::pull(&system.downloads, &urls).await?;
        let missed = take(&fleet);
        steps::pull(&system.downloads, &urls).await?;
        let stored = take(&fleet);
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
    let text = format!(
        "{PUSHES} pushes and {PULLS} pulls of an image of ten layers, {MISSED} % of the pulls at a node that does not have it \
         stored. Each operation was done once and its requests counted by a proxy before S3; the month is their \
         multiple. A pull-through cache and nginx do not take pushes: theirs go to Distribution. Prices are Amazon's list prices for S3 Standard in us-east-1: \
         ${WRITES} for a thousand PUT, COPY, POST or LIST requests, ${READS} for a thousand others, ${TRANSFER} for a GB sent to another \
         region, nothing within the region. What is stored costs the same with each and is left out."
    );
    let plots = vec![Plot { name: "cost", title: "S3 requests of a month".into(), unit: "$", bars }];
    Ok(Section { title: "Cost", text, tables: vec![table], plots, targets: Vec::new() })
}

fn take(fleet: &Fleet) -> Cost {
    let (kinds, traffic) = fleet.take_cost();
    Cost { kinds, read: traffic.read }
}
