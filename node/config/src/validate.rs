//! Parsing and validation of a configuration: checks what the schema cannot express. Every error
//! names the field.

use crate::{Bucket, NodeConfig, S3, Threshold};
use std::path::Path;

/// The shortest `store.scrub.period`. A shorter round would read the disk all the time.
const SHORTEST_SCRUB: std::time::Duration = std::time::Duration::from_secs(3600);

/// Why a configuration is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is not valid YAML, or has an unknown field or a value of the wrong type.
    #[error("{path}: {message}")]
    Form { path: String, message: String },
    /// The value of a field is invalid.
    #[error("{field}: {problem}")]
    Value { field: &'static str, problem: String },
    /// `${VAR}` refers to an environment variable that is not set.
    #[error("node.name: the environment variable {0} is not set")]
    Environment(String),
    #[error("cannot write the configuration: {0}")]
    Write(String),
}

fn refuse<T>(field: &'static str, problem: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Value { field, problem: problem.into() })
}

pub(crate) fn from_yaml(text: &str, environment: impl Fn(&str) -> Option<String>) -> Result<NodeConfig, ConfigError> {
    // The deserializer reads an empty document as null, which is not a map. It means the defaults.
    let blank = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    let mut config = if blank { NodeConfig::default() } else { parse(text)? };
    // The default folder is the bucket only if `bucket.s3` is unset.
    if config.bucket.s3.is_some() && config.bucket.file_system == Some(crate::FileSystem::default()) {
        config.bucket.file_system = None;
    }
    config.node.name = expand(&config.node.name, environment)?;
    check(&config)?;
    Ok(config)
}

fn parse(text: &str) -> Result<NodeConfig, ConfigError> {
    let mut track = serde_path_to_error::Track::new();
    let parsed = serde_saphyr::with_deserializer_from_str(text, |deserializer| {
        serde::Deserialize::deserialize(serde_path_to_error::Deserializer::new(deserializer, &mut track))
    });
    parsed.map_err(|error: serde_saphyr::Error| {
        let path = match track.path().to_string().as_str() {
            "." => "the configuration".to_owned(),
            path => path.to_owned(),
        };
        // Without the source snippet, which would repeat the message.
        let options = serde_saphyr::render_options! { snippets: serde_saphyr::SnippetMode::Off };
        ConfigError::Form { path, message: error.render_with_options(options) }
    })
}

/// Replaces each `${VAR}` by the value of the environment variable.
fn expand(text: &str, environment: impl Fn(&str) -> Option<String>) -> Result<String, ConfigError> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, after)) = after.split_once('}') else {
            return refuse("node.name", "unterminated variable reference: missing '}'");
        };
        expanded.push_str(before);
        expanded.push_str(&environment(name).ok_or_else(|| ConfigError::Environment(name.to_owned()))?);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

pub(crate) fn to_yaml(config: &NodeConfig) -> Result<String, ConfigError> {
    serde_saphyr::to_string(config).map_err(|error| ConfigError::Write(error.to_string()))
}

fn check(config: &NodeConfig) -> Result<(), ConfigError> {
    check_node(config)?;
    check_origins(&config.http.allowed_origins)?;
    check_namespaces(&config.http.namespaces)?;
    check_bucket(&config.bucket)?;
    check_store(config)?;
    check_counts(config)?;
    check_replication(config)?;
    check_patterns(&config.tags.immutable)
}

