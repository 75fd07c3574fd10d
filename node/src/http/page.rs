//! Lists a page at a time (distribution-spec, "Listing Tags"): `n`, `last`, and `Link` to the next page.

use super::headers;
use super::query::encode;
use super::routes::PageAsked;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue, LINK};
use axum::response::Response;
use bytes::Bytes;

/// The most entries in one answer, and how many there are when the client does not say: many clients do not follow
/// `Link`, and so many tags of usual length are still less than 1 MiB.
const MAX_ENTRIES: usize = 10_000;

impl PageAsked {
    /// How many entries to list, at least one: whether there are more is only known of a list with a last entry.
    pub fn count(&self) -> usize {
        self.n.unwrap_or(MAX_ENTRIES).clamp(1, MAX_ENTRIES)
    }

    /// Whether the client asked for an empty list.
    pub fn is_empty(&self) -> bool {
        self.n == Some(0)
    }
}

/// The answer to a list, with the `Link` to the page after `last`, if there is one.
pub fn answer(content: Bytes, kind: HeaderValue, next: Option<String>) -> Response {
    let mut response = Response::new(Body::from(content));
    let map = response.headers_mut();
    map.insert(CONTENT_TYPE, kind);
    if let Some(next) = next {
        headers::set(map, LINK, &format!("<{next}>; rel=\"next\""));
    }
    response
}

/// The path and query of the next page. `filter` is written before the other parameters.
pub fn next(path: &str, filter: Option<(&str, &str)>, page: &PageAsked, last: &str) -> String {
    let filter = filter.map(|(name, value)| format!("{name}={}&", encode(value))).unwrap_or_default();
    format!("{path}?{filter}n={}&last={}", page.count(), encode(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_a_link_with_everything_that_was_asked() {
        let page = PageAsked { n: Some(2), last: Some("a".into()) };
        let next = next("/v2/x/referrers/d", Some(("artifactType", "a/b+c")), &page, "sha256:0");
        assert_eq!(next, "/v2/x/referrers/d?artifactType=a%2Fb%2Bc&n=2&last=sha256%3A0");
        let response = answer(Bytes::new(), headers::JSON, Some(next.clone()));
        assert_eq!(response.headers()[LINK], format!("<{next}>; rel=\"next\""));
    }

    #[test]
    fn a_count_is_never_nothing_and_never_unbounded() {
        let count = |n| PageAsked { n, last: None }.count();
        assert_eq!((count(None), count(Some(0)), count(Some(7))), (MAX_ENTRIES, 1, 7));
        assert_eq!(count(Some(usize::MAX)), MAX_ENTRIES);
    }
}
