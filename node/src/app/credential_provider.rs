//! `entrepot-node credential-provider`: the program that a kubelet runs to get the credential of a
//! pull (KEP-4412). It gives the registry the service account token that the kubelet gives it: no
//! pull secret is needed. It reads no configuration and connects to nothing.

use entrepot_config::Duration;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

/// The version of request and response.
const API_VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";

/// The largest request. It contains one token and a few annotations.
const MAX_REQUEST: u64 = 1 << 20;

/// The user name that the registry gets. It does not look at it.
const USER: &str = "token";

/// Why there is no credential. No error contains a part of the request but the image.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialProviderError {
    /// Standard input cannot be read.
    #[error("cannot read the request from standard input: {0}")]
    Read(String),
    /// The request is not JSON of this kind.
    #[error("standard input is not a CredentialProviderRequest: {0}. Only a kubelet runs this program")]
    Form(String),
    /// The request is of another kind or version.
    #[error(
        "the request is {kind} of {version}, not CredentialProviderRequest of {API_VERSION}: set apiVersion of \
         this provider in the CredentialProviderConfig of the kubelet to {API_VERSION}"
    )]
    Version {
        /// Its kind.
        kind: String,
        /// Its version.
        version: String,
    },
    /// The image has no host.
    #[error("the image {0:?} names no registry: it must begin with a host")]
    Image(String),
    /// The kubelet gives no token.
    #[error(
        "the request for the image {0:?} contains no serviceAccountToken: set tokenAttributes \
         (serviceAccountTokenAudience, requireServiceAccount: true, cacheType: Token) of this provider in the \
         CredentialProviderConfig of the kubelet; it needs Kubernetes 1.34, or 1.33 with the feature gate \
         KubeletServiceAccountTokenForCredentialProviders"
    )]
    NoToken(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CredentialProviderRequest {
    api_version: String,
    kind: String,
    #[serde(default)]
    image: String,
    #[serde(default)]
    service_account_token: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CredentialProviderResponse<'a> {
    api_version: &'static str,
    kind: &'static str,
    /// The credential is valid for all images of this registry, because it says who and not what.
    cache_key_type: &'static str,
    /// In units that Go reads too.
    cache_duration: String,
    auth: BTreeMap<&'a str, AuthConfig<'a>>,
}

#[derive(Serialize)]
struct AuthConfig<'a> {
    username: &'static str,
    password: &'a str,
}

/// Reads a request and returns the response.
///
/// # Errors
/// If the input is not a request with a token.
pub fn run(input: impl Read, cache: Duration) -> Result<String, CredentialProviderError> {
    let mut text = String::new();
    let read = input.take(MAX_REQUEST).read_to_string(&mut text);
    read.map_err(|error| CredentialProviderError::Read(error.to_string()))?;
    answer(&text, cache)
}

fn answer(request: &str, cache: Duration) -> Result<String, CredentialProviderError> {
    let request: CredentialProviderRequest =
        serde_json::from_str(request).map_err(|error| CredentialProviderError::Form(position(&error).to_string()))?;
    if request.api_version != API_VERSION || request.kind != "CredentialProviderRequest" {
        return Err(CredentialProviderError::Version { kind: request.kind, version: request.api_version });
    }
    let host = host(&request.image).ok_or_else(|| CredentialProviderError::Image(request.image.clone()))?;
    if request.service_account_token.is_empty() {
        return Err(CredentialProviderError::NoToken(request.image));
    }
    let response = CredentialProviderResponse {
        api_version: API_VERSION,
        kind: "CredentialProviderResponse",
        cache_key_type: "Registry",
        cache_duration: cache.to_string(),
        auth: BTreeMap::from([(host, AuthConfig { username: USER, password: &request.service_account_token })]),
    };
    serde_json::to_string(&response).map_err(|error| CredentialProviderError::Form(position(&error).to_string()))
}

/// The registry of an image: the part before the first slash, if it has a dot or a port.
fn host(image: &str) -> Option<&str> {
    let (host, _) = image.split_once('/')?;
    (host == "localhost" || host.contains(['.', ':'])).then_some(host)
}

/// What an error of the parser may say: its text can contain values, so a token.
fn position(error: &serde_json::Error) -> impl fmt::Display {
    format!("line {}, column {}", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn request() -> Value {
        json!({
            "apiVersion": API_VERSION, "kind": "CredentialProviderRequest",
            "image": "registry.example.com:5000/team-a/web", "serviceAccountToken": "secret",
            "serviceAccountAnnotations": {},
        })
    }

    fn refusal(change: impl FnOnce(&mut Value)) -> String {
        let mut request = request();
        change(&mut request);
        answer(&request.to_string(), Duration::from_secs(0)).unwrap_err().to_string()
    }

    #[test]
    fn the_registry_of_the_image_gets_the_token_of_the_service_account() {
        let response: Value =
            serde_json::from_str(&answer(&request().to_string(), Duration::from_secs(60)).unwrap()).unwrap();
        let expected = json!({
            "apiVersion": API_VERSION, "kind": "CredentialProviderResponse",
            "cacheKeyType": "Registry", "cacheDuration": "1m",
            "auth": {"registry.example.com:5000": {"username": "token", "password": "secret"}},
        });
        assert_eq!(response, expected);
    }

    #[test]
    fn a_request_without_a_token_says_which_configuration_of_the_kubelet_is_missing() {
        for text in [
            refusal(|r| r["serviceAccountToken"] = json!("")),
            refusal(|r| {
                r.as_object_mut().unwrap().remove("serviceAccountToken");
            }),
        ] {
            assert!(text.contains("tokenAttributes") && text.contains("serviceAccountTokenAudience"), "{text}");
        }
    }

    #[test]
    fn other_requests_are_refused_and_no_error_contains_the_token() {
        let texts = [
            refusal(|r| r["apiVersion"] = json!("credentialprovider.kubelet.k8s.io/v1beta1")),
            refusal(|r| r["kind"] = json!("Pod")),
            refusal(|r| r["image"] = json!("busybox")),
            refusal(|r| r["image"] = json!("library/busybox")),
            refusal(|r| r["image"] = json!({"x": "secret"})),
            answer("\"secret\"", Duration::from_secs(0)).unwrap_err().to_string(),
            answer("", Duration::from_secs(0)).unwrap_err().to_string(),
        ];
        assert!(texts[0].contains("set apiVersion of this provider"), "{}", texts[0]);
        for text in texts {
            assert!(!text.contains("secret"), "{text}");
        }
    }
}
