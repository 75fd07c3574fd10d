//! Where the keys of an issuer are: at the address that its configuration document names, at a
//! configured address, or in a file.

use super::set::KeySet;
use crate::https::{HttpsClient, HttpsError, HttpsOptions, Trust};
use bytes::Bytes;
use entrepot_config::OidcIssuer;
use entrepot_runtime::tasks::blocking;
use http::Uri;
use serde::Deserialize;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time for a whole fetch. A client waits for it.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The largest document. A key has about 500 bytes, and 2 KiB with its certificate.
const MAX_DOCUMENT: usize = 1 << 20;

/// Where the keys of an issuer are.
pub(super) struct Source {
    place: Place,
    client: HttpsClient,
}

enum Place {
    /// In the document that the configuration document of this issuer names.
    Discovered(String),
    Url(String),
    File(PathBuf),
}

/// Why the keys could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Https(#[from] HttpsError),
    #[error("{url} answers {status}; redirects are not followed")]
    Status { url: String, status: u16 },
    #[error("{url} is not the configuration of an OpenID Connect issuer")]
    Configuration { url: String },
    #[error("{url} is the configuration of the issuer {found:?}; auth.oidc[].issuer must be exactly that")]
    OtherIssuer { url: String, found: String },
    #[error("the issuer's jwks_uri must begin with https://")]
    InsecureKeys,
    #[error("cannot read auth.oidc[].jwksFile {}: {problem}", path.display())]
    File { path: PathBuf, problem: io::Error },
    #[error("{place} is not a JSON Web Key Set")]
    NoKeySet { place: String },
    #[error("no keys within {PATIENCE:?}")]
    TooSlow,
}

/// The part of a configuration document that matters (OpenID Connect Discovery 1.0, section 3).
#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

impl Source {
    pub(super) fn new(config: &OidcIssuer) -> Source {
        let place = match (&config.jwks_file, &config.jwks_uri) {
            (Some(file), _) => Place::File(file.clone()),
            (None, Some(url)) => Place::Url(url.clone()),
            (None, None) => Place::Discovered(config.issuer.clone()),
        };
        let options = HttpsOptions {
            trust: Trust::System(config.ca_file.clone()),
            timeout: PATIENCE,
            max_response: MAX_DOCUMENT,
            at_once: 1,
        };
        Source { place, client: HttpsClient::new(options) }
    }

    /// Whether the keys are in a file, which costs nothing to read again.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.place, Place::File(_))
    }

    /// The keys.
    pub(super) async fn fetch(&self) -> Result<KeySet, FetchError> {
        tokio::time::timeout(PATIENCE, self.read()).await.unwrap_or(Err(FetchError::TooSlow))
    }

    async fn read(&self) -> Result<KeySet, FetchError> {
        let (place, text) = match &self.place {
            Place::File(path) => (path.display().to_string(), read_file(path.clone()).await?),
            Place::Url(url) => (url.clone(), self.get(url).await?),
            Place::Discovered(issuer) => {
                let url = self.discover(issuer).await?;
                let text = self.get(&url).await?;
                (url, text)
            }
        };
        KeySet::parse(&text).ok_or(FetchError::NoKeySet { place })
    }

    /// The address of the keys, as the issuer publishes it.
    async fn discover(&self, issuer: &str) -> Result<String, FetchError> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let text = self.get(&url).await?;
        let Ok(Configuration { issuer: found, jwks_uri }) = serde_json::from_slice(&text) else {
            return Err(FetchError::Configuration { url });
        };
        // Otherwise a document of somebody else could bring its keys for the tokens of this issuer.
        if found != issuer {
            return Err(FetchError::OtherIssuer { url, found });
        }
        // The client itself refuses http but for loopback addresses. Those are for a local issuer.
        if is_http(&jwks_uri) && !is_http(issuer) {
            return Err(FetchError::InsecureKeys);
        }
        Ok(jwks_uri)
    }

    async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        let response = self.client.get(url, None).await?;
        match response.status {
            200 => Ok(response.body),
            status => Err(FetchError::Status { url: url.to_owned(), status }),
        }
    }
}

fn is_http(url: &str) -> bool {
    url.parse::<Uri>().is_ok_and(|url| url.scheme_str() == Some("http"))
}

async fn read_file(path: PathBuf) -> Result<Bytes, FetchError> {
    let file = path.clone();
    let text = blocking(move || read_bounded(&file)).await.flatten();
    text.map(Bytes::from).map_err(|problem| FetchError::File { path, problem })
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let limit = u64::try_from(MAX_DOCUMENT).unwrap_or(u64::MAX);
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut text)?;
    if text.len() > MAX_DOCUMENT {
        return Err(io::Error::other(format!("it is larger than {MAX_DOCUMENT} bytes")));
    }
    Ok(text)
}
