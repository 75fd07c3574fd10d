//! What a handler tells the audit log, as an extension of its response.

use axum::response::Response;
use entrepot_oci::{Digest, Tag};

/// What a push or a deletion changed.
#[derive(Clone, Debug, Default)]
pub struct Audited {
    /// The content.
    pub digest: Option<Digest>,
    /// The tags that were made or moved, each with the digest that it had before.
    pub tags: Vec<(Tag, Option<Digest>)>,
}

impl Audited {
    /// Attaches this to a response.
    pub fn attach(self, mut response: Response) -> Response {
        response.extensions_mut().insert(self);
        response
    }
}
