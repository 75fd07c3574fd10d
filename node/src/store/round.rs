//! The progress of the scrub, which a clean shutdown keeps.

use entrepot_oci::{Algorithm, Digest};

/// The progress of a round over all digests in ascending order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    /// The content that was scrubbed last.
    pub(super) after: Option<Digest>,
    /// Whether everything before it was scrubbed in this round too.
    pub(super) whole: bool,
}

impl Round {
    /// A round that continues where a clean shutdown left it.
    pub(super) fn resumed(after: Option<Digest>) -> Round {
        Round { after, whole: true }
    }

    /// A round that starts at a random digest.
    pub(super) fn anywhere() -> Round {
        let place = Digest::of(Algorithm::Sha256, uuid::Uuid::new_v4().as_bytes());
        Round { after: Some(place), whole: false }
    }

    /// The content that was scrubbed last, if everything before it was scrubbed too.
    pub(super) fn reached(&self) -> Option<Digest> {
        self.after.filter(|_| self.whole)
    }
}
