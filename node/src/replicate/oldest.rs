//! The age of the oldest pending blob, computed when metrics are read.

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
    /// If the name of the metric is invalid.
    pub fn new(replicate: &Replicate) -> Result<OldestPending, prometheus::Error> {
        let options = Opts::new(
            "pending_oldest_age_seconds",
            "Age in seconds of the oldest blob not yet uploaded to the bucket; 0 if there is none.",
        )
        .namespace("entrepot");
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
