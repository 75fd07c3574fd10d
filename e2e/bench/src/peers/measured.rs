//! Pulls of one system, uncached and cached: what is measured of them.

use super::image_transfer::{self, Pull, Urls};
use super::load::{self, Outcome, Times};
use super::systems::System;
use super::throughput::Rates;
use crate::memory;
use crate::samples::{GIB, MIB, Samples};
use anyhow::{Result, ensure};
use entrepot_e2e::usage;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The system first downloads the image from S3.
pub const UNCACHED: &str = "uncached";
/// The system has the image on its local disk.
pub const CACHED: &str = "cached";

/// The two ways in which an image is pulled.
pub const WAYS: [&str; 2] = [UNCACHED, CACHED];

/// The measurements of one system and way, with one sample for each round.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    pub rates: Rates,
    /// CPU time of the clients in seconds per GiB.
    pub clients: Samples,
    pub first_byte: Samples,
    pub memory: Samples,
}

/// By system and way.
pub type All = BTreeMap<(&'static str, &'static str), Measured>;

/// Pulls all images with a number of clients.
///
/// # Errors
/// If a pull fails.
pub async fn pull_all(system: &System, clients: usize, items: Vec<Urls>) -> Result<Outcome<Pull>> {
    let work = |urls: Arc<Urls>| async move { image_transfer::pull(&system.downloads, &urls).await };
    let outcome = load::closed(clients, items, work).await?;
    ensure!(outcome.failures.is_empty(), "{}: {:?}", system.name, outcome.failures);
    Ok(outcome)
}

impl Measured {
    /// Adds a round.
    ///
    /// # Errors
    /// If a pull fails, or a process of the system ended.
    pub async fn add(&mut self, system: &System, clients: usize, items: Vec<Urls>) -> Result<()> {
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
