//! The parts of a manifest that a registry reads. The bytes are stored as the client sent them.

use super::digest::{Algorithm, Digest};
use super::manifest_error::ManifestError;
use super::place::Place;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

mod strict;

/// Maximum size of an accepted manifest, in bytes (distribution-spec, "Pushing Manifests", requires
/// support for at least 4 MiB).
pub const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;

/// Maximum size of the annotations in one entry of a referrers list, in bytes of their JSON. Signatures
/// and attestations have up to about 10 KiB. A list of 64 such entries fits into one answer.
const MAX_LISTED_ANNOTATIONS: usize = 64 << 10;
/// Maximum length of a media type in an entry of a referrers list (RFC 6838, section 4.2: two names of
/// 127 characters).
const MAX_MEDIA_TYPE: usize = 255;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's schema 1, with and without signatures: served from a bucket that another registry wrote
/// to, never accepted in a push.
const DOCKER_SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1+json";
const DOCKER_SCHEMA_1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
/// Media type of an index without a `mediaType`, and of referrers lists.
pub const INDEX_MEDIA_TYPE: &str = OCI_INDEX;

/// Layers that a registry need not have, because clients may not redistribute them (image-spec,
/// layer.md, "Non-Distributable Layers"; Docker's foreign layers).
const NON_DISTRIBUTABLE: [&str; 5] = [
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// A reference to content in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Where the manifest has it.
    pub place: Place,
    /// The media type of the content.
    pub media_type: String,
    /// The digest of the content.
    pub digest: Digest,
    /// Size in bytes, as the manifest states it.
    pub size: u64,
    /// Other places that have the content. Clients may download it from there.
    pub urls: Vec<String>,
}

impl Descriptor {
    /// Whether clients download the content from its URLs and the registry need not have it.
    pub fn is_elsewhere(&self) -> bool {
        let is_layer = matches!(self.place, Place::Layer(_));
        is_layer && !self.urls.is_empty() && NON_DISTRIBUTABLE.contains(&self.media_type.as_str())
    }
}

/// A manifest or index, parsed as far as needed to know what it references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The media type with which it is served.
    pub media_type: String,
    /// The artifact type: `artifactType`, or else the config's media type (distribution-spec,
    /// "Listing Referrers").
    pub artifact_type: Option<String>,
    /// What it references, apart from its subject.
    pub content: Content,
    /// The manifest that this one refers to. It need not exist.
    pub subject: Option<Descriptor>,
    /// The annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

/// What a manifest references, which is its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Config and layers, which are blobs.
    Image(Vec<Descriptor>),
    /// Manifests that an index lists.
    Index(Vec<Descriptor>),
}

impl Content {
    /// All references.
    pub fn descriptors(&self) -> &[Descriptor] {
        match self {
            Content::Image(descriptors) | Content::Index(descriptors) => descriptors,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u64,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    #[serde(default)]
    manifests: Member<Vec<RawDescriptor>>,
    subject: Option<RawDescriptor>,
    annotations: Option<BTreeMap<String, String>>,
}

/// Whether a member of a JSON object is present. `null` counts as present, because Go writes an
/// empty list as `null` and an index without entries is still an index.
#[derive(Default)]
enum Member<T> {
    #[default]
    Absent,
    Null,
    Value(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Member<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Member<T>, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Member::Null, Member::Value))
    }
}

impl<T> Member<T> {
    fn value(self) -> Option<T> {
        match self {
            Member::Absent | Member::Null => None,
            Member::Value(value) => Some(value),
        }
    }
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
    fn parse(self, place: Place) -> Result<Descriptor, ManifestError> {
        let digest = Digest::parse(&self.digest).map_err(|source| ManifestError::Digest { place, source })?;
        let RawDescriptor { media_type, size, urls, .. } = self;
        Ok(Descriptor { place, media_type, digest, size, urls: urls.unwrap_or_default() })
    }
}

impl Manifest {
    /// Parses a manifest that a client pushes.
    ///
    /// # Errors
    /// As [`Manifest::parse`], and if clients could read the document differently: a known member
    /// in other case or twice, nesting deeper than 100 levels, bytes that are not UTF-8, an array
    /// in the place of an object, or a size of 2^63 bytes or more.
    pub fn parse_pushed(bytes: &[u8], content_type: Option<&str>) -> Result<Manifest, ManifestError> {
        strict::check(bytes)?;
        Manifest::parse(bytes, content_type)
    }

