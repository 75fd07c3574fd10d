//! The time to the first byte of an uncached blob, for one client.

use super::document::{Goal, Table, Target};
use super::image_transfer;
use super::push::tag;
use super::rounds::{ROUNDS, turns};
use super::systems::{ENTREPOT, S3_SERVER, Systems};
use crate::memory;
use crate::samples::Samples;
use anyhow::{Context, Result};
use entrepot_e2e::proxy::Line;
use entrepot_e2e::push::Image;
use std::collections::BTreeMap;
use std::time::Duration;

const REPOSITORY: &str = "bench/first-byte";
/// Blobs of a round, which are requested one after the other.
const BLOBS: usize = 16;
/// Size of a blob in bytes.
const SIZE: u64 = 8 << 20;
/// The delay of S3: that of another data centre of a region, or of slow object storage.
const DELAY: Duration = Duration::from_millis(20);

/// The table, and the target for S3 20 ms away. Without the delay, noise hides the ratio.
///
/// # Errors
/// If a system does not start or a request fails.
pub async fn measure() -> Result<(Table, Target)> {
    let lines = [DELAY, Duration::ZERO];
    let mut found = Vec::new();
    for delay in lines {
        found.push(by_system(Line { delay, ..Line::default() }).await?);
    }
    let mut table = Table::new(
        &format!(
            "Time to the first byte of an uncached blob of 8 MiB, one client, ms (median of {BLOBS} blobs per round)"
        ),
        &["system", "S3 20 ms away", "S3 on this machine"],
    );
    for (system, away) in &found[0] {
        let near = found[1].get(system).with_context(|| format!("{system} was measured with one delay only"))?;
        table.add(vec![(*system).to_owned(), away.shown(""), near.shown("")]);
    }
    let of = |system| found[0].get(system).with_context(|| format!("{system} was not measured"));
    let target = Target::of(
        "time to first byte of an uncached blob, S3 20 ms away, Entrepot ÷ S3",
        of(ENTREPOT)?,
        of(S3_SERVER)?,
        Goal::AtMost(1.2),
    );
    Ok((table, target))
}

async fn by_system(line: Line) -> Result<BTreeMap<&'static str, Samples>> {
    let systems = Systems::start(Some(line)).await?;
    let mut found = BTreeMap::<&str, Samples>::new();
    for round in 0..ROUNDS {
        let image = Image::fresh(&[SIZE; BLOBS]);
        image_transfer::push(&systems.bucket.pusher.registry, REPOSITORY, &tag(&image), &image).await?;
        for index in turns(round, systems.systems.len()) {
            let system = &systems.systems[index];
            let urls = system.urls(REPOSITORY, &tag(&image), &image).await?;
            memory::settle()?;
            let mut times = Vec::new();
            for (url, size) in urls.blobs.iter().filter(|(_, size)| *size == SIZE) {
                let (_, first) = image_transfer::get(&system.downloads, url, *size).await?;
                times.push(first.as_secs_f64() * 1000.0);
            }
            found.entry(system.name).or_default().0.push(Samples(times).median());
        }
    }
    Ok(found)
}
