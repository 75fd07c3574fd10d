//! Checks of a configuration that the types of its fields do not express. Every error names the
//! field.

use crate::{Bucket, BucketConfig, ConfigError, NodeConfig, S3, Threshold};
use std::path::Path;

/// The shortest `store.scrub.period`. A shorter round would read the disk all the time.
const SHORTEST_SCRUB: std::time::Duration = std::time::Duration::from_secs(3600);

fn refuse<T>(field: &'static str, problem: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Value { field, problem: problem.into() })
}

pub(crate) fn check(config: &NodeConfig) -> Result<(), ConfigError> {
    check_listeners(config)?;
    check_origins(&config.http.allowed_origins)?;
    check_namespaces(&config.http.namespaces)?;
    check_bucket(&config.bucket)?;
    check_store(config)?;
    check_counts(config)?;
    check_replication(config)
}

fn check_listeners(config: &NodeConfig) -> Result<(), ConfigError> {
    if config.http.listen == config.operations.listen && config.http.listen.port() != 0 {
        return refuse("operations.listen", "must differ from http.listen");
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

/// The parser of URLs accepts a `%` that no hexadecimal number follows.
fn check_percent_encoding(field: &'static str, url: &str) -> Result<(), ConfigError> {
    let encoded = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if url.split('%').skip(1).all(encoded) {
        return Ok(());
    }
    refuse(field, format!("{url:?} is not a valid URL: two hexadecimal digits must follow each '%'"))
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
    match &bucket.backend {
        BucketConfig::S3(s3) => check_s3(s3),
        BucketConfig::FileSystem(folder) => check_path("bucket.fileSystem.path", &folder.path),
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
        check_percent_encoding("bucket.s3.endpoint", endpoint)?;
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
    if let BucketConfig::FileSystem(folder) = &config.bucket.backend
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
    // The CustomResourceDefinition has the same rule.
    if comparable && target <= low {
        return refuse(
            "store.targetFree",
            format!(
                "{} must be greater than store.lowFree ({}), or each write would start an eviction",
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
