//! What an operator of nodes sees: metrics, traces, the access log.

pub mod access;
pub mod metrics;
pub mod series;
pub mod tracing;

pub use metrics::Metrics;
