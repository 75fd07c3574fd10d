//! All metrics of the operator. No label holds the name of a cluster, so the number of series does
//! not grow with the number of clusters.

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Upper bounds in seconds, from a reconciliation that writes nothing to one that waits for a slow
/// API server.
const SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

/// The metrics and the registry that holds them.
pub struct Metrics {
    registry: Registry,
    /// Reconciliations by `result`: `ok` or `error`.
    pub reconciles: IntCounterVec,
    pub reconcile_seconds: Histogram,
    /// Reconciliations in progress.
    pub reconciling: IntGauge,
    /// Watch events that triggered a reconciliation, by `source`: the kind of the object that
    /// changed.
    pub triggers: IntCounterVec,
    /// Clusters whose last reconciliation failed and that wait for the next.
    pub retrying: IntGauge,
    /// Number of RegistryClusters.
    pub clusters: IntGauge,
    /// RegistryClusters that cannot be decoded.
    pub unreadable: IntGauge,
    /// Writes to the API server, by `kind` and `verb`: `create`, `apply`, `replace`, `delete`, `status`, `resize`.
    pub writes: IntCounterVec,
    /// Objects that were reverted or recreated after an outside change, by `kind`.
    pub drifts: IntCounterVec,
    /// Watch errors, by `kind`. A failed watch restarts by itself.
    pub watch_errors: IntCounterVec,
    /// 1 for a `kind` that was never listed or whose list or watch keeps failing, else 0.
    pub lists_failing: IntGaugeVec,
    /// Failed status requests to nodes.
    pub status_failures: IntCounter,
    /// 1 while this replica is the leader.
    pub leader: IntGauge,
}

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Errors
    /// If two metrics have the same name, which a test rules out.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let options = |name: &str, help: &str| Opts::new(name, help).namespace("entrepot_operator");
        let seconds =
            HistogramOpts::from(options("reconcile_duration_seconds", "Duration of reconciliations in seconds."));
        let metrics = Metrics {
            reconciles: IntCounterVec::new(
                options("reconciles_total", "Total number of reconciliations, by result (ok, error)."),
                &["result"],
            )?,
            reconcile_seconds: Histogram::with_opts(seconds.buckets(SECONDS.to_vec()))?,
            reconciling: IntGauge::with_opts(options("reconciles_running", "Number of reconciliations in progress."))?,
            triggers: IntCounterVec::new(
                options(
                    "queue_triggers_total",
                    "Total number of watch events that triggered a reconciliation, by kind of the object.",
                ),
                &["source"],
            )?,
            retrying: IntGauge::with_opts(options(
                "queue_retrying",
                "Number of RegistryClusters waiting for a retry after a failed reconciliation.",
            ))?,
            clusters: IntGauge::with_opts(options("clusters", "Number of RegistryClusters."))?,
            unreadable: IntGauge::with_opts(options(
                "clusters_unreadable",
                "Number of RegistryClusters that cannot be decoded.",
            ))?,
            writes: IntCounterVec::new(
                options(
                    "writes_total",
                    "Total number of writes to the API server without Lease renewals, by kind and verb.",
                ),
                &["kind", "verb"],
            )?,
            drifts: IntCounterVec::new(
                options(
                    "drifts_total",
                    "Total number of owned objects that were reverted or recreated after an outside change, by kind.",
                ),
                &["kind"],
            )?,
            watch_errors: IntCounterVec::new(
                options("watch_errors_total", "Total number of watch errors, by kind."),
                &["kind"],
            )?,
            lists_failing: IntGaugeVec::new(
                options(
                    "lists_failing",
                    "1 if the kind was never listed or its list or watch keeps failing, else 0, by kind.",
                ),
                &["kind"],
            )?,
            status_failures: IntCounter::with_opts(options(
                "node_status_failures_total",
                "Total number of failed status requests to registry pods.",
            ))?,
            leader: IntGauge::with_opts(options("leader", "1 if this replica is the leader, else 0."))?,
            registry,
        };
        let collectors: [Box<dyn prometheus::core::Collector>; 13] = [
            Box::new(metrics.reconciles.clone()),
            Box::new(metrics.reconcile_seconds.clone()),
            Box::new(metrics.reconciling.clone()),
            Box::new(metrics.triggers.clone()),
            Box::new(metrics.retrying.clone()),
            Box::new(metrics.clusters.clone()),
            Box::new(metrics.unreadable.clone()),
            Box::new(metrics.writes.clone()),
            Box::new(metrics.drifts.clone()),
            Box::new(metrics.watch_errors.clone()),
            Box::new(metrics.lists_failing.clone()),
            Box::new(metrics.status_failures.clone()),
            Box::new(metrics.leader.clone()),
        ];
        for collector in collectors {
            metrics.registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// The metrics in Prometheus' text format.
    ///
    /// # Errors
    /// If a metric cannot be encoded, which never happens for the types used here.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
