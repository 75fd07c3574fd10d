//! The endpoint that a path belongs to, and its methods.
//!
//! Repository names contain slashes, so a path is split from its right end (distribution-spec,
//! "Endpoints").

/// The endpoint of a path; also a label of metrics and the log, which so have a fixed set of
/// values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointKind {
    Home,
    Version,
    Token,
    Catalog,
    Tags,
    Referrers,
    Manifest,
    Blob,
    Uploads,
    Session,
    Unknown,
}

impl EndpointKind {
    pub const COUNT: usize = EndpointKind::Unknown as usize + 1;

    pub fn of(path: &str) -> EndpointKind {
        Endpoint::of(path).kind
    }

    pub fn label(self) -> &'static str {
        match self {
            EndpointKind::Home => "home",
            EndpointKind::Version => "version",
            EndpointKind::Token => "token",
            EndpointKind::Catalog => "catalog",
            EndpointKind::Tags => "tags",
            EndpointKind::Referrers => "referrers",
            EndpointKind::Manifest => "manifest",
            EndpointKind::Blob => "blob",
            EndpointKind::Uploads => "uploads",
            EndpointKind::Session => "session",
            EndpointKind::Unknown => "unknown",
        }
    }

    /// The methods, as in `Allow`. Empty if there is no such path.
    pub fn methods(self) -> &'static str {
        match self {
            EndpointKind::Home
            | EndpointKind::Version
            | EndpointKind::Catalog
            | EndpointKind::Tags
            | EndpointKind::Referrers => "GET, HEAD",
            EndpointKind::Token => "GET, POST",
            EndpointKind::Manifest => "GET, HEAD, PUT, DELETE",
            EndpointKind::Blob => "GET, HEAD, DELETE",
            EndpointKind::Uploads => "POST",
            EndpointKind::Session => "GET, HEAD, PATCH, PUT, DELETE",
            EndpointKind::Unknown => "",
        }
    }
}

/// A path split into its parts, still as the client sent them.
pub struct Endpoint<'a> {
    pub kind: EndpointKind,
    /// The name of the repository.
    pub name: &'a str,
    /// The part after the kind: a reference, a digest or a session.
    pub item: &'a str,
}

impl<'a> Endpoint<'a> {
    pub fn of(path: &'a str) -> Endpoint<'a> {
        let bare = |kind| Endpoint { kind, name: "", item: "" };
        let rest = match path {
            "/" => return bare(EndpointKind::Home),
            "/v2" | "/v2/" => return bare(EndpointKind::Version),
            "/v2/_token" => return bare(EndpointKind::Token),
            "/v2/_catalog" => return bare(EndpointKind::Catalog),
            _ => path.strip_prefix("/v2/").unwrap_or_default(),
        };
        let cut = |kind, name, item| Endpoint { kind, name, item };
        if let Some(name) = rest.strip_suffix("/tags/list") {
            return cut(EndpointKind::Tags, name, "");
        }
        if let Some(name) = rest.strip_suffix("/blobs/uploads/").or_else(|| rest.strip_suffix("/blobs/uploads")) {
            return cut(EndpointKind::Uploads, name, "");
        }
        let Some((head, item)) = rest.rsplit_once('/') else { return bare(EndpointKind::Unknown) };
        // None of these is a suffix of another, so their order does not matter.
        let kinds = [
            ("/blobs/uploads", EndpointKind::Session),
            ("/manifests", EndpointKind::Manifest),
            ("/blobs", EndpointKind::Blob),
            ("/referrers", EndpointKind::Referrers),
        ];
        kinds
            .into_iter()
            .find_map(|(suffix, kind)| head.strip_suffix(suffix).map(|name| cut(kind, name, item)))
            .unwrap_or_else(|| bare(EndpointKind::Unknown))
    }
}