    /// Parses a manifest (image-spec, manifest.md and image-index.md; Docker's v2 schema 2 and
    /// manifest list).
    ///
    /// `content_type` is the type that the client or the store states. Without it, the manifest's
    /// own `mediaType` counts, or else its structure.
    ///
    /// # Errors
    /// If it is not JSON of that structure, has another schema version, has media types that
    /// disagree, or contains an invalid digest.
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
        if let (None, Some(outside)) = (&inside, &outside)
            && [DOCKER_MANIFEST, DOCKER_LIST].contains(&outside.as_str())
        {
            return Err(ManifestError::MediaTypeMissing(outside.clone()));
        }
        let has_blobs = document.config.is_some() || document.layers.is_some();
        let is_index = match (has_blobs, &document.manifests) {
            (false, Member::Null | Member::Value(_)) => true,
            (true, Member::Absent | Member::Null) => false,
            (false, Member::Absent) => return Err(ManifestError::NoContent),
            (true, Member::Value(_)) => return Err(ManifestError::BothKinds),
        };
        let media_type = inside.or(outside).unwrap_or_else(|| (if is_index { OCI_INDEX } else { OCI_MANIFEST }).into());
        let known = if is_index { [OCI_INDEX, DOCKER_LIST] } else { [OCI_MANIFEST, DOCKER_MANIFEST] };
        if !known.contains(&media_type.as_str()) {
            return Err(ManifestError::UnknownMediaType(media_type));
        }
        let config = document.config.map(|config| config.parse(Place::Config)).transpose()?;
        let artifact_type = document
            .artifact_type
            .filter(|text| !text.is_empty())
            .or_else(|| config.as_ref().map(|config| config.media_type.clone()));
        let content = if is_index {
            Content::Index(parse_all(document.manifests.value(), Place::Manifest)?)
        } else {
            let layers = parse_all(document.layers, Place::Layer)?;
            Content::Image(config.into_iter().chain(layers).collect())
        };
        Ok(Manifest {
            media_type,
            artifact_type,
            content,
            subject: document.subject.map(|subject| subject.parse(Place::Subject)).transpose()?,
            annotations: document.annotations.unwrap_or_default(),
        })
    }

    /// The descriptor of this manifest in a referrers list (distribution-spec, "Listing
    /// Referrers"). Its size is limited as by [`Referrer::limited`].
    pub fn referrer(&self, digest: Digest, size: u64) -> Referrer {
        Referrer {
            media_type: self.media_type.clone(),
            digest,
            size,
            artifact_type: self.artifact_type.clone().filter(|text| text.len() <= MAX_MEDIA_TYPE),
            annotations: limited(self.annotations.clone()),
        }
    }
}

fn parse_all(
    raw: Option<Vec<RawDescriptor>>,
    place: impl Fn(usize) -> Place,
) -> Result<Vec<Descriptor>, ManifestError> {
    let indexed = raw.unwrap_or_default().into_iter().enumerate();
    indexed.map(|(index, descriptor)| descriptor.parse(place(index))).collect()
}

/// An entry of a referrers list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// The media type of the manifest.
    pub media_type: String,
    /// The digest of the manifest.
    pub digest: Digest,
    /// Size of the manifest in bytes.
    pub size: u64,
    /// The type of the artifact: `artifactType`, or the media type of the config.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The annotations of the manifest.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Referrer {
    /// The same entry with at most 64 KiB of annotations: the largest ones are left out. An artifact
    /// type that is longer than a media type may be is left out, too. `None` if the media type is.
    pub fn limited(self) -> Option<Referrer> {
        (self.media_type.len() <= MAX_MEDIA_TYPE).then(|| Referrer {
            artifact_type: self.artifact_type.filter(|text| text.len() <= MAX_MEDIA_TYPE),
            annotations: limited(self.annotations),
            ..self
        })
    }
}

