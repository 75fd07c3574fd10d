//! Cache hits with a store that is smaller than the content, and the effect of eviction on
//! concurrent pulls.

mod content;
mod hits;
mod latency;

use super::document::{Goal, Section, Target};
use super::plot::Plot;
use super::request_traces::{CONTENTS, REQUESTS};
use super::rounds::Form;
use super::systems::Bucket;
use crate::samples::Samples;
use crate::template::{render, template};
use anyhow::Result;
use minijinja::context;

pub async fn measure(form: Form) -> Result<Section> {
    let bucket = Bucket::new().await?;
    let contents = content::push(&bucket, CONTENTS, content::SIZE).await?;
    let hits = hits::measure(&bucket, &contents).await?;
    let values = context! { clients => content::CLIENTS, contents => CONTENTS, requests => REQUESTS };
    let mut text = render(template!("eviction"), values)?;
    if form == Form::Whole {
        text = format!("{text} {}", hits::of_pull_through(&bucket, &contents).await?);
    }
    let (latency, slower) = latency::measure(&bucket).await?;
    let targets = vec![
        Target {
            name: "hits of the default policy ÷ hits of the best policy, worst trace",
            ratio: Samples(vec![hits.worst_ratio]),
            goal: Goal::AtLeast(0.9),
        },
        Target { name: "p99 of cached pulls, with eviction ÷ without", ratio: slower, goal: Goal::AtMost(1.5) },
    ];
    let plots = vec![Plot {
        name: "hits",
        title: "Cache hits, store size 10 % of all blobs".into(),
        unit: "%",
        bars: hits.bars,
    }];
    Ok(Section { title: "Eviction", text, tables: vec![hits.table, latency], plots, targets })
}
