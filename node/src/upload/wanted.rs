//! What a manifest may refer to and what it needs, decided from its text alone. Sends no request,
//! so a hostile manifest costs the bucket nothing.

use super::UploadError;
use crate::repository::layout::LinkKind;
use entrepot_config::Upload;
use entrepot_oci::{Content, Descriptor, Digest, Manifest, Place};
use std::collections::HashMap;

/// Number of missing references after which the rest is not looked up. A client pushes what it is
/// told and repeats the manifest; usually either one layer is missing or all are.
pub(super) const NAMED: usize = 16;

/// A reference that must be met before the manifest is acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub kind: Kind,
    pub digest: Digest,
    /// Size in bytes, as the manifest states it.
    pub size: u64,
}

impl Wanted {
    /// Whether content of this size is what the manifest states. Entries of an index are not
    /// compared, because tools exist that state other sizes, and the size of a manifest is not
    /// used for anything but its download.
    pub fn accepts(&self, size: u64) -> bool {
        matches!(self.kind, Kind::Child) || self.size == size
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Config or layer of an image.
    Blob,
    /// Entry of an index.
    Child,
}

/// What a look-up shows.
pub(super) enum Found {
    /// The repository links the content, and the bucket has this many bytes of it.
    Linked(LinkKind, u64),
    /// It is missing, and the configuration accepts that.
    NotRequired,
    Missing,
}

/// A link that an acknowledged manifest relies on.
pub(super) type Relied = (LinkKind, Digest);

/// References that are not met.
#[derive(Debug, Default)]
pub(super) struct Unmet {
    pub missing: Vec<Wanted>,
    /// With the size in bytes of the content.
    pub of_other_size: Vec<(Wanted, u64)>,
}

impl Unmet {
    pub fn len(&self) -> usize {
        self.missing.len() + self.of_other_size.len()
    }

    pub fn all(&self) -> impl Iterator<Item = Wanted> + Send {
        self.missing.iter().copied().chain(self.of_other_size.iter().map(|(wanted, _)| *wanted))
    }