/// The annotations without the largest ones, so that the rest has at most [`MAX_LISTED_ANNOTATIONS`]
/// bytes.
fn limited(annotations: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let json = |text: &String| serde_json::to_string(text).map_or(usize::MAX / 4, |json| json.len() + 1);
    let mut by_size: Vec<_> =
        annotations.into_iter().map(|(name, value)| (json(&name) + json(&value), name, value)).collect();
    by_size.sort_unstable();
    let mut bytes = 0;
    let fits = by_size.into_iter().take_while(|(size, ..)| {
        bytes += size;
        bytes <= MAX_LISTED_ANNOTATIONS
    });
    fits.map(|(_, name, value)| (name, value)).collect()
}

/// `null`, which Go writes for an empty map or list, is read as an empty one.
fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Parses the entries of an index that a client maintains under the fallback tag `<alg>-<hex>` of a
/// subject (distribution-spec, "Referrers Tag Schema"), so that referrers that were pushed before
/// this registry existed are still listed. An invalid entry is left out and hides no other, because
/// clients write these indexes and no registry validates them. The others are limited as by
/// [`Referrer::limited`].
///
/// # Errors
/// If the bytes are not an index.
pub fn fallback_referrers(bytes: &[u8]) -> Result<Vec<Referrer>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Index<'a> {
        #[serde(borrow)]
        manifests: Option<Vec<&'a RawValue>>,
    }
    let entries = serde_json::from_slice::<Index<'_>>(bytes)?.manifests.unwrap_or_default();
    Ok(entries.into_iter().filter_map(|entry| serde_json::from_str::<Referrer>(entry.get()).ok()?.limited()).collect())
}

/// The media type with which stored bytes are served. Bytes that cannot be parsed are served as an
/// OCI manifest.
pub fn media_type_of(bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        #[serde(default)]
        schema_version: u64,
        media_type: Option<String>,
        #[serde(default)]
        config: Member<IgnoredAny>,
        #[serde(default)]
        layers: Member<IgnoredAny>,
        #[serde(default)]
        manifests: Member<IgnoredAny>,
        #[serde(default)]
        signatures: Member<IgnoredAny>,
    }
    let Ok(shape) = serde_json::from_slice::<Shape>(bytes) else { return OCI_MANIFEST.into() };
    if let Some(media_type) = shape.media_type.filter(|text| !text.is_empty()) {
        return media_type;
    }
    let media_type = match (shape.schema_version, shape.signatures, shape.config, shape.layers, shape.manifests) {
        (1, Member::Value(_), ..) => DOCKER_SCHEMA_1_SIGNED,
        (1, ..) => DOCKER_SCHEMA_1,
        (.., Member::Value(_)) => OCI_INDEX,
        (_, _, Member::Absent | Member::Null, Member::Absent | Member::Null, Member::Null) => OCI_INDEX,
        _ => OCI_MANIFEST,
    };
    media_type.into()
}

