//! `GET` and `POST /v2/_token`: the token service (distribution-spec, "Token Authentication").
//!
//! A token says who its holder is, and at most what it is good for. Fewer rights than asked for are
//! no error here: they are looked up when the token is used. There are no refresh tokens: one that
//! cannot be revoked would be a password without an owner.

use super::body::RequestBody;
use crate::http::error::ApiError;
use crate::http::headers::JSON;
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::response::Response;
use entrepot_access::scope::Scopes;
use entrepot_access::token::IssuedToken;
use entrepot_access::{Client, Credential, Policy};
use futures::TryStreamExt;
use secrecy::ExposeSecret;
use serde_json::json;

/// Maximum size of a form. A token of an issuer with many groups has 16 KiB.
const MAX_FORM_BYTES: usize = 64 * 1024;

/// What a request of the token service asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenQuery {
    /// The values of `scope`. One value may contain several scopes, separated by spaces.
    pub scopes: Vec<String>,
}

/// The form of a `POST`.
pub struct Form {
    /// The user and the password. `None` if both are empty.
    pub credential: Option<Credential>,
    /// What the token is to be good for.
    pub scopes: Vec<String>,
}

impl TokenQuery {
    /// Parses a query, which clients encode as a form.
    pub fn parse(query: &str) -> TokenQuery {
        let pairs = form_urlencoded::parse(query.as_bytes());
        TokenQuery { scopes: pairs.filter(|(name, _)| name == "scope").map(|(_, value)| value.into_owned()).collect() }
    }
}

impl Form {
    /// Reads the form of a `POST` (RFC 6749, section 4.3.2). The inner error is the `error` of the
    /// answer.
    ///
    /// # Errors
    /// If the body cannot be read or is too large.
    pub async fn read(mut body: RequestBody) -> Result<Result<Form, &'static str>, ApiError> {
        let mut text = Vec::new();
        while let Some(piece) = body.try_next().await.map_err(ApiError::Body)? {
            if text.len() + piece.len() > MAX_FORM_BYTES {
                return Err(ApiError::FormTooLarge(MAX_FORM_BYTES));
            }
            text.extend_from_slice(&piece);
        }
        Ok(Form::parse(&text))
    }

    fn parse(text: &[u8]) -> Result<Form, &'static str> {
        let value = |name: &str| form_urlencoded::parse(text).find(|(key, _)| key == name).map(|(_, value)| value);
        match value("grant_type").as_deref() {
            Some("password") => {}
            // containerd and BuildKit use `GET` after this error.
            Some("refresh_token") => return Err("unsupported_grant_type"),
            _ => return Err("invalid_request"),
        }
        let (name, password) = (value("username").unwrap_or_default(), value("password").unwrap_or_default());
        let scopes =
            form_urlencoded::parse(text).filter(|(key, _)| key == "scope").map(|(_, scope)| scope.into_owned());
        Ok(Form { credential: Credential::password(&name, &password), scopes: scopes.collect() })
    }
}

/// Issues a token to the client.
///
/// # Errors
/// If the token cannot be signed.
pub fn issue(policy: &Policy, client: &Client, service: &str, scopes: &[String]) -> Result<Response, ApiError> {
    let scopes = Scopes::parse(scopes.iter().map(String::as_str));
    let issued = policy.issue(client, scopes, service);
    Ok(answer(&issued.map_err(|denied| ApiError::Internal(denied.to_string()))?))
}

fn answer(issued: &IssuedToken) -> Response {
    let token = issued.token.expose_secret();
    // Clients read one of the two names.
    let document = json!({
        "token": token,
        "access_token": token,
        "expires_in": issued.expires_in,
        "issued_at": issued.issued_at.rfc3339(),
    });
    let mut response = Response::new(Body::from(document.to_string()));
    let map = response.headers_mut();
    map.insert(CONTENT_TYPE, JSON);
    map.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The error document of the token service (RFC 6749, section 5.2).
pub fn grant_refused(error: &str) -> Response {
    let mut response = Response::new(Body::from(json!({ "error": error }).to_string()));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}
