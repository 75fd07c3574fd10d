//! The ServiceMonitor for the Prometheus Operator, if the spec requests one.

use super::child::{Child, Kind};
use crate::crd::Monitoring;
use crate::names::Identity;
use serde_json::json;

pub(super) fn monitor(identity: &Identity, monitoring: &Monitoring) -> Option<Child> {
    if !monitoring.service_monitor {
        return None;
    }
    let body = json!({"spec": {
        "selector": {"matchLabels": identity.selector()},
        "namespaceSelector": {"matchNames": [identity.namespace]},
        // Only the headless Service has this port.
        "endpoints": [{"port": "operations", "path": "/metrics", "interval": monitoring.interval}],
    }});
    let mut child = Child::new(Kind::ServiceMonitor, identity, identity.name.clone(), body);
    for (name, value) in &monitoring.labels {
        child.object["metadata"]["labels"][name] = json!(value);
    }
    Some(child)
}
