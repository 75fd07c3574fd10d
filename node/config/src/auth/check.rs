//! Checks of access control that the types of its fields do not express.

use super::{Auth, Kubernetes, OidcIssuer, Rule};
use crate::field::{check_path, check_url, refuse};
use crate::{ConfigError, NodeConfig};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// The largest number of rules. With an index, each costs memory only.
const MAX_RULES: usize = 10_000;

/// Bounds of `auth.tokens.lifetime`. Old clients take less than a minute for a minute. A token of a
/// deleted identity is valid until it expires.
const SHORTEST_TOKEN: Duration = Duration::from_secs(60);
const LONGEST_TOKEN: Duration = Duration::from_secs(24 * 3600);

/// Whether a host, as in a URL, is this machine: `localhost` or a loopback address.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

pub(crate) fn check(config: &NodeConfig) -> Result<(), ConfigError> {
    let Some(auth) = &config.auth else { return Ok(()) };
    check_service(auth)?;
    check_tokens(config, auth)?;
    check_users(auth)?;
    for (number, issuer) in auth.oidc.iter().enumerate() {
        check_issuer(&format!("auth.oidc[{number}]"), issuer)?;
        check_repeated(number, &auth.oidc)?;
    }
    if let Some(kubernetes) = &auth.kubernetes {
        check_kubernetes(auth, kubernetes)?;
    }
    if auth.rules.len() > MAX_RULES {
        return refuse("auth.rules", format!("{} rules are too many: at most {MAX_RULES}", auth.rules.len()));
    }
    auth.rules.iter().enumerate().try_for_each(|(number, rule)| check_rule(number, rule))
}

fn check_service(auth: &Auth) -> Result<(), ConfigError> {
    if let Some(service) = &auth.service {
        check_header_text("auth.service", service)?;
    }
    let Some(realm) = &auth.realm else { return Ok(()) };
    check_header_text("auth.realm", realm)?;
    check_url("auth.realm", realm, &["https", "http"])?;
    if !realm.ends_with("/v2/_token") {
        return refuse("auth.realm", format!("{realm:?} must end with /v2/_token, the path of the token service"));
    }
    Ok(())
}

/// The text becomes a quoted value of the header `WWW-Authenticate`.
fn check_header_text(field: &str, text: &str) -> Result<(), ConfigError> {
    let valid = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if text.is_empty() || !text.bytes().all(valid) {
        return refuse(field, format!("{text:?} must be ASCII text without spaces, quotes and backslashes"));
    }
    Ok(())
}

fn check_tokens(config: &NodeConfig, auth: &Auth) -> Result<(), ConfigError> {
    let has_peers = config.node.peer_url.is_some() || config.node.peers.is_some();
    match &auth.tokens.key_file {
        Some(path) => check_path("auth.tokens.keyFile", path)?,
        None if has_peers => {
            let why = "must be set if node.peerUrl is set, because a token of one node must be valid at the others";
            return refuse("auth.tokens.keyFile", why);
        }
        None => {}
    }
    if !(SHORTEST_TOKEN..=LONGEST_TOKEN).contains(&auth.tokens.lifetime.get()) {
        return refuse("auth.tokens.lifetime", format!("{} must be between 1m and 24h", auth.tokens.lifetime));
    }
    Ok(())
}

fn check_users(auth: &Auth) -> Result<(), ConfigError> {
    if let Some(users) = &auth.users {
        check_path("auth.users.file", &users.file)?;
    }
    let nameless = |(group, members): (&String, &Vec<String>)| group.is_empty() || members.iter().any(String::is_empty);
    if auth.groups.iter().any(nameless) {
        return refuse("auth.groups", "must have no empty names of groups or members");
    }
    Ok(())
}

fn check_issuer(field: &str, issuer: &OidcIssuer) -> Result<(), ConfigError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if issuer.name.is_empty() || !issuer.name.bytes().all(plain) {
        return refuse(format!("{field}.name"), format!("{:?} must be letters, digits, '.', '_' or '-'", issuer.name));
    }
    check_private_url(&format!("{field}.issuer"), &issuer.issuer)?;
    if issuer.issuer.contains(['?', '#']) {
        return refuse(format!("{field}.issuer"), format!("{:?} must not have a query or a fragment", issuer.issuer));
    }
    if issuer.audiences.is_empty() {
        let why = "must not be empty, because a token for another service would be accepted";
        return refuse(format!("{field}.audiences"), why);
    }
    check_texts(&format!("{field}.audiences"), &issuer.audiences)?;
    for (claim, values) in &issuer.require {
        check_texts(&format!("{field}.require.{claim}"), values)?;
    }
    if issuer.groups.as_ref().is_some_and(String::is_empty) {
        return refuse(format!("{field}.groups"), "must be the name of a claim");
    }
    let file = |name: &str, path: &Option<std::path::PathBuf>| {
        path.as_deref().map_or(Ok(()), |path: &Path| check_path(format!("{field}.{name}"), path))
    };
    file("caFile", &issuer.ca_file)?;
    file("jwksFile", &issuer.jwks_file)?;
    match (&issuer.jwks_file, &issuer.jwks_uri) {
        (Some(_), Some(_)) => refuse(format!("{field}.jwksUri"), "must not be set together with jwksFile"),
        (None, Some(uri)) => check_private_url(&format!("{field}.jwksUri"), uri),
        (_, None) => Ok(()),
    }
}

