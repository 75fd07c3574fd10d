//! Checks of a configuration that the types of its fields do not express. Every error names the
//! field.

use crate::field::{check_path, check_url, refuse};
use crate::node::is_number;
use crate::{
    Bucket, BucketConfig, ClientCertificates, ConfigError, Node, NodeConfig, NodeName, Peers, S3, Threshold, Tls,
};
use std::time::Duration;

/// The shortest `store.scrub.period`. A shorter round would read the disk all the time.
const SHORTEST_SCRUB: Duration = Duration::from_secs(3600);

pub(crate) fn check(config: &NodeConfig) -> Result<(), ConfigError> {
    check_listeners(config)?;
    check_peers(&config.node)?;
    if let Some(tls) = &config.http.tls {
        check_tls(tls)?;
    }
    check_origins(&config.http.allowed_origins)?;
    check_namespaces(&config.http.namespaces)?;
    check_bucket(&config.bucket)?;
    check_store(config)?;
    check_counts(config)?;
    crate::auth::check(config)?;
    check_replication(config)
}

fn check_listeners(config: &NodeConfig) -> Result<(), ConfigError> {
    if config.http.listen == config.operations.listen && config.http.listen.port() != 0 {
        return refuse("operations.listen", "must differ from http.listen");
    }
    Ok(())
}

fn check_peers(node: &Node) -> Result<(), ConfigError> {
    if node.peer_url.is_some() && node.peers.is_some() {
        return refuse("node.peers", "must not be set together with node.peerUrl; remove one of them");
    }
    let why = "must not be a number, which the resolver would take for an address; it needs a letter, as in node-1";
    if let Some(Peers::Listed(listed)) = &node.peers {
        for name in listed.keys() {
            match NodeName::parse(name) {
                Err(error) => return refuse("node.peers", error.to_string()),
                Ok(name) if is_number(&name) => return refuse("node.peers", format!("{name} {why}")),
                Ok(_) => {}
            }
        }
    }
    // Other nodes would never forward a request to it.
    if (node.peer_url.is_some() || node.peers.is_some()) && is_number(&node.name) {
        return refuse("node.name", format!("{} {why}", node.name));
    }
    if node.peer_ca_file.is_some() && !node.has_https_peers() {
        return refuse("node.peerCaFile", "has no effect, because no URL in node.peerUrl or node.peers is https");
    }
    Ok(())
}

fn check_tls(tls: &Tls) -> Result<(), ConfigError> {
    check_path("http.tls.certFile", &tls.cert_file)?;
    check_path("http.tls.keyFile", &tls.key_file)?;
    if tls.client_ca_file.is_none() && tls.client_certificates == ClientCertificates::Required {
        return refuse("http.tls.clientCertificates", "requires http.tls.clientCaFile when it is Required");
    }
    if tls.max_connection_age.get().is_zero() {
        return refuse("http.tls.maxConnectionAge", "must be greater than zero");
    }
    Ok(())
}

/// The endpoint is printed at the start and appears in error messages. The messages of this check do
/// not repeat it.
fn check_no_secrets(field: &'static str, url: &str) -> Result<(), ConfigError> {
    if url.contains('@') {
        return refuse(
            field,
            "must not contain '@': put the credentials into the files of bucket.s3.credentials, and write '@' in a path as %40",
        );
    }
    if url.contains(['?', '#']) {
        return refuse(field, "must not have a query or a fragment; remove '?' or '#' and what follows");
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
        check_no_secrets("bucket.s3.endpoint", endpoint)?;
        check_url("bucket.s3.endpoint", endpoint, &["http", "https"])?;
        check_percent_encoding("bucket.s3.endpoint", endpoint)?;
        check_endpoint_secrets(s3, endpoint)?;
    }
    if let Some(credentials) = &s3.credentials {
        check_path("bucket.s3.credentials.accessKeyIdFile", &credentials.access_key_id_file)?;
        check_path("bucket.s3.credentials.secretAccessKeyFile", &credentials.secret_access_key_file)?;
    }
    Ok(())
}

/// A session token is sent as it is, so everybody on the way would read it over plain HTTP. Other
/// credentials only sign requests.
fn check_endpoint_secrets(s3: &S3, endpoint: &str) -> Result<(), ConfigError> {
    let parsed = endpoint.parse::<http::Uri>().unwrap_or_default();
    if parsed.scheme() != Some(&http::uri::Scheme::HTTP) || parsed.host().is_some_and(is_this_machine) {
        return Ok(());
    }
    if s3.credentials.as_ref().is_some_and(|credentials| credentials.session_token_file.is_some()) {
        let problem = "requires an https:// endpoint, because a session token is sent as it is";
        return refuse("bucket.s3.credentials.sessionTokenFile", problem);
    }
    Ok(())
}

/// Whether connections to this host stay on this machine (RFC 6761, section 6.3, for `localhost`).
fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
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
        ("upload.maxReferences", config.upload.max_references),
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
