//! The words of the OCI distribution-spec as types: parsed once, at the edge, and valid for ever after.
//!
//! Nothing here does I/O, knows HTTP or knows a bucket. Every `parse` refuses what the specification refuses, so that
//! no other module checks a name, a digest or a range a second time, and so that no path or key can be built from
//! text that a client chose freely.

pub mod digest;
pub mod manifest;
pub mod range;
pub mod reference;
pub mod repository;
pub mod session_id;

pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use manifest::{Descriptor, MAX_MANIFEST_BYTES, Manifest, ManifestError};
pub use range::{RangeRefused, RequestRange, UploadRange, UploadRangeError};
pub use reference::{Reference, ReferenceError, Tag};
pub use repository::{Repository, RepositoryError};
pub use session_id::{NodeName, SessionId, SessionIdError};
