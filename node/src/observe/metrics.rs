//! All metrics of a node. Labels have few, fixed values: no label ever contains a repository, a
//! tag, a digest or an address, so the number of series does not grow with use.

use entrepot_bucket::BucketMetrics;
use entrepot_runtime::metrics::Registrar;
use prometheus::{Encoder, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder};

/// The metrics of one node, and the Prometheus registry that contains them.
pub struct Metrics {
    registry: Registry,
    /// Requests of clients.
    pub http: HttpMetrics,
    /// The store.
    pub store: StoreMetrics,
    /// Blobs that are not in the bucket yet.
    pub pending: PendingMetrics,
    /// Bytes of content served, by `source`: `store`, `fill` (a running download) or `bucket`.
    pub served_bytes: IntCounterVec,
    /// Bytes of content received from clients.
    pub received_bytes: IntCounter,
    /// Blob and manifest reads, by `result`: `hit` (stored), `joined` (shared a running download),
    /// `fill` (started one), `through` (not stored).
    pub fetches: IntCounterVec,
    /// Downloads from the bucket, by `result`: `stored`, `mismatch`, `failed`, `no_room`.
    pub fills: IntCounterVec,
    /// Downloads from the bucket that run now.
    pub fills_running: IntGauge,
    /// Content that did not match its digest, by `place`: `store`, `bucket`, `upload`.
    pub mismatches: IntCounterVec,
    /// Bytes of stored content that the scrub read to verify it.
    pub scrubbed_bytes: IntCounter,
    /// Time at which the scrub last finished verifying all stored content, in seconds since the
    /// Unix epoch.
    pub scrub_completed: IntGauge,
    /// Requests to the bucket.
    pub bucket: BucketMetrics,
    /// Tags served with their last known value because the bucket failed.
    pub stale_tags: IntCounter,
    /// Unfinished uploads.
    pub sessions: IntGauge,
}

/// HTTP requests.
pub struct HttpMetrics {
    /// By `route`, `method` and `status`. Status `000`: the client disconnected before the
    /// response.
    pub requests: IntCounterVec,
    /// By `route` and `method`; measured until the last byte of the response.
    pub seconds: HistogramVec,
    /// Requests in progress.
    pub running: IntGauge,
}

impl HttpMetrics {
    fn register(add: &Registrar<'_>) -> Result<HttpMetrics, prometheus::Error> {
        Ok(HttpMetrics {
            requests: add.counters(
                "http_requests_total",
                "Total number of HTTP requests, by route, method and status; status 000: the client disconnected \
                 before the response.",
                &["route", "method", "status"],
            )?,
            seconds: add.histograms(
                "http_request_duration_seconds",
                "Time from the head of a request to the last byte of its response, in seconds, by route and method.",
                &["route", "method"],
            )?,
            running: add.gauge("http_requests_running", "Number of HTTP requests in progress.")?,
        })
    }
}

/// The space of the store, and eviction.
pub struct StoreMetrics {
    /// What the store may use, in bytes.
    pub capacity: IntGauge,
    /// What it uses, in bytes.
    pub used: IntGauge,
    /// What it may still use, in bytes.
    pub free: IntGauge,
    /// Eviction starts when less than this is free, in bytes.
    pub low_free: IntGauge,
    /// Eviction stops when this is free, in bytes.
    pub target_free: IntGauge,
    /// Removed from the store, by `reason`: `policy` (evicted), `session` (unused upload),
    /// `corrupt`.
    pub evictions: IntCounterVec,
    /// Bytes that were removed.
    pub evicted_bytes: IntCounter,
    /// Duration of an eviction run.
    pub eviction_seconds: Histogram,
}