/// The first issuer that claims a token decides, so a second one with the same URL would never be
/// asked.
fn check_repeated(number: usize, issuers: &[OidcIssuer]) -> Result<(), ConfigError> {
    let (before, after) = issuers.split_at(number);
    let Some(issuer) = after.first() else { return Ok(()) };
    for (other, earlier) in before.iter().enumerate() {
        if earlier.name == issuer.name {
            let why = format!("{:?} is also the name of auth.oidc[{other}]", issuer.name);
            return refuse(format!("auth.oidc[{number}].name"), why);
        }
        if earlier.issuer == issuer.issuer {
            let why = format!("{:?} is also the issuer of auth.oidc[{other}]", issuer.issuer);
            return refuse(format!("auth.oidc[{number}].issuer"), why);
        }
    }
    Ok(())
}

fn check_kubernetes(auth: &Auth, kubernetes: &Kubernetes) -> Result<(), ConfigError> {
    check_private_url("auth.kubernetes.apiServer", &kubernetes.api_server)?;
    check_path("auth.kubernetes.caFile", &kubernetes.ca_file)?;
    check_path("auth.kubernetes.tokenFile", &kubernetes.token_file)?;
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if kubernetes.resource.is_empty() || !kubernetes.resource.bytes().all(word) {
        let why = format!("{:?} must be lowercase letters, digits and dashes", kubernetes.resource);
        return refuse("auth.kubernetes.resource", why);
    }
    match kubernetes.audience.as_ref().or(auth.service.as_ref()) {
        None if kubernetes.review => {
            let why = "is required if auth.service is unset: a token must be for this registry and no other service";
            refuse("auth.kubernetes.audience", why)
        }
        Some(audience) if audience.is_empty() => refuse("auth.kubernetes.audience", "must not be empty"),
        Some(_) | None => Ok(()),
    }
}

fn check_rule(number: usize, rule: &Rule) -> Result<(), ConfigError> {
    let field = |name: &str| format!("auth.rules[{number}].{name}");
    for (name, is_empty) in
        [("who", rule.who.is_empty()), ("may", rule.may.is_empty()), ("in", rule.repositories.is_empty())]
    {
        if is_empty {
            return refuse(field(name), "must not be empty, because the rule would allow nothing");
        }
    }
    for (claim, values) in &rule.claims {
        check_texts(&field(&format!("where.{claim}")), values)?;
    }
    Ok(())
}

/// A list of values of which one must match.
fn check_texts(field: &str, values: &[String]) -> Result<(), ConfigError> {
    if values.is_empty() {
        return refuse(field, "must not be empty, because no value would match");
    }
    match values.iter().position(String::is_empty) {
        Some(number) => refuse(format!("{field}[{number}]"), "must not be empty"),
        None => Ok(()),
    }
}

