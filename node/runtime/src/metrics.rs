//! How metrics are created: with one prefix, and registered at once.

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Upper bounds in seconds: from a stored manifest (well below a millisecond) to a large layer over
/// a slow connection.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0];

/// Creates metrics with the prefix `entrepot` and registers them.
pub struct Registrar<'a> {
    /// Where the metrics are registered.
    pub registry: &'a Registry,
}

impl Registrar<'_> {
    fn options(name: &str, help: &str) -> Opts {
        Opts::new(name, help).namespace("entrepot")
    }

    fn register<M: prometheus::core::Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    /// A counter.
    ///
    /// # Errors
    /// If the registry has a metric of this name.
    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::with_opts(Self::options(name, help))?)
    }

    /// Counters by labels.
    ///
    /// # Errors
    /// If the registry has a metric of this name.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Self::options(name, help), labels)?)
    }

    /// A gauge.
    ///
    /// # Errors
    /// If the registry has a metric of this name.
    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::with_opts(Self::options(name, help))?)
    }

    /// A histogram of seconds.
    ///
    /// # Errors
    /// If the registry has a metric of this name.
    pub fn histogram(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        let options = HistogramOpts::from(Self::options(name, help)).buckets(SECONDS.to_vec());
        self.register(Histogram::with_opts(options)?)
    }

    /// Histograms of seconds by labels.
    ///
    /// # Errors
    /// If the registry has a metric of this name.
    pub fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::from(Self::options(name, help)).buckets(SECONDS.to_vec());
        self.register(HistogramVec::new(options, labels)?)
    }
}