fn check_node(config: &NodeConfig) -> Result<(), ConfigError> {
    let name = &config.node.name;
    let label = (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !label {
        return refuse(
            "node.name",
            format!(
                "{name:?} must be a DNS label: 1 to 63 lowercase letters, digits or '-', and start and end with a \
                 letter or digit"
            ),
        );
    }
    if let Some(peers) = &config.node.peers {
        if !peers.contains("{node}") {
            return refuse("node.peers", "must contain {node}, the placeholder for the name of the other node");
        }
        check_url("node.peers", &peers.replace("{node}", "node"), &["http"])?;
    }
    if config.http.listen == config.http.operations && config.http.listen.port() != 0 {
        return refuse("http.operations", "must differ from http.listen");
    }
    Ok(())
}

fn check_url(field: &'static str, url: &str, schemes: &[&str]) -> Result<(), ConfigError> {
    let parsed: http::Uri = match url.parse() {
        Ok(parsed) => parsed,
        Err(error) => return refuse(field, format!("{url:?} is not a valid URL: {error}")),
    };
    let known = parsed.scheme_str().is_some_and(|scheme| schemes.contains(&scheme));
    if !known || parsed.host().is_none_or(str::is_empty) {
        let forms: Vec<_> = schemes.iter().map(|scheme| format!("{scheme}://host:port")).collect();
        return refuse(field, format!("{url:?} must have the form {}", forms.join(" or ")));
    }
    Ok(())
}

/// A name is the part of an image reference before the first `/`: a host with an optional port.
fn check_namespaces(names: &[String]) -> Result<(), ConfigError> {
    for name in names {
        let parsed = name.parse::<http::uri::Authority>();
        if !parsed.is_ok_and(|authority| !authority.host().is_empty() && !name.contains(['@', '*'])) {
            let form = "must have the form host or host:port, as in image references";
            return refuse("http.namespaces", format!("{name:?} {form}"));
        }
    }
    Ok(())
}

/// An origin is compared byte by byte with the one that a browser sends (Fetch standard, "CORS
/// check"). An origin in a form that no browser sends is rejected, because it would never match.
fn check_origins(origins: &[String]) -> Result<(), ConfigError> {
    for origin in origins.iter().filter(|origin| *origin != "*") {
        check_url("http.allowedOrigins", origin, &["http", "https"])?;
        let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
        let upper = origin.bytes().any(|byte| byte.is_ascii_uppercase());
        // The last colon of an IPv6 address such as `[::1]` does not start a port.
        let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
        let wrong_port = port.is_some_and(|port| port.parse::<u16>().is_err());
        if upper || wrong_port || authority.contains(['/', '?', '#', '@', '*']) {
            let form = "must be \"*\", or scheme://host or scheme://host:port in lowercase and without a path";
            return refuse("http.allowedOrigins", format!("{origin:?} {form}"));
        }
        let default_port = if origin.starts_with("https:") { ":443" } else { ":80" };
        if authority.ends_with(default_port) {
            let problem =
                format!("{origin:?} must not have the default port, because browsers omit it; remove {default_port}");
            return refuse("http.allowedOrigins", problem);
        }
    }
    Ok(())
}

fn check_bucket(bucket: &Bucket) -> Result<(), ConfigError> {
    let prefix = &bucket.prefix;
    let segments_ok = prefix.split('/').all(|segment| segment != "." && segment != "..") && !prefix.contains("//");
    if !prefix.is_empty() && (prefix.starts_with('/') || !prefix.ends_with('/') || !segments_ok) {
        let form = "must be empty, or a relative path that ends with '/' and has no empty, '.' or '..' segments";
        return refuse("bucket.prefix", format!("{prefix:?} {form}"));
    }
    match (&bucket.s3, &bucket.file_system) {
        (None, None) => refuse("bucket", "one of s3 and fileSystem is required"),
        (Some(_), Some(_)) => refuse("bucket", "s3 and fileSystem are mutually exclusive"),
        (Some(s3), None) => check_s3(s3),
        (None, Some(folder)) => check_path("bucket.fileSystem.path", &folder.path),
    }
}

fn check_s3(s3: &S3) -> Result<(), ConfigError> {
    // Looser than the naming rules of S3, because compatible services have rules of their own.
    let name_ok =
        (3..=255).contains(&s3.name.len()) && s3.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if !name_ok {
        return refuse("bucket.s3.name", format!("{:?} must be 3 to 255 letters, digits, '-', '.' or '_'", s3.name));
    }
    if let Some(endpoint) = &s3.endpoint {
        check_url("bucket.s3.endpoint", endpoint, &["http", "https"])?;
    }
    if let Some(credentials) = &s3.credentials {
        check_path("bucket.s3.credentials.accessKeyIdFile", &credentials.access_key_id_file)?;
        check_path("bucket.s3.credentials.secretAccessKeyFile", &credentials.secret_access_key_file)?;
    }
    Ok(())
}

fn check_path(field: &'static str, path: &Path) -> Result<(), ConfigError> {
    if path.as_os_str().is_empty() { refuse(field, "must not be empty") } else { Ok(()) }
}

fn check_store(config: &NodeConfig) -> Result<(), ConfigError> {
    let store = &config.store;
    check_path("store.path", &store.path)?;
    if config.bucket.s3.is_none()
        && let Some(folder) = &config.bucket.file_system
        && (folder.path.starts_with(&store.path) || store.path.starts_with(&folder.path))
    {
        return refuse("store.path", "must not overlap bucket.fileSystem.path: one directory contains the other");
    }
    let period = store.scrub.period.get();
    if !period.is_zero() && period < SHORTEST_SCRUB {
        return refuse("store.scrub.period", "must be at least 1h, or 0s to disable the scrub");
    }
    // Without a capacity, two percentages are still comparable: any capacity gives the same order.
    let capacity = store.capacity.map_or(u64::MAX, crate::ByteSize::get);
    if store.capacity.is_some_and(|capacity| capacity.get() == 0) {
        return refuse("store.capacity", "must be greater than zero");
    }
    let comparable = store.capacity.is_some()
        || std::mem::discriminant(&store.low_free) == std::mem::discriminant(&store.target_free);
    let (low, target) = (store.low_free.of(capacity), store.target_free.of(capacity));
    if comparable && target < low {
        return refuse(
            "store.targetFree",
            format!(
                "{} must be at least store.lowFree ({}), or eviction could not stop",
                store.target_free, store.low_free
            ),
        );
    }
    if store.target_free == Threshold::percent(100) || (store.capacity.is_some() && target >= capacity) {
        return refuse(
            "store.targetFree",
            format!("{} must be less than store.capacity, or nothing could be stored", store.target_free),
        );
    }
    Ok(())
}

fn check_counts(config: &NodeConfig) -> Result<(), ConfigError> {
    let counts = [
        ("http.maxConnections", config.http.max_connections),
        ("http.maxRequests", config.http.max_requests),
        ("bucket.maxRequests", config.bucket.max_requests),
        ("upload.maxSessions", config.upload.max_sessions),
        ("replication.parallelBlobs", config.replication.parallel_blobs),
        ("replication.parallelParts", config.replication.parallel_parts),
        ("fetch.parallelRanges", config.fetch.parallel_ranges),
    ];
    if let Some((field, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
        return refuse(field, "must be greater than zero");
    }
    let spans = [
        ("http.headerTimeout", config.http.header_timeout),
        ("http.idleTimeout", config.http.idle_timeout),
        ("http.stallTimeout", config.http.stall_timeout),
        ("bucket.requestTimeout", config.bucket.request_timeout),
        ("upload.sessionExpiry", config.upload.session_expiry),
        ("upload.answerWithin", config.upload.answer_within),
    ];
    if let Some((field, _)) = spans.into_iter().find(|(_, span)| span.get().is_zero()) {
        return refuse(field, "must be greater than zero");
    }
    Ok(())
}

fn check_replication(config: &NodeConfig) -> Result<(), ConfigError> {
    let part = config.replication.part_size.get();
    if !(5 << 20..=5 << 30).contains(&part) {
        return refuse("replication.partSize", "must be between 5Mi and 5Gi, as S3 requires");
    }
    if config.bucket.max_bytes_in_flight.get() < part {
        return refuse("bucket.maxBytesInFlight", "must be at least replication.partSize");
    }
    if config.fetch.range_size.get() < 1 << 20 {
        return refuse("fetch.rangeSize", "must be at least 1Mi");
    }
    if config.upload.max_blob_size.get() == 0 {
        return refuse("upload.maxBlobSize", "must be greater than zero");
    }
    Ok(())
}

fn check_patterns(patterns: &[String]) -> Result<(), ConfigError> {
    for pattern in patterns {
        if let Err(error) = globset::Glob::new(pattern) {
            return refuse("tags.immutable", error.to_string());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<NodeConfig, ConfigError> {
        from_yaml(text, |name| (name == "POD").then(|| "images-0".to_owned()))
    }

    fn refusal(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn no_configuration_is_the_default() {
        for text in ["", "\n", "# nothing\n", "{}"] {
            assert_eq!(read(text).unwrap(), NodeConfig::default(), "{text:?}");
        }
    }

    #[test]
    fn a_written_configuration_is_read_back() {
        let text = NodeConfig::default().to_yaml().unwrap();
        assert_eq!(read(&text).unwrap(), NodeConfig::default(), "{text}");
    }

    #[test]
    fn the_node_name_comes_from_the_environment() {
        assert_eq!(read("node: {name: '${POD}'}").unwrap().node.name, "images-0");
        assert!(refusal("node: {name: '${NOPE}'}").contains("NOPE is not set"));
        assert!(refusal("node: {name: '${NOPE'}").starts_with("node.name: "));
    }

    #[test]
    fn a_refusal_names_the_path_of_the_field() {
        for (text, path) in [
            ("store: {lowFre: 10%}", "store.lowFre"),
            ("store: {lowFree: ten}", "store.lowFree"),
            ("http: {maxRequests: many}", "http.maxRequests"),
            ("http: {listen: here}", "http.listen"),
            ("replication: {mode: Sometimes}", "replication.mode"),
            ("http: {headerTimeout: 5}", "http.headerTimeout"),
            ("store: {targetFree: 5%}", "store.targetFree"),
            ("store: {capacity: 0}", "store.capacity"),
            ("store: {scrub: {period: 59m}}", "store.scrub.period"),
            ("store: {lowFree: 1Gi, targetFree: 2Gi, capacity: 1Gi}", "store.targetFree"),
            ("bucket: {fileSystem: null}", "bucket"),
            ("bucket: {s3: {name: images}, fileSystem: {path: /x}}", "bucket"),
            ("bucket: {s3: {name: ''}}", "bucket.s3.name"),
            ("bucket: {s3: {name: images, endpoint: 'ftp://x'}}", "bucket.s3.endpoint"),
            ("bucket: {prefix: /a}", "bucket.prefix"),
            ("bucket: {prefix: ../}", "bucket.prefix"),
            ("bucket: {fileSystem: {path: data}}\nstore: {path: data/store}", "store.path"),
            ("node: {name: A.b}", "node.name"),
            ("node: {peers: 'http://x'}", "node.peers"),
            ("http: {operations: 127.0.0.1:5000}", "http.operations"),
            ("http: {idleTimeout: 0s}", "http.idleTimeout"),
            ("http: {namespaces: ['https://registry.example.com']}", "http.namespaces"),
            ("http: {namespaces: ['registry.example.com/team']}", "http.namespaces"),
            ("http: {namespaces: ['*.example.com']}", "http.namespaces"),
            ("http: {namespaces: ['']}", "http.namespaces"),
            ("http: {allowedOrigins: ['ui.example.com']}", "http.allowedOrigins"),
            ("http: {allowedOrigins: ['null']}", "http.allowedOrigins"),
            ("http: {allowedOrigins: ['ftp://ui.example.com']}", "http.allowedOrigins"),
            ("http: {allowedOrigins: ['https://ui.example.com/']}", "http.allowedOrigins"),
            ("http: {allowedOrigins: ['https://UI.example.com']}", "http.allowedOrigins"),
            ("http: {allowedOrigins: ['https://*.example.com']}", "http.allowedOrigins"),
            ("http: {allowedOrigins: ['https://ui.example.com:443']}", "http.allowedOrigins"),
            ("http: {allowedOrigins: ['*', 'http://ui.example.com:80']}", "http.allowedOrigins"),
            ("replication: {partSize: 1Mi}", "replication.partSize"),
            ("bucket: {maxBytesInFlight: 1Mi}", "bucket.maxBytesInFlight"),
            ("tags: {immutable: ['[']}", "tags.immutable"),
            ("fetch: {parallelRanges: 0}", "fetch.parallelRanges"),
            ("upload: {answerWithin: 0s}", "upload.answerWithin"),
        ] {
            let refusal = refusal(text);
            assert!(refusal.starts_with(&format!("{path}: ")), "{text}: {refusal}");
        }
    }

    #[test]
    fn origins_are_accepted_as_browsers_send_them() {
        let text =
            "http: {allowedOrigins: ['*', 'https://ui.example.com', 'http://localhost:8080', 'http://[::1]:80801']}";
        assert!(read(text).is_err(), "80801 is not a valid port");
        let text = text.replace("80801", "8081");
        assert_eq!(read(&text).unwrap().http.allowed_origins.len(), 4);
    }

    #[test]
    fn an_unknown_field_is_refused_with_a_list_of_the_known_fields() {
        let refusal = refusal("store: {lowFre: 10%}");
        assert!(refusal.contains("lowFre") && refusal.contains("lowFree"), "{refusal}");
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,200}") {
            let _ = read(&text);
        }
    }
}
