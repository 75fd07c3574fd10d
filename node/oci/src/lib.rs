//! The terms of the OCI distribution-spec as types. They are parsed once, at the edge, and are
//! valid from then on.
//!
//! This crate never does I/O and knows neither HTTP nor the bucket. Every `parse` refuses what the
//! specification refuses. So no other module checks a name, a digest or a range again, and no path
//! or key can be built from arbitrary text of a client.

pub mod digest;
pub mod manifest;
pub mod manifest_error;
mod node_name;
mod place;
pub mod range;
pub mod reference;
pub mod repository;
pub mod session_id;
mod text;

pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use manifest::{Content, Descriptor, MAX_MANIFEST_BYTES, Manifest};
pub use manifest_error::ManifestError;
pub use node_name::{NodeName, NodeNameError};
pub use place::Place;
pub use range::{RangeRefused, RequestRange, UploadRange, UploadRangeError};
pub use reference::{Reference, ReferenceError, Tag};
pub use repository::{Repository, RepositoryError};
pub use session_id::{SessionId, SessionIdError};
