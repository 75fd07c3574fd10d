//! The rates of a load, with one sample for each round.

use super::load::Outcome;
use crate::samples::{GIB, MIB, Samples};

/// The columns of [`Rates::cells`].
pub const COLUMNS: [&str; 5] = ["images/s", "MiB/s", "p50 ms", "p99 ms", "CPU s/GiB"];

/// A system's rates under one load.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    pub images: Samples,
    pub bytes: Samples,
    p50: Samples,
    p99: Samples,
    pub processor: Samples,
}

impl Rates {
    /// Adds a round, with the bytes that it transferred and the CPU time in seconds that the system
    /// used.
    pub fn add<T>(&mut self, outcome: &Outcome<T>, bytes: u64, processor: f64) {
        let (seconds, bytes) = (outcome.elapsed.as_secs_f64(), bytes as f64);
        self.images.0.push(outcome.done.len() as f64 / seconds);
        self.bytes.0.push(bytes / MIB / seconds);
        self.p50.0.push(outcome.times.at(0.5));
        self.p99.0.push(outcome.times.at(0.99));
        self.processor.0.push(processor / (bytes / GIB));
    }

    pub fn cells(&self) -> impl Iterator<Item = String> + '_ {
        [&self.images, &self.bytes, &self.p50, &self.p99, &self.processor].into_iter().map(|samples| samples.shown(""))
    }
}
