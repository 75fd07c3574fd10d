//! All metrics of the operator. No label holds the name of a cluster, so the number of series does
//! not grow with the number of clusters.

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Upper bounds in seconds, from a reconciliation that writes nothing to one that waits for a slow
/// API server.
const SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

const DRIFTS: &str = "Total number of owned objects that were reverted or recreated after an outside change, by kind.";
const LISTS_FAILING: &str = "1 if the kind was never listed or its list or watch keeps failing, else 0, by kind.";

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
    /// Writes to the API server, by `kind` and `verb`: `create`, `apply`, `replace`, `delete`,
    /// `status`, `resize`.
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
        let create = Registering(&registry);
        Ok(Metrics {
            reconciles: create.counters(
                "reconciles_total",
                "Total number of reconciliations, by result (ok, error).",
                &["result"],
            )?,
            reconcile_seconds: create
                .histogram("reconcile_duration_seconds", "Duration of reconciliations in seconds.")?,
            reconciling: create.gauge("reconciles_running", "Number of reconciliations in progress.")?,
            triggers: create.counters(
                "queue_triggers_total",
                "Total number of watch events that triggered a reconciliation, by kind of the object.",
                &["source"],
            )?,
            retrying: create.gauge(
                "queue_retrying",
                "Number of RegistryClusters waiting for a retry after a failed reconciliation.",
            )?,
            clusters: create.gauge("clusters", "Number of RegistryClusters.")?,
            unreadable: create.gauge("clusters_unreadable", "Number of RegistryClusters that cannot be decoded.")?,
            writes: create.counters(
                "writes_total",
                "Total number of writes to the API server without Lease renewals, by kind and verb.",
                &["kind", "verb"],
            )?,
            drifts: create.counters("drifts_total", DRIFTS, &["kind"])?,
            watch_errors: create.counters("watch_errors_total", "Total number of watch errors, by kind.", &["kind"])?,
            lists_failing: create.register(IntGaugeVec::new(options("lists_failing", LISTS_FAILING), &["kind"])?)?,
            status_failures: create
                .counter("node_status_failures_total", "Total number of failed status requests to registry pods.")?,
            leader: create.gauge("leader", "1 if this replica is the leader, else 0.")?,
            registry,
        })
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

fn options(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("entrepot_operator")
}

/// Creates metrics and registers each of them.
struct Registering<'a>(&'a Registry);

impl Registering<'_> {
    fn register<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.register(IntCounter::with_opts(options(name, help))?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(options(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::with_opts(options(name, help))?)
    }

    fn histogram(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        let options = HistogramOpts::from(options(name, help)).buckets(SECONDS.to_vec());
        self.register(Histogram::with_opts(options)?)
    }
}
