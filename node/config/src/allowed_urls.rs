//! The hosts to which manifests may refer.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

/// Patterns of hosts such as `mcr.microsoft.com`, `*.example.com` or `files.example.com:8443`,
/// compiled once. Without a pattern, no URL is allowed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct AllowedUrls {
    hosts: Vec<String>,
    compiled: GlobSet,
}

/// A text is not a pattern of hosts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllowedUrlsError {
    /// It is the URL of something, or has other letters that no host has.
    #[error(
        "{0:?} must be a host or host:port, in which * and ? stand for other characters; remove the scheme and path"
    )]
    Form(String),
    #[error(transparent)]
    /// A pattern of hosts is invalid.
    Pattern(#[from] globset::Error),
}

impl AllowedUrls {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// If one of them is not a pattern of hosts.
    pub fn new(hosts: Vec<String>) -> Result<AllowedUrls, AllowedUrlsError> {
        let mut all = GlobSetBuilder::new();
        for host in &hosts {
            if host.is_empty() || host.contains(['/', '@', '\\', '#', ' ']) {
                return Err(AllowedUrlsError::Form(host.clone()));
            }
            all.add(GlobBuilder::new(host).case_insensitive(true).build()?);
        }
        let compiled = all.build()?;
        Ok(AllowedUrls { hosts, compiled })
    }

    /// Whether a manifest may contain the URL. A URL that parsers could read differently is not
    /// allowed, because the client might connect to another host than the one that was compared.
    #[must_use]
    pub fn allows(&self, url: &str) -> bool {
        host_of(url).is_some_and(|host| self.compiled.is_match(host))
    }
}

/// Host and port of an `http` or `https` URL, without the default port. `None` for every other URL,
/// and for one with a user name or with characters that parsers treat differently.
fn host_of(url: &str) -> Option<&str> {
    let (scheme, rest) = url.split_once("://")?;
    let default_port = if scheme.eq_ignore_ascii_case("https") {
        ":443"
    } else if scheme.eq_ignore_ascii_case("http") {
        ":80"
    } else {
        return None;
    };
    // Browsers read a backslash as a slash, and skip tabs and line breaks.
    if url.contains('\\') || url.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let plain = authority.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
    let parsed = authority.parse::<http::uri::Authority>().ok()?;
    if !plain || parsed.host().is_empty() {
        return None;
    }
    Some(authority.strip_suffix(default_port).unwrap_or(authority))
}

impl PartialEq for AllowedUrls {
    fn eq(&self, other: &AllowedUrls) -> bool {
        self.hosts == other.hosts
    }
}

impl TryFrom<Vec<String>> for AllowedUrls {
    type Error = AllowedUrlsError;

    fn try_from(hosts: Vec<String>) -> Result<AllowedUrls, AllowedUrlsError> {
        AllowedUrls::new(hosts)
    }
}

impl From<AllowedUrls> for Vec<String> {
    fn from(urls: AllowedUrls) -> Vec<String> {
        urls.hosts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(hosts: &[&str]) -> AllowedUrls {
        AllowedUrls::new(hosts.iter().map(|host| (*host).to_owned()).collect()).unwrap()
    }

    #[test]
    fn the_host_and_a_port_that_is_not_the_default_are_compared() {
        let urls = allowed(&["mcr.microsoft.com", "*.example.com", "files:8443"]);
        for url in [
            "https://mcr.microsoft.com/v2/windows/blobs/x",
            "http://MCR.Microsoft.com",
            "HTTPS://mcr.microsoft.com:443/x?y#z",
            "http://a.b.example.com:80/",
            "https://files:8443/a@b",
        ] {
            assert!(urls.allows(url), "{url}");
        }
        for url in [
            "https://mcr.microsoft.com:8443/x",
            "https://mcr.microsoft.com:80/x",
            "https://mcr.microsoft.com.evil.example/x",
            "https://example.com/x",
            "https://files/x",
            "http://169.254.169.254/latest/meta-data",
        ] {
            assert!(!urls.allows(url), "{url}");
        }
        assert!(!AllowedUrls::default().allows("https://mcr.microsoft.com/"));
    }

    #[test]
    fn a_url_that_another_parser_could_read_differently_is_not_allowed() {
        let urls = allowed(&["*"]);
        assert!(urls.allows("https://a/x"));
        for url in [
            "file:///etc/passwd",
            "ftp://a/x",
            "//a/x",
            "a/x",
            "",
            "https://",
            "https:///x",
            "https:a/x",
            "https://user@a/x",
            "https://evil\\@a/x",
            "https://a\\b/x",
            "https://a%2fb/x",
            "https://a b/x",
            "https://a/\tx",
            "\nhttps://a/x",
            "https://ä/x",
            "https://a:b:c/x",
        ] {
            assert!(!urls.allows(url), "{url}");
        }
    }

    #[test]
    fn a_pattern_is_a_host_and_not_a_url() {
        for host in ["", "https://a", "a/b", "user@a", "[", "a b"] {
            assert!(AllowedUrls::new(vec![host.into()]).is_err(), "{host}");
        }
    }
}