impl StoreMetrics {
    fn register(add: &Registrar<'_>) -> Result<StoreMetrics, prometheus::Error> {
        Ok(StoreMetrics {
            capacity: add.gauge("store_capacity_bytes", "Capacity of the store in bytes.")?,
            used: add.gauge("store_used_bytes", "Bytes used in the store, including unfinished uploads.")?,
            free: add.gauge("store_free_bytes", "Free bytes in the store.")?,
            low_free: add.gauge("store_low_free_bytes", "Free bytes below which eviction starts (store.lowFree).")?,
            target_free: add
                .gauge("store_target_free_bytes", "Free bytes at which eviction stops (store.targetFree).")?,
            evictions: add.counters(
                "evictions_total",
                "Total number of items removed from the store, by reason: policy (evicted content), session (unused \
                 upload), corrupt (digest mismatch).",
                &["reason"],
            )?,
            evicted_bytes: add.counter("evicted_bytes_total", "Total bytes removed from the store.")?,
            eviction_seconds: add.histogram("clean_duration_seconds", "Duration of eviction runs in seconds.")?,
        })
    }
}

/// Blobs that are not in the bucket yet.
pub struct PendingMetrics {
    /// Blobs that are not in the bucket yet.
    pub blobs: IntGauge,
    /// Their bytes.
    pub bytes: IntGauge,
    /// Blobs whose only copy, on this node, was damaged before they reached the bucket.
    pub damaged: IntCounter,
}

impl PendingMetrics {
    fn register(add: &Registrar<'_>) -> Result<PendingMetrics, prometheus::Error> {
        Ok(PendingMetrics {
            blobs: add.gauge("pending_blobs", "Number of blobs not yet uploaded to the bucket.")?,
            bytes: add.gauge("pending_bytes", "Bytes not yet uploaded to the bucket.")?,
            damaged: add.counter(
                "pending_damaged_total",
                "Total number of blobs that were damaged on this node before they were uploaded to the bucket; push \
                 them again.",
            )?,
        })
    }
}

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Errors
    /// If two metrics have the same name. A test rules that out.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let add = Registrar { registry: &registry };
        Ok(Metrics {
            http: HttpMetrics::register(&add)?,
            store: StoreMetrics::register(&add)?,
            pending: PendingMetrics::register(&add)?,
            served_bytes: add.counters(
                "served_bytes_total",
                "Total bytes of content sent to clients, by source: store (cached), fill (a running download), bucket \
                 (not cached).",
                &["source"],
            )?,
            received_bytes: add.counter("received_bytes_total", "Total bytes of content received from clients.")?,
            fetches: add.counters(
                "fetches_total",
                "Total number of blob and manifest reads, by result: hit (cached), joined (shared a running download), \
                 fill (started one), through (not cached).",
                &["result"],
            )?,
            fills: add.counters(
                "fills_total",
                "Total number of downloads from the bucket into the store, by result: stored, mismatch (digest), \
                 failed, no_room.",
                &["result"],
            )?,
            fills_running: add.gauge("fills_running", "Downloads from the bucket into the store in progress.")?,
            mismatches: add.counters(
                "digest_mismatches_total",
                "Total number of times that content did not match its digest, by place: store, bucket, upload.",
                &["place"],
            )?,
            scrubbed_bytes: add
                .counter("scrubbed_bytes_total", "Total bytes that the scrub read to verify stored content.")?,
            scrub_completed: add.gauge(
                "scrub_completed_timestamp_seconds",
                "Time at which the scrub last finished verifying all stored content, in seconds since the Unix epoch.",
            )?,
            bucket: BucketMetrics::register(&registry)?,
            stale_tags: add.counter(
                "stale_tags_total",
                "Total number of tag reads served with the last known value because the bucket failed.",
            )?,
            sessions: add.gauge("upload_sessions", "Number of unfinished uploads.")?,
            registry,
        })
    }

    /// The metrics in Prometheus' text format.
    ///
    /// # Errors
    /// If a metric cannot be encoded, which these types rule out.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// The Prometheus registry, to register further metrics.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_metrics_have_unique_names() {
        let metrics = Metrics::new().unwrap();
        metrics.pending.blobs.set(3);
        let text = String::from_utf8(metrics.text().unwrap()).unwrap();
        assert!(text.contains("entrepot_pending_blobs 3"), "{text}");
    }
}
