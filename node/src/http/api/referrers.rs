//! `GET /v2/<name>/referrers/<digest>` (distribution-spec, "Listing Referrers").

use super::page;
use super::route::PageQuery;
use super::services::Services;
use crate::http::error::ApiError;
use crate::http::headers::FILTERS_APPLIED;
use axum::http::header::HeaderValue;
use axum::response::Response;
use entrepot_oci::manifest::{INDEX_MEDIA_TYPE, Referrer};
use entrepot_oci::{Digest, MAX_MANIFEST_BYTES, Repository};

/// Lists the referrers of a subject. The list of an unknown subject is empty: never 404.
pub async fn list(
    services: &Services,
    repository: &Repository,
    subject: &Digest,
    artifact_type: Option<&str>,
    page: &PageQuery,
) -> Result<Response, ApiError> {
    let last = page.last.as_deref().map(Digest::parse).transpose()?;
    let listed = services.discover.referrers(repository, subject, artifact_type, last.as_ref(), page.count()).await?;
    let items = if page.is_empty() { &[][..] } else { &listed.items };
    let index = index(items, MAX_MANIFEST_BYTES)?;
    let cut = index.entries < items.len();
    let after = match items[..index.entries].last() {
        Some(last) if cut => Some(last.digest),
        _ => listed.next,
    };
    let filter = artifact_type.map(|value| ("artifactType", value));
    let next = after
        .filter(|_| !page.is_empty())
        .map(|last| page::next(&format!("/v2/{repository}/referrers/{subject}"), filter, page, &last.to_string()));
    let mut response = page::answer(index.text.into(), HeaderValue::from_static(INDEX_MEDIA_TYPE), next);
    if artifact_type.is_some() {
        response.headers_mut().insert(FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
    }
    Ok(response)
}

struct Index {
    text: String,
    /// Number of referrers in the text.
    entries: usize,
}

/// An index of the first referrers: as many as fit into the largest manifest that clients accept,
/// but at least one.
fn index(items: &[Referrer], limit: usize) -> Result<Index, ApiError> {
    let mut text = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX_MEDIA_TYPE}","manifests":["#);
    let mut entries = 0;
    for item in items {
        let entry = serde_json::to_string(item).map_err(|error| ApiError::Internal(error.to_string()))?;
        if entries > 0 {
            if text.len() + entry.len() + ",]}".len() > limit {
                break;
            }
            text.push(',');
        }
        text.push_str(&entry);
        entries += 1;
    }
    text.push_str("]}");
    Ok(Index { text, entries })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn referrer(number: usize) -> Referrer {
        Referrer {
            media_type: "application/vnd.oci.image.manifest.v1+json".into(),
            digest: Digest::parse(&format!("sha256:{number:064x}")).unwrap(),
            size: 7,
            artifact_type: Some("a/b".into()),
            annotations: [("key".to_owned(), "\"quoted\"".to_owned())].into(),
        }
    }

    #[test]
    fn the_list_is_a_valid_index() {
        let items = [referrer(0), referrer(1)];
        let index = index(&items, MAX_MANIFEST_BYTES).unwrap();
        assert_eq!(entrepot_oci::manifest::fallback_referrers(index.text.as_bytes()).unwrap(), items);
        let manifest = entrepot_oci::Manifest::parse(index.text.as_bytes(), Some(INDEX_MEDIA_TYPE)).unwrap();
        assert!(matches!(manifest.content, entrepot_oci::Content::Index(manifests) if manifests.len() == 2));
    }

    #[test]
    fn a_list_is_never_larger_than_a_manifest_and_never_empty() {
        let items: Vec<Referrer> = (0..100).map(referrer).collect();
        let some = index(&items, 2000).unwrap();
        assert!(some.entries > 1 && some.entries < 100 && some.text.len() <= 2000);
        assert_eq!(index(&items, 10).unwrap().entries, 1);
    }
}