/// The tag under which clients store the referrers of `subject` in a registry without the referrers
/// API.
pub fn fallback_tag(subject: &Digest) -> String {
    let hexadecimal = subject.hex();
    // The specification truncates the hash to 64 characters. The tag then has at most 71 of the 128
    // allowed characters.
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
        assert!(matches!(&manifest.content, Content::Image(blobs) if blobs.len() == 2));
        assert_eq!(manifest.artifact_type.as_deref(), Some("application/vnd.oci.image.config.v1+json"));
        assert_eq!(manifest.media_type, OCI_MANIFEST);
    }

    #[test]
    fn the_artifact_type_of_the_manifest_takes_precedence_over_that_of_the_config() {
        let manifest = Manifest::parse(image(r#","artifactType":"a/b""#).as_bytes(), None).unwrap();
        assert_eq!(manifest.artifact_type.as_deref(), Some("a/b"));
    }

    #[test]
    fn an_entry_of_a_referrers_list_has_no_large_annotations() {
        let text = image(&format!(
            r#","artifactType":"{}","annotations":{{"large":"{}","quotes":"{}","small":"x","other":"{}"}}"#,
            "a".repeat(256),
            "x".repeat(1 << 20),
            "\\\"".repeat(40_000),
            "y".repeat(60_000),
        ));
        let manifest = Manifest::parse(text.as_bytes(), None).unwrap();
        let referrer = manifest.referrer(Digest::of(Algorithm::Sha256, b""), 1);
        assert_eq!(referrer.annotations.keys().collect::<Vec<_>>(), ["other", "small"]);
        assert_eq!(referrer.artifact_type, None);
        assert_eq!(referrer.clone().limited(), Some(referrer.clone()));
        let index = serde_json::json!({"manifests": [
            Referrer { annotations: manifest.annotations, ..referrer.clone() },
            Referrer { media_type: "m".repeat(256), ..referrer.clone() },
        ]});
        assert_eq!(fallback_referrers(index.to_string().as_bytes()).unwrap(), [referrer]);
    }

    #[test]
    fn an_index_names_its_manifests() {
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{CONFIG}]}}"#);
        let manifest = Manifest::parse(text.as_bytes(), None).unwrap();
        assert!(matches!(&manifest.content, Content::Index(manifests) if manifests.len() == 1));
        assert_eq!(manifest.media_type, OCI_INDEX);
        assert_eq!(media_type_of(text.as_bytes()), OCI_INDEX);
    }

    #[test]
    fn only_a_non_distributable_layer_with_urls_may_be_elsewhere() {
        let elsewhere = |document: &str| {
            let manifest = Manifest::parse(document.as_bytes(), None).unwrap();
            manifest.content.descriptors().iter().map(|d| (d.place.to_string(), d.is_elsewhere())).collect::<Vec<_>>()
        };
        let foreign = |urls: &str| {
            let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
            format!(r#"{{"mediaType":"{}","digest":"{digest}","size":0,"urls":{urls}}}"#, NON_DISTRIBUTABLE[1])
        };
        let (with, without) = (foreign(r#"["https://a/b"]"#), foreign("[]"));
        let distributable = CONFIG.replace("\"size\":0", "\"size\":0,\"urls\":[\"https://a/b\"]");
        let image = format!(r#"{{"schemaVersion":2,"config":{with},"layers":[{with},{without},{distributable}]}}"#);
        let expected = [("config", false), ("layers[0]", true), ("layers[1]", false), ("layers[2]", false)];
        assert_eq!(elsewhere(&image), expected.map(|(place, is)| (place.to_owned(), is)));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{with}]}}"#);
        assert_eq!(elsewhere(&index), [("manifests[0]".to_owned(), false)]);
    }

    #[test]
    fn disagreeing_media_types_are_refused() {
        let text = image(&format!(r#","mediaType":"{DOCKER_MANIFEST}""#));
        assert!(matches!(Manifest::parse(text.as_bytes(), Some(OCI_MANIFEST)), Err(ManifestError::MediaTypes { .. })));
        assert!(Manifest::parse(text.as_bytes(), Some(&format!("{DOCKER_MANIFEST}; charset=utf-8"))).is_ok());
    }

    #[test]
    fn a_docker_type_that_is_only_in_content_type_is_refused_with_advice() {
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{CONFIG}]}}"#);
        // The last two also are of the wrong kind: an image as a list, and an index as an image.
        for (text, outside) in [
            (image(""), DOCKER_MANIFEST),
            (index.clone(), DOCKER_LIST),
            (image(r#","mediaType":"""#), DOCKER_MANIFEST),
            (image(""), DOCKER_LIST),
            (index.clone(), DOCKER_MANIFEST),
        ] {
            let refused = Manifest::parse(text.as_bytes(), Some(outside)).unwrap_err();
            assert!(matches!(&refused, ManifestError::MediaTypeMissing(missing) if missing == outside), "{refused}");
            assert!(refused.to_string().contains(&format!("put \"mediaType\": \"{outside}\"")), "{refused}");
        }
        assert!(Manifest::parse(image("").as_bytes(), Some(OCI_MANIFEST)).is_ok());
        assert!(Manifest::parse(index.as_bytes(), Some(OCI_INDEX)).is_ok());
    }

    #[test]
    fn a_manifest_whose_type_contradicts_its_structure_is_refused() {
        let says = |media_type: &str| image(&format!(r#","mediaType":"{media_type}""#));
        let outside = |text: &str, kind| Manifest::parse(text.as_bytes(), Some(kind)).unwrap_err();
        assert!(matches!(outside(&says(OCI_MANIFEST), DOCKER_LIST), ManifestError::MediaTypes { .. }));
        assert!(matches!(outside(&says(DOCKER_LIST), DOCKER_LIST), ManifestError::UnknownMediaType(_)));
        assert!(matches!(outside(&image(""), OCI_INDEX), ManifestError::UnknownMediaType(_)));
    }

    #[test]
    fn a_null_list_is_empty() {
        let index = r#"{"schemaVersion":2,"manifests":null}"#;
        let typed = format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_LIST}","manifests":null,"annotations":null}}"#);
        for (text, media_type) in [(index, OCI_INDEX), (&typed, DOCKER_LIST)] {
            let parsed = Manifest::parse(text.as_bytes(), Some(media_type)).unwrap();
            assert_eq!((parsed.content, parsed.media_type.as_str()), (Content::Index(Vec::new()), media_type));
            assert_eq!(media_type_of(text.as_bytes()), media_type);
        }
        let image = format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":null,"manifests":null}}"#);
        let parsed = Manifest::parse(image.as_bytes(), None).unwrap();
        assert!(matches!(&parsed.content, Content::Image(blobs) if blobs.len() == 1));
        assert_eq!(parsed.media_type, OCI_MANIFEST);
        assert_eq!(media_type_of(image.as_bytes()), OCI_MANIFEST);
        assert!(fallback_referrers(index.as_bytes()).unwrap().is_empty());
        // A document with only `layers: null` is neither: Go's image manifest always has a config.
        let neither = Manifest::parse(br#"{"schemaVersion":2,"layers":null}"#, None);
        assert!(matches!(neither, Err(ManifestError::NoContent)));
    }

    #[test]
    fn schema_1_of_another_registry_is_served_with_its_own_type() {
        let signed = r#"{"schemaVersion":1,"name":"a","fsLayers":[],"history":[],"signatures":[{"header":{}}]}"#;
        assert_eq!(media_type_of(signed.as_bytes()), DOCKER_SCHEMA_1_SIGNED);
        assert_eq!(media_type_of(br#"{"schemaVersion":1,"name":"a","fsLayers":[]}"#), DOCKER_SCHEMA_1);
        for kind in [DOCKER_SCHEMA_1, DOCKER_SCHEMA_1_SIGNED] {
            let refused = Manifest::parse(signed.as_bytes(), Some(kind));
            assert!(matches!(refused, Err(ManifestError::SchemaVersion(1))));
        }
    }

    #[test]
    fn an_invalid_entry_of_a_fallback_index_hides_no_other() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let good = format!(r#"{{"mediaType":"a/b","digest":"{digest}","size":1,"annotations":null}}"#);
        for odd in [
            "7",
            "null",
            "[]",
            "{}",
            r#"{"mediaType":"a/b","size":"1"}"#,
            r#"{"annotations":{"a":1}}"#,
            r#"{"mediaType":"a/b","digest":"sha256:00","size":1}"#,
        ] {
            let text = format!(r#"{{"manifests":[{odd},{good}]}}"#);
            let listed = fallback_referrers(text.as_bytes()).unwrap();
            assert_eq!(listed.iter().map(|entry| entry.digest.to_string()).collect::<Vec<_>>(), [digest], "{odd}");
        }
        assert!(fallback_referrers(b"[]").is_err());
    }

    #[test]
    fn schema_1_empty_documents_and_wrong_digests_are_refused() {
        let parse = |text: &str| Manifest::parse(text.as_bytes(), None);
        assert!(matches!(parse(r#"{"schemaVersion":1}"#), Err(ManifestError::SchemaVersion(1))));
        assert!(matches!(parse(r#"{"schemaVersion":2}"#), Err(ManifestError::NoContent)));
        assert!(matches!(parse("{"), Err(ManifestError::Json(_))));
        let wrong = image("").replace("sha256:e3", "sha256:zz");
        assert!(matches!(parse(&wrong), Err(ManifestError::Digest { place: Place::Config, .. })));
        let both = image(&format!(r#","manifests":[{CONFIG}]"#));
        assert!(matches!(parse(&both), Err(ManifestError::BothKinds)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = Manifest::parse_pushed(&bytes, None);
            let _ = Manifest::parse(&bytes, None);
            let _ = media_type_of(&bytes);
            let _ = fallback_referrers(&bytes);
        }
    }
}
