//! The metrics and log messages of downloads: how many are running, and their results.

use super::Shared;
use super::failure::Failure;
use crate::store::StoreError;
use entrepot_oci::Digest;
use prometheus::IntGauge;
use std::io::ErrorKind;

impl Shared {
    pub(super) fn count_fill(&self, result: &str) {
        self.parts.env.metrics.fills.with_label_values(&[result]).inc();
    }

    /// Counts a download as running until the returned value is dropped.
    pub(super) fn count_running(&self) -> Running {
        let gauge = self.parts.env.metrics.fills_running.clone();
        gauge.inc();
        Running(gauge)
    }
}

/// A download that is counted as running.
pub(super) struct Running(IntGauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Logs why a download failed. Returns its result for the metric.
pub(super) fn failed(shared: &Shared, digest: &Digest, failure: &Failure) -> &'static str {
    match failure {
        Failure::Mismatch(version) => {
            shared.mismatch(digest, version.clone());
            "mismatch"
        }
        Failure::Local(error) => {
            tracing::warn!(%digest, %error, "local disk failed while caching content from the bucket");
            if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) { "no_room" } else { "failed" }
        }
        Failure::Missing => "failed",
        Failure::Bucket(error) => {
            tracing::warn!(%digest, %error, "cannot download content from the bucket");
            "failed"
        }
    }
}

/// Logs why verified content was not stored, if it was not. Returns the result of the download for
/// the metric.
pub(super) fn ended(digest: &Digest, stored: Result<(), StoreError>) -> &'static str {
    match stored {
        Ok(()) => "stored",
        Err(error) => {
            tracing::warn!(%digest, %error, "content was downloaded and served but could not be stored");
            without_room(&error)
        }
    }
}

/// The result of a download that the store rejects.
pub(super) fn without_room(error: &StoreError) -> &'static str {
    if error.is_no_room() { "no_room" } else { "failed" }
}