    /// The rejection of the push. Missing content comes first, because the client can push it.
    pub fn error(&self) -> UploadError {
        if let ([], Some((wanted, size))) = (self.missing.as_slice(), self.of_other_size.first()) {
            return UploadError::SizeMismatch { digest: Box::new(wanted.digest), stated: wanted.size, actual: *size };
        }
        let of = |is: fn(&Kind) -> bool| {
            let missing = self.missing.iter().filter(|wanted| is(&wanted.kind));
            missing.map(|wanted| wanted.digest).take(NAMED).collect()
        };
        UploadError::MissingReferences {
            blobs: of(|kind| matches!(kind, Kind::Blob)),
            manifests: of(|kind| matches!(kind, Kind::Child)),
        }
    }
}

/// The references of a manifest, each digest once.
///
/// # Errors
/// If there are more than `upload.maxReferences`, if one has a URL that `upload.allowedUrls` does
/// not allow, or if two state different sizes of the same content.
pub(super) fn wanted(manifest: &Manifest, config: &Upload) -> Result<Vec<Wanted>, UploadError> {
    let descriptors = manifest.content.descriptors();
    if descriptors.len() > config.max_references as usize {
        return Err(UploadError::TooManyReferences { found: descriptors.len(), most: config.max_references });
    }
    for descriptor in descriptors.iter().chain(&manifest.subject) {
        check_urls(descriptor, config)?;
    }
    let kind = match manifest.content {
        Content::Image(_) => Kind::Blob,
        Content::Index(_) => Kind::Child,
    };
    let mut places: HashMap<Digest, &Descriptor> = HashMap::with_capacity(descriptors.len());
    let mut wanted = Vec::with_capacity(descriptors.len());
    for descriptor in descriptors.iter().filter(|descriptor| !descriptor.is_elsewhere()) {
        let Descriptor { digest, size, place, .. } = *descriptor;
        match places.get(&digest) {
            Some(first) if first.size != size => {
                return Err(UploadError::Sizes { first: first.place, second: place });
            }
            Some(_) => {}
            None => {
                places.insert(digest, descriptor);
                wanted.push(Wanted { kind, digest, size });
            }
        }
    }
    Ok(wanted)
}

fn check_urls(descriptor: &Descriptor, config: &Upload) -> Result<(), UploadError> {
    // Every client needs the config, so the registry has it.
    let allows = |url: &String| descriptor.place != Place::Config && config.allowed_urls.allows(url);
    match descriptor.urls.iter().position(|url| !allows(url)) {
        Some(index) => Err(UploadError::ForeignUrl { place: descriptor.place, index }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use entrepot_config::AllowedUrls;

    const FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn descriptor(kind: &str, number: u8, size: u64, urls: &[&str]) -> serde_json::Value {
        let digest = format!("sha256:{}", hex::encode([number; 32]));
        serde_json::json!({"mediaType": kind, "digest": digest, "size": size, "urls": urls})
    }

    fn checked(document: &serde_json::Value, config: &Upload) -> Result<usize, UploadError> {
        let manifest = Manifest::parse_pushed(document.to_string().as_bytes(), None).unwrap();
        wanted(&manifest, config).map(|wanted| wanted.len())
    }

    fn image(layers: &[serde_json::Value]) -> serde_json::Value {
        serde_json::json!({"schemaVersion": 2, "config": descriptor("c", 0, 2, &[]), "layers": layers})
    }

    fn allowing(hosts: &[&str]) -> Upload {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Upload { allowed_urls: AllowedUrls::new(hosts).unwrap(), ..Upload::default() }
    }

    #[test]
    fn more_references_than_the_limit_are_refused_by_their_number() {
        let config = Upload { max_references: 3, ..Upload::default() };
        let layers: Vec<_> = (1..=3).map(|number| descriptor(GZIP, number, 1, &[])).collect();
        assert_eq!(checked(&image(&layers[..2]), &config).unwrap(), 3);
        let refused = checked(&image(&layers), &config).unwrap_err();
        assert!(matches!(refused, UploadError::TooManyReferences { found: 4, most: 3 }), "{refused}");
        let index = serde_json::json!({"schemaVersion": 2, "manifests": vec![&layers[0]; 4]});
        assert!(matches!(checked(&index, &config), Err(UploadError::TooManyReferences { .. })));
    }

    #[test]
    fn a_url_is_refused_in_every_descriptor_unless_its_host_is_allowed() {
        let (config, url) = (allowing(&["a.example"]), "https://a.example/x");
        for urls in [&["http://169.254.169.254/"][..], &["file:///etc/passwd"], &[url, "https://b.example/"]] {
            for kind in [GZIP, FOREIGN] {
                let layer = descriptor(kind, 1, 1, urls);
                let subject = serde_json::json!({"schemaVersion": 2, "manifests": [], "subject": &layer});
                let config_elsewhere = serde_json::json!({"schemaVersion": 2, "config": &layer, "layers": []});
                let index = serde_json::json!({"schemaVersion": 2, "manifests": [&layer]});
                for document in [image(&[layer]), subject, config_elsewhere, index] {
                    let refused = checked(&document, &config).unwrap_err();
                    assert!(matches!(refused, UploadError::ForeignUrl { .. }), "{refused}");
                }
            }
        }
        let layers = [descriptor(GZIP, 1, 1, &[]), descriptor(FOREIGN, 2, 1, &["http://b.example/"])];
        let refused = checked(&image(&layers), &config).unwrap_err().to_string();
        assert!(refused.contains("layers[1].urls[0]") && refused.contains("upload.allowedUrls"), "{refused}");
    }

    #[test]
    fn only_a_foreign_layer_with_an_allowed_url_is_not_looked_up() {
        let (config, url) = (allowing(&["a.example"]), "https://a.example/x");
        assert_eq!(checked(&image(&[descriptor(FOREIGN, 1, 1, &[url])]), &config).unwrap(), 1, "the config");
        assert_eq!(checked(&image(&[descriptor(GZIP, 1, 1, &[url])]), &config).unwrap(), 2);
        assert_eq!(checked(&image(&[descriptor(FOREIGN, 1, 1, &[])]), &config).unwrap(), 2);
        let foreign_config = serde_json::json!({"schemaVersion": 2, "config": descriptor(FOREIGN, 1, 1, &[url])});
        assert!(matches!(checked(&foreign_config, &config), Err(UploadError::ForeignUrl { .. })));
    }

    #[test]
    fn two_sizes_of_the_same_content_are_refused_and_one_size_is_looked_up_once() {
        let layers = [descriptor(GZIP, 1, 7, &[]), descriptor(GZIP, 1, 7, &[])];
        assert_eq!(checked(&image(&layers), &Upload::default()).unwrap(), 2);
        let layers = [descriptor(GZIP, 1, 7, &[]), descriptor(GZIP, 0, 7, &[])];
        let refused = checked(&image(&layers), &Upload::default()).unwrap_err();
        assert!(matches!(refused, UploadError::Sizes { .. }), "{refused}");
    }
}
