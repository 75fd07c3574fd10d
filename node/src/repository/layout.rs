//! The keys of the bucket: the layout of CNCF Distribution, plus one directory of our own for each
//! repository (`docs/explanation/architecture.md`).
//!
//! Keys are built from parsed types only, so client input never reaches a key unchecked.

pub use crate::store::LinkKind;
use entrepot_bucket::Key;
use entrepot_oci::{Digest, Repository, Tag};
use std::sync::Arc;

/// Builds keys below `<prefix>docker/registry/v2/`.
#[derive(Clone, Debug)]
pub struct Layout {
    root: Arc<str>,
}

impl Layout {
    /// `prefix` is the part of a key before the directory `docker`, either empty or ending as
    /// needed: `""`, `"team-a/"`.
    pub fn new(prefix: &str) -> Layout {
        Layout { root: format!("{prefix}docker/registry/v2/").into() }
    }

    /// The bytes of a blob or manifest.
    pub fn data(&self, digest: &Digest) -> Key {
        let hex = digest.hex();
        Key::new(format!("{}blobs/{}/{}/{hex}/data", self.root, digest.algorithm().name(), &hex[..2]))
    }

    /// The link that makes content visible in a repository.
    pub fn link(&self, repository: &Repository, kind: LinkKind, digest: &Digest) -> Key {
        let folder = match kind {
            LinkKind::Layer => "_layers",
            LinkKind::Revision => "_manifests/revisions",
        };
        Key::new(format!("{}{folder}/{}/link", self.repository(repository), slashed(digest)))
    }

    /// The link that names the manifest of a tag.
    pub fn tag_current(&self, repository: &Repository, tag: &Tag) -> Key {
        Key::new(format!("{}{tag}/current/link", self.tags(repository)))
    }

    /// The entry of a tag's history, as CNCF Distribution writes it.
    #[cfg(test)]
    pub fn tag_index(&self, repository: &Repository, tag: &Tag, digest: &Digest) -> Key {
        Key::new(format!("{}{tag}/index/{}/link", self.tags(repository), slashed(digest)))
    }

    /// The prefix of all keys of one tag, ending with `/`.
    pub fn tag(&self, repository: &Repository, tag: &Tag) -> String {
        format!("{}{tag}/", self.tags(repository))
    }

    /// The prefix of all tags of a repository, ending with `/`.
    pub fn tags(&self, repository: &Repository) -> String {
        format!("{}_manifests/tags/", self.repository(repository))
    }

    /// The descriptor of one referrer of a subject.
    pub fn referrer(&self, repository: &Repository, subject: &Digest, referrer: &Digest) -> Key {
        let (algorithm, hex) = (referrer.algorithm().name(), referrer.hex());
        Key::new(format!("{}{algorithm}-{hex}", self.referrers(repository, subject)))
    }

    /// The prefix of all referrers of a subject, ending with `/`.
    pub fn referrers(&self, repository: &Repository, subject: &Digest) -> String {
        format!("{}_entrepot/referrers/{}/", self.repository(repository), slashed(subject))
    }

    /// The marker of a blob that a node has acknowledged and not yet made durable.
    pub fn pending(&self, repository: &Repository, digest: &Digest) -> Key {
        let (algorithm, hex) = (digest.algorithm().name(), digest.hex());
        Key::new(format!("{}_entrepot/pending/{algorithm}-{hex}", self.repository(repository)))
    }

    /// The prefix of all keys of a repository, ending with `/`.
    pub fn repository(&self, repository: &Repository) -> String {
        format!("{}{repository}/", self.repositories())
    }

    /// The prefix of all repositories, ending with `/`.
    pub fn repositories(&self) -> String {
        format!("{}repositories/", self.root)
    }
}

/// `<alg>/<hex>`, the form of a digest in the key of a link.
fn slashed(digest: &Digest) -> String {
    format!("{}/{}", digest.algorithm().name(), digest.hex())
}

/// The content of a link: the digest, without a newline.
pub fn link_content(digest: &Digest) -> String {
    digest.to_string()
}

/// Reads a link. `None` if it is empty or damaged; such a link counts as missing.
pub fn read_link(content: &[u8]) -> Option<Digest> {
    Digest::parse(std::str::from_utf8(content).ok()?.trim_end()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use entrepot_oci::Algorithm;

    #[test]
    fn keys_are_those_of_distribution() {
        let layout = Layout::new("team-a/");
        let repository = Repository::parse("library/alpine").unwrap();
        let digest = Digest::of(Algorithm::Sha256, b"");
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let tag = Tag::parse("3.20").unwrap();
        let root = "team-a/docker/registry/v2";
        let repo = format!("{root}/repositories/library/alpine");
        assert_eq!(layout.data(&digest).as_str(), format!("{root}/blobs/sha256/e3/{hex}/data"));
        assert_eq!(
            layout.link(&repository, LinkKind::Layer, &digest).as_str(),
            format!("{repo}/_layers/sha256/{hex}/link")
        );
        assert_eq!(
            layout.link(&repository, LinkKind::Revision, &digest).as_str(),
            format!("{repo}/_manifests/revisions/sha256/{hex}/link")
        );
        assert_eq!(layout.tag_current(&repository, &tag).as_str(), format!("{repo}/_manifests/tags/3.20/current/link"));
        assert_eq!(
            layout.tag_index(&repository, &tag, &digest).as_str(),
            format!("{repo}/_manifests/tags/3.20/index/sha256/{hex}/link")
        );
        assert_eq!(
            layout.referrer(&repository, &digest, &digest).as_str(),
            format!("{repo}/_entrepot/referrers/sha256/{hex}/sha256-{hex}")
        );
    }

    #[test]
    fn a_damaged_link_names_nothing() {
        let digest = Digest::of(Algorithm::Sha512, b"x");
        assert_eq!(read_link(link_content(&digest).as_bytes()), Some(digest));
        assert_eq!(read_link(format!("{digest}\n").as_bytes()), Some(digest));
        for damaged in [&b""[..], b"sha256:", b"\xff", b"sha256:abc"] {
            assert_eq!(read_link(damaged), None);
        }
    }
}
