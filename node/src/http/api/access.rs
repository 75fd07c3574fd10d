//! What a request needs to be allowed.

use super::endpoint::EndpointKind;
use super::route::{Begin, Route};
use entrepot_oci::Repository;

/// A right that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access<'a> {
    /// Reads content, tags or referrers of the repository.
    Pull(&'a Repository),
    /// Adds content or tags to the repository, or uses one of its upload sessions.
    Push(&'a Repository),
    /// Deletes content or tags of the repository.
    Delete(&'a Repository),
    /// Lists the repositories of the registry.
    List,
}

impl Access<'_> {
    /// Whether a read-only registry refuses it.
    pub fn writes(self) -> bool {
        match self {
            Access::Pull(_) | Access::List => false,
            Access::Push(_) | Access::Delete(_) => true,
        }
    }
}

impl Route {
    /// What the request needs: nothing, one right, or for a mount two. A mount needs `Pull` of the
    /// source in addition to `Push`; without it the source counts as a repository that does not
    /// have the blob. Every request of an upload session belongs to a push, also `GET` and `DELETE`.
    pub fn access(&self) -> impl Iterator<Item = Access<'_>> {
        let (needed, source) = match self {
            Route::Home | Route::Version | Route::Token(_) => (None, None),
            Route::Catalog { .. } => (Some(Access::List), None),
            Route::Tags { repository, .. }
            | Route::Referrers { repository, .. }
            | Route::PullManifest { repository, .. }
            | Route::PullBlob { repository, .. } => (Some(Access::Pull(repository)), None),
            Route::DeleteManifest { repository, .. } | Route::DeleteBlob { repository, .. } => {
                (Some(Access::Delete(repository)), None)
            }
            Route::BeginUpload { repository, begin: Begin::Mount { from, .. } } => {
                (Some(Access::Push(repository)), Some(Access::Pull(from)))
            }
            Route::PushManifest { repository, .. }
            | Route::BeginUpload { repository, begin: Begin::Session | Begin::Whole(_) }
            | Route::UploadStatus { repository, .. }
            | Route::AppendUpload { repository, .. }
            | Route::FinishUpload { repository, .. }
            | Route::CancelUpload { repository, .. } => (Some(Access::Push(repository)), None),
        };
        needed.into_iter().chain(source)
    }
}

impl EndpointKind {
    /// The methods that need no right to write, as in `Allow`. Empty if there are none.
    pub fn read_methods(self) -> &'static str {
        match self {
            EndpointKind::Token => "GET, POST",
            EndpointKind::Home
            | EndpointKind::Version
            | EndpointKind::Catalog
            | EndpointKind::Tags
            | EndpointKind::Referrers
            | EndpointKind::Manifest
            | EndpointKind::Blob => "GET, HEAD",
            EndpointKind::Uploads | EndpointKind::Session | EndpointKind::Unknown => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Method;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const SESSION: &str = "images-0.67e55044-10b1-426f-9247-bb680e5fe0c8";

    fn needs(method: &str, target: &str) -> Vec<String> {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let route = Route::parse(&Method::from_bytes(method.as_bytes()).unwrap(), path, query).unwrap();
        let text = |access| match access {
            Access::Pull(repository) => format!("pull {repository}"),
            Access::Push(repository) => format!("push {repository}"),
            Access::Delete(repository) => format!("delete {repository}"),
            Access::List => "list".into(),
        };
        route.access().map(text).collect()
    }

    /// A method, and what it needs.
    type Needs = (&'static str, &'static [&'static str]);

    /// An example of each endpoint, and what each of its methods needs.
    fn table() -> Vec<(String, Vec<Needs>)> {
        let read = |needed: &'static [&'static str]| vec![("GET", needed), ("HEAD", needed)];
        let with = |more: &[Needs]| [read(&["pull a/b"]), more.to_vec()].concat();
        let push: &[&str] = &["push a/b"];
        let session = |methods: &[&'static str]| methods.iter().map(|method| (*method, push)).collect::<Vec<_>>();
        let uploads = "/v2/a/b/blobs/uploads/";
        vec![
            ("/".into(), read(&[])),
            ("/v2/".into(), read(&[])),
            ("/v2/_token".into(), vec![("GET", &[]), ("POST", &[])]),
            ("/v2/_catalog".into(), read(&["list"])),
            ("/v2/a/b/tags/list".into(), read(&["pull a/b"])),
            (format!("/v2/a/b/referrers/{DIGEST}"), read(&["pull a/b"])),
            ("/v2/a/b/manifests/c".into(), with(&[("PUT", push), ("DELETE", &["delete a/b"])])),
            (format!("/v2/a/b/manifests/{DIGEST}"), with(&[("PUT", push), ("DELETE", &["delete a/b"])])),
            (format!("/v2/a/b/blobs/{DIGEST}"), with(&[("DELETE", &["delete a/b"])])),
            (uploads.into(), session(&["POST"])),
            (format!("{uploads}?digest={DIGEST}"), session(&["POST"])),
            (format!("{uploads}?mount={DIGEST}"), session(&["POST"])),
            (format!("{uploads}?mount={DIGEST}&from=c%2Fd"), vec![("POST", &["push a/b", "pull c/d"])]),
            (format!("{uploads}{SESSION}?digest={DIGEST}"), session(&["GET", "HEAD", "PATCH", "PUT", "DELETE"])),
        ]
    }

    #[test]
    fn every_route_needs_the_access_of_its_method() {
        for (target, methods) in table() {
            for (method, expected) in methods {
                assert_eq!(needs(method, &target), expected, "{method} {target}");
            }
        }
    }

    #[test]
    fn every_endpoint_and_method_is_in_the_table_and_those_that_read_are_the_read_methods() {
        let mut seen = Vec::new();
        for (target, methods) in table() {
            let kind = EndpointKind::of(target.split('?').next().unwrap());
            let names: Vec<&str> = methods.iter().map(|(method, _)| *method).collect();
            assert_eq!(names.join(", "), kind.methods(), "{target}");
            let writes =
                |needed: &[&str]| needed.iter().any(|one| one.starts_with("push") || one.starts_with("delete"));
            let reads = methods.iter().filter(|(_, needed)| !writes(needed)).map(|(method, _)| *method);
            assert_eq!(reads.collect::<Vec<_>>().join(", "), kind.read_methods(), "{target}");
            seen.push(kind as usize);
        }
        assert_eq!(seen.iter().collect::<std::collections::BTreeSet<_>>().len(), EndpointKind::Unknown as usize);
    }

    #[test]
    fn pushes_and_deletions_write() {
        let repository = Repository::parse("a").unwrap();
        assert!(Access::Push(&repository).writes() && Access::Delete(&repository).writes());
        assert!(!Access::Pull(&repository).writes() && !Access::List.writes());
    }
}
