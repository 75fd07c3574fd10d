//! The metrics of requests to the bucket.

use entrepot_runtime::metrics::Registrar;
use prometheus::{HistogramVec, IntCounter, IntCounterVec, Registry};

/// Counts requests and bytes. Clones share the counters.
#[derive(Clone, Debug)]
pub struct BucketMetrics {
    /// By `operation` and `result`: `ok`, or the kind of error.
    pub requests: IntCounterVec,
    /// By `operation`.
    pub seconds: HistogramVec,
    /// Bytes of successful puts and parts.
    pub sent_bytes: IntCounter,
    /// Bytes of bodies that arrived.
    pub received_bytes: IntCounter,
}

impl BucketMetrics {
    /// All at zero, in no registry that is published.
    ///
    /// # Errors
    /// Never: an empty registry has no metric of their names.
    pub fn new() -> Result<BucketMetrics, prometheus::Error> {
        BucketMetrics::register(&Registry::new())
    }

    /// All at zero, in this registry.
    ///
    /// # Errors
    /// If the registry has a metric of one of their names.
    pub fn register(registry: &Registry) -> Result<BucketMetrics, prometheus::Error> {
        let add = Registrar { registry };
        Ok(BucketMetrics {
            requests: add.counters(
                "bucket_requests_total",
                "Total number of requests to the bucket, by operation and result (ok or the kind of error).",
                &["operation", "result"],
            )?,
            seconds: add.histograms(
                "bucket_request_duration_seconds",
                "Time until the bucket started its response, in seconds, by operation.",
                &["operation"],
            )?,
            sent_bytes: add.counter("bucket_sent_bytes_total", "Total bytes of content sent to the bucket.")?,
            received_bytes: add
                .counter("bucket_received_bytes_total", "Total bytes of content read from the bucket.")?,
        })
    }
}
