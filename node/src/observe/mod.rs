//! What the operator of a registry observes: metrics, tracing and the access log. This module never
//! changes what a request does.

pub mod access;
pub mod audit;
pub mod metrics;
pub mod series;
pub mod tracing;

pub use metrics::Metrics;
