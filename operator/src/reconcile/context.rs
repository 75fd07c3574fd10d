//! What every reconciliation needs.

use super::backoff::Backoff;
use crate::installation::Installation;
use crate::metrics::Metrics;
use crate::node_status::NodeStatusClient;
use crate::watch::Stores;
use kube::Client;
use kube::runtime::events::Recorder;
use std::sync::Arc;

/// What every reconciliation needs.
pub struct Context {
    pub client: Client,
    pub stores: Stores,
    pub node_status: NodeStatusClient,
    pub metrics: Arc<Metrics>,
    pub recorder: Recorder,
    pub backoff: Arc<Backoff>,
    pub installation: Arc<Installation>,
}

/// Counts and times a reconciliation that ends. If its future is dropped, only its time is observed.
pub(super) struct RunningMetrics<'a> {
    metrics: &'a Metrics,
    timer: prometheus::HistogramTimer,
}

impl RunningMetrics<'_> {
    pub(super) fn start(metrics: &Metrics) -> RunningMetrics<'_> {
        metrics.reconciling.inc();
        RunningMetrics { metrics, timer: metrics.reconcile_seconds.start_timer() }
    }

    pub(super) fn end(self, ok: bool) {
        self.metrics.reconciles.with_label_values(&[if ok { "ok" } else { "error" }]).inc();
        self.timer.observe_duration();
        self.metrics.reconciling.dec();
    }
}
