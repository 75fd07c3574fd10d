//! That a fill is under way, and what it came to, as the metrics say it.

use super::Shared;
use super::failure::Failure;
use crate::oci::Digest;
use crate::store::disk::StoreError;
use prometheus::IntGauge;
use std::io::ErrorKind;

impl Shared {
    pub(super) fn count_fill(&self, result: &str) {
        self.parts.metrics.fills.with_label_values(&[result]).inc();
    }

    /// Counts a fill as running until what is returned is dropped.
    pub(super) fn count_running(&self) -> Running {
        let gauge = self.parts.metrics.fills_running.clone();
        gauge.inc();
        Running(gauge)
    }
}

/// A fill that counts as running.
pub(super) struct Running(IntGauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Says why a fill failed. Returns what it came to.
pub(super) fn failed(shared: &Shared, digest: &Digest, failure: &Failure) -> &'static str {
    match failure {
        Failure::Mismatch(version) => {
            shared.mismatch(digest, version.clone());
            "mismatch"
        }
        Failure::Local(error) => {
            tracing::warn!(%digest, %error, "the disk failed during a fill");
            if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) { "no_room" } else { "failed" }
        }
        Failure::Missing => "failed",
        Failure::Bucket(error) => {
            tracing::warn!(%digest, %error, "a fill failed");
            "failed"
        }
    }
}

/// Says why verified content is not stored, if it is not. Returns what its fill came to.
pub(super) fn ended(digest: &Digest, stored: Result<(), StoreError>) -> &'static str {
    match stored {
        Ok(()) => "stored",
        Err(error) => {
            tracing::warn!(%digest, %error, "content was read and could not be stored");
            without_room(&error)
        }
    }
}

/// What a fill comes to that the store does not take.
pub(super) fn without_room(error: &StoreError) -> &'static str {
    if error.is_no_room() { "no_room" } else { "failed" }
}
