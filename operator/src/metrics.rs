//! Every metric of the operator. No label holds a name of a cluster: the number of series does not grow with use.

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Upper bounds in seconds: from a pass that only looks to one that waits for a slow API server.
const SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0];

/// The metrics and the registry that they are in.
pub struct Metrics {
    registry: Registry,
    /// Passes by `result`: `ok` or `error`.
    pub reconciles: IntCounterVec,
    pub reconcile_seconds: Histogram,
    /// Passes under way.
    pub reconciling: IntGauge,
    /// Triggers that came in, by `source`: the kind of the object that changed.
    pub triggers: IntCounterVec,
    /// Clusters whose last pass failed, and that wait for their next.
    pub retrying: IntGauge,
    /// Clusters that there are.
    pub clusters: IntGauge,
    /// Those of them whose object cannot be read.
    pub unreadable: IntGauge,
    /// Writes to the API server, by `kind` and `verb`: `create`, `apply`, `replace`, `delete`, `status`, `resize`.
    pub writes: IntCounterVec,
    /// Children that somebody else had changed or deleted and that were put back, by `kind`.
    pub drifts: IntCounterVec,
    /// Watches that broke, by `kind`; they begin anew by themselves.
    pub watch_errors: IntCounterVec,
    /// 1 for a `kind` that was never listed, or whose list or watch keeps failing; 0 for one that is seen.
    pub lists_failing: IntGaugeVec,
    /// Nodes that were asked for their status and did not answer.
    pub unanswered: IntCounter,
    /// 1 while this replica leads.
    pub leader: IntGauge,
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
        let options = |name: &str, help: &str| Opts::new(name, help).namespace("entrepot_operator");
        let seconds = HistogramOpts::from(options("reconcile_duration_seconds", "Duration of a pass."));
        let metrics = Metrics {
            reconciles: IntCounterVec::new(options("reconciles_total", "Passes."), &["result"])?,
            reconcile_seconds: Histogram::with_opts(seconds.buckets(SECONDS.to_vec()))?,
            reconciling: IntGauge::with_opts(options("reconciles_running", "Passes under way."))?,
            triggers: IntCounterVec::new(options("queue_triggers_total", "Changes that ask for a pass."), &["source"])?,
            retrying: IntGauge::with_opts(options("queue_retrying", "Clusters whose last pass failed."))?,
            clusters: IntGauge::with_opts(options("clusters", "RegistryClusters that there are."))?,
            unreadable: IntGauge::with_opts(options("clusters_unreadable", "RegistryClusters that cannot be read."))?,
            writes: IntCounterVec::new(options("writes_total", "Writes to the API server."), &["kind", "verb"])?,
            drifts: IntCounterVec::new(options("drifts_total", "Children that were put back."), &["kind"])?,
            watch_errors: IntCounterVec::new(options("watch_errors_total", "Watches that broke."), &["kind"])?,
            lists_failing: IntGaugeVec::new(options("lists_failing", "Kinds that are not seen."), &["kind"])?,
            unanswered: IntCounter::with_opts(options("node_status_failures_total", "Nodes that did not answer."))?,
            leader: IntGauge::with_opts(options("leader", "Whether this replica leads."))?,
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
            Box::new(metrics.unanswered.clone()),
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
    /// When a metric cannot be written, which these types give no cause for.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}
