//! Manifests: what a registry has to know of them. The bytes are kept as the client sent them.

use super::digest::{Algorithm, Digest, DigestError};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The largest manifest accepted, in bytes (distribution-spec, "Pushing Manifests": at least 4 MiB are to be
/// supported).
pub const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// What an index without a `mediaType` of its own is served as, and what referrers are listed in.
pub const INDEX_MEDIA_TYPE: &str = OCI_INDEX;

/// One piece of content that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub media_type: String,
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// Where else the content lies; a layer with one of these need not be in the registry.
    pub urls: Vec<String>,
}

/// A manifest or index, read far enough to know what it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What it is served as.
    pub media_type: String,
    /// What kind of artifact it is: `artifactType`, or else the config's media type (distribution-spec, "Listing
    /// Referrers").
    pub artifact_type: Option<String>,
    /// Config and layers: blobs.
    pub blobs: Vec<Descriptor>,
    /// Manifests that an index lists.
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one refers to; it need not exist.
    pub subject: Option<Digest>,
    pub annotations: BTreeMap<String, String>,
}

/// Why bytes are not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest is not readable: {0}")]
    Json(#[from] serde_json::Error),
    #[error("schemaVersion is {0}; only 2 is supported (Docker's schema 1 is not)")]
    SchemaVersion(u64),
    #[error("mediaType is {inside:?} and Content-Type is {outside:?}; they must be the same")]
    MediaTypes { inside: String, outside: String },
    #[error("the media type {0:?} is not one of an OCI or Docker manifest or index")]
    UnknownMediaType(String),
    #[error("the manifest has neither config and layers nor manifests")]
    NoContent,
    #[error("the manifest has both layers and manifests; it is either an image or an index")]
    BothKinds,
    #[error("{field} of the manifest: {source}")]
    Digest { field: &'static str, source: DigestError },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u64,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    subject: Option<RawDescriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

impl RawDescriptor {
    fn parse(self, field: &'static str) -> Result<Descriptor, ManifestError> {
        let digest = Digest::parse(&self.digest).map_err(|source| ManifestError::Digest { field, source })?;
        Ok(Descriptor { media_type: self.media_type, digest, size: self.size, urls: self.urls.unwrap_or_default() })
    }
}

impl Manifest {
    /// Reads a manifest (image-spec, manifest.md and image-index.md; Docker's v2 schema 2 and manifest list).
    ///
    /// `content_type` is what the client or the store says it is; where there is none, the manifest's own `mediaType`
    /// counts, or else its shape.
    ///
    /// # Errors
    /// When it is not JSON of that form, of another schema version, its media types disagree, or a digest is wrong.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Manifest, ManifestError> {
        let document: Document = serde_json::from_slice(bytes)?;
        if document.schema_version != 2 {
            return Err(ManifestError::SchemaVersion(document.schema_version));
        }
        let outside = content_type.map(|text| text.split(';').next().unwrap_or(text).trim().to_owned());
        let inside = document.media_type.filter(|text| !text.is_empty());
        if let (Some(inside), Some(outside)) = (&inside, &outside)
            && inside != outside
        {
            return Err(ManifestError::MediaTypes { inside: inside.clone(), outside: outside.clone() });
        }
        let is_index = match (&document.config, &document.layers, &document.manifests) {
            (None, None, Some(_)) => true,
            (_, _, None) if document.config.is_some() || document.layers.is_some() => false,
            (_, _, None) => return Err(ManifestError::NoContent),
            _ => return Err(ManifestError::BothKinds),
        };
        let media_type = inside.or(outside).unwrap_or_else(|| (if is_index { OCI_INDEX } else { OCI_MANIFEST }).into());
        let known = if is_index { [OCI_INDEX, DOCKER_LIST] } else { [OCI_MANIFEST, DOCKER_MANIFEST] };
        if !known.contains(&media_type.as_str()) {
            return Err(ManifestError::UnknownMediaType(media_type));
        }
        let config = document.config.map(|config| config.parse("config.digest")).transpose()?;
        let artifact_type = document
            .artifact_type
            .filter(|text| !text.is_empty())
            .or_else(|| config.as_ref().map(|config| config.media_type.clone()));
        let layers = parse_all(document.layers, "layers[].digest")?;
        Ok(Manifest {
            media_type,
            artifact_type,
            blobs: config.into_iter().chain(layers).collect(),
            manifests: parse_all(document.manifests, "manifests[].digest")?,
            subject: document.subject.map(|subject| subject.parse("subject.digest")).transpose()?.map(|s| s.digest),
            annotations: document.annotations.unwrap_or_default(),
        })
    }

    /// The descriptor with which a referrers list names this manifest (distribution-spec, "Listing Referrers").
    pub fn referrer(&self, digest: Digest, size: u64) -> Referrer {
        Referrer {
            media_type: self.media_type.clone(),
            digest: digest.to_string(),
            size,
            artifact_type: self.artifact_type.clone(),
            annotations: self.annotations.clone(),
        }
    }
}

fn parse_all(raw: Option<Vec<RawDescriptor>>, field: &'static str) -> Result<Vec<Descriptor>, ManifestError> {
    raw.unwrap_or_default().into_iter().map(|descriptor| descriptor.parse(field)).collect()
}

/// An entry of a referrers list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    pub media_type: String,
    pub digest: String,
    /// Size of the manifest in bytes.
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Reads the entries of an index that a client keeps under the fallback tag `<alg>-<hex>` of a subject
/// (distribution-spec, "Referrers Tag Schema"), so that referrers pushed before this registry are still listed.
///
/// # Errors
/// When the bytes are not an index.
pub fn fallback_referrers(bytes: &[u8]) -> Result<Vec<Referrer>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Index {
        #[serde(default)]
        manifests: Vec<Referrer>,
    }
    serde_json::from_slice::<Index>(bytes).map(|index| index.manifests)
}

