//! How long a pod takes to shut down.

use std::time::Duration;

/// Delay between the deletion of a pod and its SIGTERM. Endpoints and load balancers stop sending
/// requests meanwhile, and the node still serves.
pub(super) const PRE_STOP: Duration = Duration::from_secs(5);

/// Time that a node has after SIGTERM to finish requests in flight and pending uploads. It exits as
/// soon as it is done.
pub(super) const DRAIN: Duration = Duration::from_secs(120);

/// When the kubelet kills the container: after the delay, the drain, and 10 s for the store to
/// close.
pub(super) const TERMINATION_GRACE: Duration = PRE_STOP.saturating_add(DRAIN).saturating_add(Duration::from_secs(10));