/// The URL of a service that gets or gives secrets.
fn check_private_url(field: &str, url: &str) -> Result<(), ConfigError> {
    check_url(field, url, &["https", "http"])?;
    let host = url.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    if url.starts_with("http:") && !is_loopback(&host) {
        return refuse(
            field,
            format!("{url:?} must begin with https://; http:// is allowed for loopback addresses only"),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(auth: &str) -> String {
        NodeConfig::from_yaml(&format!("auth: {{{auth}}}")).unwrap_err().to_string()
    }

    #[test]
    fn a_refusal_names_the_entry_of_the_list() {
        let rules = "{who: [anonymous], may: [pull], in: ['**']}, {who: [anonymous], may: [pull], in: ['**']}";
        for (rule, field) in [
            ("who: [alice], may: [pull], in: [a]", "auth.rules[2].who[0]"),
            ("who: ['user:a'], may: [read], in: [a]", "auth.rules[2].may[0]"),
            ("who: ['user:a'], may: [pull], in: [a, 'A/**']", "auth.rules[2].in[1]"),
            ("who: ['user:a'], may: [pull], in: [a], wher: {}", "auth.rules[2].wher"),
            ("who: [], may: [pull], in: [a]", "auth.rules[2].who"),
            ("who: ['user:a'], may: [], in: [a]", "auth.rules[2].may"),
            ("who: ['user:a'], may: [pull]", "auth.rules[2].in"),
            ("who: ['user:a'], may: [pull], in: [a], where: {ref: []}", "auth.rules[2].where.ref"),
            ("who: ['user:a'], may: [pull], in: [a], where: {ref: [a, '']}", "auth.rules[2].where.ref[1]"),
        ] {
            let text = refusal(&format!("rules: [{rules}, {{{rule}}}]"));
            assert!(text.starts_with(&format!("{field}: ")), "{rule}: {text}");
        }
    }

    #[test]
    fn the_number_of_rules_is_bounded() {
        let rules = |count| vec![Rule::default(); count];
        let config = |rules| NodeConfig { auth: Some(Auth { rules, ..Auth::default() }), ..NodeConfig::default() };
        let text = check(&config(rules(MAX_RULES + 1))).unwrap_err().to_string();
        assert_eq!(text, "auth.rules: 10001 rules are too many: at most 10000");
        assert!(check(&config(rules(MAX_RULES))).unwrap_err().to_string().starts_with("auth.rules[0].who: "));
    }

    #[test]
    fn an_issuer_is_named_once_and_private_and_has_audiences() {
        let valid = "name: b, issuer: 'https://b', audiences: [x]";
        let read = |issuer: &str| {
            let first = "{name: a, issuer: 'https://a', audiences: [x]}";
            NodeConfig::from_yaml(&format!("auth: {{oidc: [{first}, {{{issuer}}}]}}"))
                .map_err(|error| error.to_string())
        };
        for issuer in [valid, &format!("{valid}, jwksFile: /x"), "name: b, issuer: 'http://[::1]:1/x', audiences: [x]"]
        {
            assert!(read(issuer).is_ok(), "{issuer}: {:?}", read(issuer));
        }
        for (issuer, field) in [
            ("name: '', issuer: 'https://b', audiences: [x]", "name"),
            ("name: 'b:c', issuer: 'https://b', audiences: [x]", "name"),
            ("name: a, issuer: 'https://b', audiences: [x]", "name"),
            ("name: b, issuer: 'https://a', audiences: [x]", "issuer"),
            ("name: b, issuer: 'http://b', audiences: [x]", "issuer"),
            ("name: b, issuer: 'http://localhost.b', audiences: [x]", "issuer"),
            ("name: b, issuer: 'https://b?c', audiences: [x]", "issuer"),
            ("name: b, issuer: 'https://b'", "audiences"),
            ("name: b, issuer: 'https://b', audiences: [x, '']", "audiences[1]"),
            ("name: b, issuer: 'https://b', audiences: [x], require: {a: []}", "require.a"),
            ("name: b, issuer: 'https://b', audiences: [x], groups: ''", "groups"),
            ("name: b, issuer: 'https://b', audiences: [x], jwksFile: ''", "jwksFile"),
            ("name: b, issuer: 'https://b', audiences: [x], jwksUri: 'http://b'", "jwksUri"),
            ("name: b, issuer: 'https://b', audiences: [x], jwksUri: 'https://b', jwksFile: /x", "jwksUri"),
        ] {
            let text = read(issuer).unwrap_err();
            assert!(text.starts_with(&format!("auth.oidc[1].{field}: ")), "{issuer}: {text}");
        }
    }

    #[test]
    fn kubernetes_needs_an_audience_and_a_private_api_server() {
        assert!(NodeConfig::from_yaml("auth: {kubernetes: {audience: x}}").is_ok());
        assert!(NodeConfig::from_yaml("auth: {service: x, kubernetes: {}}").is_ok());
        assert!(NodeConfig::from_yaml("auth: {kubernetes: {review: false}}").is_ok());
        for (kubernetes, field) in [
            ("{}", "audience"),
            ("{audience: ''}", "audience"),
            ("{audience: x, apiServer: 'http://kubernetes'}", "apiServer"),
            ("{audience: x, tokenFile: ''}", "tokenFile"),
            ("{audience: x, resource: a/b}", "resource"),
        ] {
            let text = refusal(&format!("kubernetes: {kubernetes}"));
            assert!(text.starts_with(&format!("auth.kubernetes.{field}: ")), "{kubernetes}: {text}");
        }
    }

    #[test]
    fn values_of_the_challenge_are_checked() {
        for (auth, field) in [
            ("service: 'a b'", "auth.service"),
            ("service: 'a\"b'", "auth.service"),
            ("realm: 'https://a/token'", "auth.realm"),
            ("realm: a/v2/_token", "auth.realm"),
        ] {
            let text = refusal(auth);
            assert!(text.starts_with(&format!("{field}: ")), "{auth}: {text}");
        }
    }
}
