//! Every metric of a node. Labels have few, fixed values: no label ever holds a repository, a tag, a digest or an
//! address, so that the number of series does not grow with use.

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

/// Upper bounds in seconds: from a stored manifest (well below a millisecond) to a large layer over a slow line.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0, 600.0];

/// The metrics of one node and the registry that they are in.
pub struct Metrics {
    registry: Registry,
    /// By `route`, `method` and `status`.
    pub requests: IntCounterVec,
    /// By `route` and `method`; until the last byte of the answer.
    pub request_seconds: HistogramVec,
    /// Requests being answered.
    pub requests_running: IntGauge,
    /// Bytes of content served, by `source`: `store`, `fill` or `bucket`.
    pub served_bytes: IntCounterVec,
    /// Bytes of content received from clients.
    pub received_bytes: IntCounter,
    /// Fetches by `result`: `hit` (stored), `joined` (a running fill), `fill` (a new one), `through` (not stored).
    pub fetches: IntCounterVec,
    /// Fills by `result`: `stored`, `mismatch`, `failed`, `no_room`.
    pub fills: IntCounterVec,
    pub fills_running: IntGauge,
    /// Removed from the store, by `reason`: `policy` (a victim), `session` (unused), `corrupt`.
    pub evictions: IntCounterVec,
    pub evicted_bytes: IntCounter,
    /// Content that did not match its digest, by `place`: `store`, `bucket`, `upload`.
    pub mismatches: IntCounterVec,
    /// Blobs that are not yet durable.
    pub pending: IntGauge,
    pub pending_bytes: IntGauge,
    /// Blobs whose only copy, this node's, was damaged before they were durable.
    pub pending_damaged: IntCounter,
    /// Bytes of stored content read to see whether it is sound.
    pub scrubbed_bytes: IntCounter,
    /// When all stored content was read so: seconds since the epoch.
    pub scrub_completed: IntGauge,
    /// By `operation` and `result`: `ok`, or the kind of error.
    pub bucket_requests: IntCounterVec,
    /// By `operation`.
    pub bucket_seconds: HistogramVec,
    pub bucket_sent_bytes: IntCounter,
    pub bucket_received_bytes: IntCounter,
    /// Tags served without asking the bucket because it failed.
    pub stale_tags: IntCounter,
    pub sessions: IntGauge,
    pub store_capacity: IntGauge,
    pub store_used: IntGauge,
    pub store_free: IntGauge,
    pub store_low_free: IntGauge,
    pub store_target_free: IntGauge,
    /// Duration of a cleaning.
    pub clean_seconds: Histogram,
}

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Errors
    /// When two have one name, which a test rules out.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let add = Add { registry: &registry };
        Ok(Metrics {
            requests: add.counters("http_requests_total", "Requests answered.", &["route", "method", "status"])?,
            request_seconds: add.histograms(
                "http_request_duration_seconds",
                "Time from the head of a request to the last byte of its answer.",
                &["route", "method"],
            )?,
            requests_running: add.gauge("http_requests_running", "Requests being answered.")?,
            served_bytes: add.counters("served_bytes_total", "Bytes of content served.", &["source"])?,
            received_bytes: add.counter("received_bytes_total", "Bytes of content received from clients.")?,
            fetches: add.counters("fetches_total", "Blobs and manifests asked for.", &["result"])?,
            fills: add.counters("fills_total", "Fills from the bucket into the store.", &["result"])?,
            fills_running: add.gauge("fills_running", "Fills in progress.")?,
            evictions: add.counters("evictions_total", "Content and sessions removed from the store.", &["reason"])?,
            evicted_bytes: add.counter("evicted_bytes_total", "Bytes removed from the store.")?,
            mismatches: add.counters(
                "digest_mismatches_total",
                "Content that did not match its digest.",
                &["place"],
            )?,
            pending: add.gauge("pending_blobs", "Blobs that are not yet durable.")?,
            pending_bytes: add.gauge("pending_bytes", "Bytes that are not yet durable.")?,
            pending_damaged: add
                .counter("pending_damaged_total", "Blobs whose only copy was damaged before they were durable.")?,
            scrubbed_bytes: add.counter("scrubbed_bytes_total", "Bytes of stored content verified by the scrub.")?,
            scrub_completed: add.gauge(
                "scrub_completed_timestamp_seconds",
                "When the scrub had last verified all stored content, since the epoch.",
            )?,
            bucket_requests: add.counters(
                "bucket_requests_total",
                "Requests to the bucket.",
                &["operation", "result"],
            )?,
            bucket_seconds: add.histograms(
                "bucket_request_duration_seconds",
                "Time until the bucket began to answer.",
                &["operation"],
            )?,
            bucket_sent_bytes: add.counter("bucket_sent_bytes_total", "Bytes of content sent to the bucket.")?,
            bucket_received_bytes: add
                .counter("bucket_received_bytes_total", "Bytes of content read from the bucket.")?,
            stale_tags: add.counter("stale_tags_total", "Tags served from memory because the bucket failed.")?,
            sessions: add.gauge("upload_sessions", "Unfinished uploads.")?,
            store_capacity: add.gauge("store_capacity_bytes", "Capacity of the store.")?,
            store_used: add.gauge("store_used_bytes", "Bytes stored, with unfinished uploads.")?,
            store_free: add.gauge("store_free_bytes", "Free capacity of the store.")?,
            store_low_free: add.gauge("store_low_free_bytes", "First threshold: below it cleaning starts.")?,
            store_target_free: add.gauge("store_target_free_bytes", "Second threshold: at it cleaning stops.")?,
            clean_seconds: add.histogram("clean_duration_seconds", "Duration of a cleaning.")?,
            registry,
        })
    }

    /// The metrics in Prometheus' text format.
    ///
    /// # Errors
    /// When a metric cannot be written, which these types give no cause for.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// The registry, for metrics of the process itself.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

/// Makes metrics of one name space and registers them.
struct Add<'a> {
    registry: &'a Registry,
}

impl Add<'_> {
    fn options(name: &str, help: &str) -> Opts {
        Opts::new(name, help).namespace("entrepot")
    }

    fn register<M: prometheus::core::Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::with_opts(Self::options(name, help))?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Self::options(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::with_opts(Self::options(name, help))?)
    }

    fn histogram(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        let options = HistogramOpts::from(Self::options(name, help)).buckets(SECONDS.to_vec());
        self.register(Histogram::with_opts(options)?)
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::from(Self::options(name, help)).buckets(SECONDS.to_vec());
        self.register(HistogramVec::new(options, labels)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_metrics_have_names_of_their_own() {
        let metrics = Metrics::new().unwrap();
        metrics.pending.set(3);
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        assert!(text.contains("entrepot_pending_blobs 3"), "{text}");
    }
}