/// The media type to serve stored bytes as; what is not readable is served as an OCI manifest, as it was accepted.
pub fn media_type_of(bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape<'a> {
        media_type: Option<String>,
        #[serde(borrow)]
        manifests: Option<&'a RawValue>,
    }
    match serde_json::from_slice::<Shape<'_>>(bytes) {
        Ok(Shape { media_type: Some(media_type), .. }) if !media_type.is_empty() => media_type,
        Ok(Shape { manifests: Some(_), .. }) => OCI_INDEX.into(),
        _ => OCI_MANIFEST.into(),
    }
}

/// The tag under which clients keep the referrers of `subject` at a registry without the referrers API.
pub fn fallback_tag(subject: &Digest) -> String {
    let hexadecimal = subject.hex();
    // The specification cuts the hash to 64 characters; the tag then has at most 71 of the 128 that one may have.
    let algorithm: Algorithm = subject.algorithm();
    format!("{}-{}", algorithm.name(), &hexadecimal[..64])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONFIG: &str = r#"{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;

    fn image(extra: &str) -> String {
        format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":[{CONFIG}]{extra}}}"#)
    }

    #[test]
    fn an_image_names_its_config_and_layers() {
        let manifest = Manifest::parse(image("").as_bytes(), Some(OCI_MANIFEST)).unwrap();
        assert_eq!(manifest.blobs.len(), 2);
        assert_eq!(manifest.artifact_type.as_deref(), Some("application/vnd.oci.image.config.v1+json"));
        assert_eq!(manifest.media_type, OCI_MANIFEST);
    }

    #[test]
    fn the_artifact_type_of_the_manifest_goes_before_that_of_the_config() {
        let manifest = Manifest::parse(image(r#","artifactType":"a/b""#).as_bytes(), None).unwrap();
        assert_eq!(manifest.artifact_type.as_deref(), Some("a/b"));
    }

    #[test]
    fn an_index_names_its_manifests() {
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{CONFIG}]}}"#);
        let manifest = Manifest::parse(text.as_bytes(), None).unwrap();
        assert_eq!((manifest.manifests.len(), manifest.media_type.as_str()), (1, OCI_INDEX));
        assert_eq!(media_type_of(text.as_bytes()), OCI_INDEX);
    }

    #[test]
    fn disagreeing_media_types_are_refused() {
        let text = image(&format!(r#","mediaType":"{DOCKER_MANIFEST}""#));
        assert!(matches!(Manifest::parse(text.as_bytes(), Some(OCI_MANIFEST)), Err(ManifestError::MediaTypes { .. })));
        assert!(Manifest::parse(text.as_bytes(), Some(&format!("{DOCKER_MANIFEST}; charset=utf-8"))).is_ok());
    }

    #[test]
    fn schema_1_empty_documents_and_wrong_digests_are_refused() {
        let parse = |text: &str| Manifest::parse(text.as_bytes(), None);
        assert!(matches!(parse(r#"{"schemaVersion":1}"#), Err(ManifestError::SchemaVersion(1))));
        assert!(matches!(parse(r#"{"schemaVersion":2}"#), Err(ManifestError::NoContent)));
        assert!(matches!(parse("{"), Err(ManifestError::Json(_))));
        let wrong = image("").replace("sha256:e3", "sha256:zz");
        assert!(matches!(parse(&wrong), Err(ManifestError::Digest { field: "config.digest", .. })));
        let both = image(&format!(r#","manifests":[{CONFIG}]"#));
        assert!(matches!(parse(&both), Err(ManifestError::BothKinds)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Manifest::parse(&bytes, None);
            let _ = media_type_of(&bytes);
            let _ = fallback_referrers(&bytes);
        }
    }
}
