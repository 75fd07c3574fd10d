//! Why bytes are not an accepted manifest.

use super::digest::DigestError;
use super::place::Place;

/// Why bytes are not an accepted manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or a field has another type.
    #[error("invalid manifest: {0}")]
    Json(#[from] serde_json::Error),
    /// A manifest of another version.
    #[error("unsupported schemaVersion {0}; must be 2 (Docker's schema 1 is not supported)")]
    SchemaVersion(u64),
    /// The manifest and the request name different types.
    #[error("mediaType is {inside:?} and Content-Type is {outside:?}; they must be the same")]
    MediaTypes {
        /// The type in the manifest.
        inside: String,
        /// The `Content-Type` of the request.
        outside: String,
    },
    /// A registry stores only the bytes of a manifest, so it would have to guess the type later.
    #[error(
        "Content-Type is {0:?} and the manifest has no mediaType; put \"mediaType\": {0:?} into the manifest, because \
         the registry stores only its bytes"
    )]
    MediaTypeMissing(String),
    /// A type that is not one of an image or an index.
    #[error("unsupported manifest media type {0:?}; must be that of an OCI or Docker manifest or index")]
    UnknownMediaType(String),
    /// It has neither a config nor manifests.
    #[error("invalid manifest: must have either config and layers (an image) or manifests (an index)")]
    NoContent,
    /// It could be read as an image and as an index.
    #[error("invalid manifest: must not have both layers (an image) and manifests (an index)")]
    BothKinds,
    /// A field has no valid digest.
    #[error("invalid manifest: {place}.digest: {source}")]
    Digest {
        /// The descriptor that has it.
        place: Place,
        /// What is wrong with it.
        source: DigestError,
    },
}
