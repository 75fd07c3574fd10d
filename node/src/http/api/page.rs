//! Paginated lists (distribution-spec, "Listing Tags"): `n`, `last`, and a `Link` to the next page.

use super::route::PageQuery;
use crate::http::headers;
use crate::http::query::encode;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue, LINK};
use axum::response::Response;
use bytes::Bytes;

/// The maximum number of entries in one response, and the number when the client sets no `n`,
/// because many clients do not follow `Link`. This many tags of usual length take less than 1 MiB.
const MAX_ENTRIES: usize = 10_000;

impl PageQuery {
    /// Number of entries to list, at least one, because the link to a next page needs a last entry.
    pub fn count(&self) -> usize {
        self.n.unwrap_or(MAX_ENTRIES).clamp(1, MAX_ENTRIES)
    }

    /// Whether the client requested an empty list.
    pub fn is_empty(&self) -> bool {
        self.n == Some(0)
    }
}

/// The response to a list, with a `Link` to the next page if `next` is given.
pub fn answer(content: Bytes, kind: HeaderValue, next: Option<String>) -> Response {
    let mut response = Response::new(Body::from(content));
    let map = response.headers_mut();
    map.insert(CONTENT_TYPE, kind);
    if let Some(next) = next {
        headers::set(map, LINK, &format!("<{next}>; rel=\"next\""));
    }
    response
}

/// The path and query of the next page. `filter` precedes the other parameters.
pub fn next(path: &str, filter: Option<(&str, &str)>, page: &PageQuery, last: &str) -> String {
    let filter = filter.map(|(name, value)| format!("{name}={}&", encode(value))).unwrap_or_default();
    format!("{path}?{filter}n={}&last={}", page.count(), encode(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_to_the_next_page_repeats_the_query() {
        let page = PageQuery { n: Some(2), last: Some("a".into()) };
        let next = next("/v2/x/referrers/d", Some(("artifactType", "a/b+c")), &page, "sha256:0");
        assert_eq!(next, "/v2/x/referrers/d?artifactType=a%2Fb%2Bc&n=2&last=sha256%3A0");
        let response = answer(Bytes::new(), headers::JSON, Some(next.clone()));
        assert_eq!(response.headers()[LINK], format!("<{next}>; rel=\"next\""));
    }

    #[test]
    fn a_count_is_never_zero_and_never_unlimited() {
        let count = |n| PageQuery { n, last: None }.count();
        assert_eq!((count(None), count(Some(0)), count(Some(7))), (MAX_ENTRIES, 1, 7));
        assert_eq!(count(Some(usize::MAX)), MAX_ENTRIES);
    }
}
