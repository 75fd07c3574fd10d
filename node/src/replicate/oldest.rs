//! The age of the oldest pending blob, worked out when metrics are read.

use super::Replicate;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Opts};

/// The metric; see [`Replicate::oldest`].
pub struct OldestPending {
    replicate: Replicate,
    gauge: Gauge,
}

impl OldestPending {
    /// # Errors
    /// When the metric's name were not valid.
    pub fn new(replicate: &Replicate) -> Result<OldestPending, prometheus::Error> {
        let options = Opts::new("pending_oldest_age_seconds", "Age of the oldest pending blob.").namespace("entrepot");
        Ok(OldestPending { replicate: replicate.clone(), gauge: Gauge::with_opts(options)? })
    }
}

impl Collector for OldestPending {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.set(self.replicate.oldest().as_secs_f64());
        self.gauge.collect()
    }
}
