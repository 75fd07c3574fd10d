//! Issuers of OpenID Connect.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// An issuer of OpenID Connect whose tokens are accepted as passwords.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct OidcIssuer {
    /// Name of the issuer in rules (`oidc:NAME`).
    pub name: String,
    /// The issuer: exactly the `iss` claim of its tokens. An `https` URL, or `http` on a loopback
    /// address. Its keys are discovered at `/.well-known/openid-configuration` below it.
    pub issuer: String,
    /// Accepted `aud` claims. A token needs one of them. At least one is required.
    pub audiences: Vec<String>,
    /// The name of the user, in which `{claim}` stands for the value of a claim.
    #[schemars(with = "String")]
    pub username: UserTemplate,
    /// Claim with the groups of the user: a list or a text. If unset, the user has no groups.
    pub groups: Option<String>,
    /// Claims that a token must have: for each name, one of these values.
    pub require: BTreeMap<String, Vec<String>>,
    /// PEM file with CA certificates to trust for this issuer in addition to those of the system.
    pub ca_file: Option<PathBuf>,
    /// File with the keys of the issuer (a JSON Web Key Set), instead of discovery.
    pub jwks_file: Option<PathBuf>,
    /// URL of the keys of the issuer (a JSON Web Key Set), instead of discovery.
    pub jwks_uri: Option<String>,
}

/// A text in which `{claim}` stands for the value of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserTemplate {
    text: String,
}

impl Default for UserTemplate {
    fn default() -> UserTemplate {
        UserTemplate { text: "{sub}".to_owned() }
    }
}

impl UserTemplate {
    /// The text with each `{claim}` replaced. `None` if a claim is missing or empty.
    #[must_use]
    pub fn expand(&self, claim: impl Fn(&str) -> Option<String>) -> Option<String> {
        let mut expanded = String::new();
        let mut rest = self.text.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}')?;
            expanded.push_str(before);
            expanded.push_str(&claim(name).filter(|value| !value.is_empty())?);
            rest = after;
        }
        expanded.push_str(rest);
        Some(expanded)
    }
}

impl TryFrom<String> for UserTemplate {
    type Error = String;

    fn try_from(text: String) -> Result<UserTemplate, String> {
        let template = UserTemplate { text };
        let valid = !template.text.is_empty() && template.expand(|name| Some(format!("<{name}>"))).is_some();
        if valid && !template.text.contains("{}") {
            Ok(template)
        } else {
            Err(format!("{:?} must be text with claims in braces, such as {{sub}}", template.text))
        }
    }
}

impl From<UserTemplate> for String {
    fn from(template: UserTemplate) -> String {
        template.text
    }
}

impl fmt::Display for UserTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_replaced_by_their_values() {
        let template = UserTemplate::try_from("{repository}@{ref}".to_owned()).unwrap();
        let claims = |name: &str| (name != "missing").then(|| format!("<{name}>"));
        assert_eq!(template.expand(claims).unwrap(), "<repository>@<ref>");
        assert_eq!(UserTemplate::try_from("a{missing}".to_owned()).unwrap().expand(claims), None);
        assert_eq!(template.expand(|_| Some(String::new())), None);
        for text in ["", "{", "a{b", "{}"] {
            assert!(UserTemplate::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
