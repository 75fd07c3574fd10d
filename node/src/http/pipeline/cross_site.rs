//! Requests that a web page made a browser send: only pages of this registry, and of origins in
//! `http.allowedOrigins`, may use it.
//!
//! A browser sends a simple request, such as a `POST` of text, without asking first (Fetch standard,
//! "CORS-safelisted method"). So any page that somebody opens could push to a registry that only
//! their machine can reach. The page cannot read the response, but the upload takes place.
//!
//! A page could also have a host name that first leads to its own server and then to this registry
//! (DNS rebinding). The browser then takes the registry for the page's own server. The `Host` header
//! still has that name. It is checked where such a page is the only way in: at a listener on a
//! loopback address. A name without a dot and an IP address are accepted, because no stranger can
//! have the former, and no DNS answer can change the latter.

use super::cors::{Cors, Sharing};
use crate::http::authority::authority;
use crate::http::client_address::ClientAddress;
use crate::http::error::ApiError;
use axum::http::header::{HeaderMap, HeaderName, ORIGIN};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use entrepot_config as config;
use std::net::IpAddr;

/// Which page a request is from, relative to the registry (W3C Fetch Metadata). A page cannot set it.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// `navigate`: a person follows a link.
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Names that lead to no host of a stranger (RFC 6761, and ICANN's resolution on `internal`).
const LOCAL: [&str; 2] = [".localhost", ".internal"];

/// Refuses requests of foreign web pages.
pub struct CrossSite {
    /// Names of this registry, if the listener is on a loopback address.
    names: Option<Vec<String>>,
}

impl CrossSite {
    pub fn new(config: &config::Http) -> CrossSite {
        CrossSite { names: config.listen.ip().is_loopback().then(|| config.namespaces.clone()) }
    }

    /// # Errors
    /// `CrossSite` or `UnknownHost`, with what to configure if the page may use the registry.
    pub fn check(&self, head: &Parts, cors: &Cors) -> Result<(), ApiError> {
        if is_foreign(head) && !matches!(cors.sharing(&head.headers), Sharing::Everyone | Sharing::With(_)) {
            return Err(ApiError::CrossSite);
        }
        self.check_host(head)
    }

    fn check_host(&self, head: &Parts) -> Result<(), ApiError> {
        let Some(names) = &self.names else { return Ok(()) };
        // A proxy has checked the name, or serves this registry under any.
        if head.extensions.get::<ClientAddress>().is_some_and(|client| client.forwarded) {
            return Ok(());
        }
        let Some(authority) = authority(&head.uri, &head.headers) else { return Ok(()) };
        let host = authority.host();
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let is_ours = |ours: &String| ours.eq_ignore_ascii_case(authority.as_str()) || ours.eq_ignore_ascii_case(&name);
        let accepted = !name.contains('.')
            || bare.parse::<IpAddr>().is_ok()
            || LOCAL.iter().any(|local| name.ends_with(local))
            || names.iter().any(is_ours);
        if accepted { Ok(()) } else { Err(ApiError::UnknownHost(name)) }
    }
}

/// Whether a page of another origin sent the request. Programs send neither of the headers.
fn is_foreign(head: &Parts) -> bool {
    match text(&head.headers, &FETCH_SITE) {
        Some("same-origin" | "none") => false,
        Some(_) => !(head.method.is_safe() && text(&head.headers, &FETCH_MODE) == Some("navigate")),
        // Browsers send it only to HTTPS and to loopback addresses.
        None => text(&head.headers, &ORIGIN).is_some_and(|origin| !is_own(origin, head)),
    }
}

/// Whether an origin is that of this registry, under the name that the client uses. The scheme may
/// differ, because a proxy may add TLS.
fn is_own(origin: &str, head: &Parts) -> bool {
    let Some((scheme, of_page)) = origin.split_once("://") else { return false };
    let default = if scheme == "https" { 443 } else { 80 };
    let parsed = of_page.parse::<Authority>().ok();
    let parts =
        |authority: &Authority| (authority.host().to_ascii_lowercase(), authority.port_u16().unwrap_or(default));
    parsed.zip(authority(&head.uri, &head.headers)).is_some_and(|(page, own)| parts(&page) == parts(&own))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn check(http: config::Http, method: &str, headers: &[(&str, &str)]) -> Result<(), ApiError> {
        let mut request = Request::builder().method(method).uri("/v2/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        CrossSite::new(&http).check(&head, &Cors::new(&http.allowed_origins))
    }

    fn open() -> config::Http {
        config::Http { listen: "0.0.0.0:5000".parse().unwrap(), ..config::Http::default() }
    }

    const OWN: (&str, &str) = ("host", "images.example.com:5000");

    #[test]
    fn a_page_of_another_site_may_neither_write_nor_read() {
        for method in ["POST", "PUT", "DELETE", "GET"] {
            for site in ["cross-site", "same-site"] {
                let refused = check(open(), method, &[OWN, ("sec-fetch-site", site), ("sec-fetch-mode", "no-cors")]);
                assert!(matches!(refused, Err(ApiError::CrossSite)), "{method} {site}");
            }
            for origin in ["http://evil.example", "null", "http://images.example.com:5001", "http://images.example.com"]
            {
                let refused = check(open(), method, &[OWN, ("origin", origin)]);
                assert!(matches!(refused, Err(ApiError::CrossSite)), "{method} {origin}");
            }
        }
    }

    #[test]
    fn programs_the_own_page_and_links_are_served() {
        for method in ["POST", "GET"] {
            for headers in [
                vec![OWN],
                vec![OWN, ("sec-fetch-site", "same-origin"), ("origin", "https://images.example.com")],
                vec![OWN, ("sec-fetch-site", "none")],
                vec![OWN, ("origin", "http://images.example.com:5000")],
                vec![("host", "images.example.com"), ("origin", "https://Images.example.com")],
                vec![("host", "images.example.com:443"), ("origin", "https://images.example.com")],
            ] {
                assert!(check(open(), method, &headers).is_ok(), "{method} {headers:?}");
            }
        }
        let link = [OWN, ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert!(check(open(), "GET", &link).is_ok());
        assert!(check(open(), "POST", &link).is_err());
    }

    #[test]
    fn a_page_of_an_allowed_origin_is_served() {
        let page = [OWN, ("sec-fetch-site", "cross-site"), ("origin", "https://ui.example.com")];
        for allowed in ["https://ui.example.com", "*"] {
            let http = config::Http { allowed_origins: vec![allowed.to_owned()], ..open() };
            assert!(check(http, "POST", &page).is_ok(), "{allowed}");
        }
        let http = config::Http { allowed_origins: vec!["https://other.example.com".to_owned()], ..open() };
        assert!(check(http, "POST", &page).is_err());
    }

    #[test]
    fn a_loopback_listener_serves_only_names_that_no_stranger_can_have() {
        let http = || config::Http { namespaces: vec!["images.example.com".to_owned()], ..config::Http::default() };
        for host in [
            "localhost:5000",
            "127.0.0.1:5000",
            "[::1]:5000",
            "192.168.1.2:5000",
            "registry",
            "registry:5000",
            "a.localhost",
            "host.docker.internal:5000",
            "images.example.com",
            "Images.example.com:5000",
            "localhost.",
        ] {
            assert!(check(http(), "GET", &[("host", host)]).is_ok(), "{host}");
        }
        for host in ["evil.example", "evil.example:5000", "127.0.0.1.evil.example", "xlocalhost.evil", "evil.example."]
        {
            assert!(matches!(check(http(), "GET", &[("host", host)]), Err(ApiError::UnknownHost(_))), "{host}");
            assert!(check(open(), "GET", &[("host", host)]).is_ok(), "{host}");
        }
        assert!(check(http(), "GET", &[]).is_ok());
    }
}
