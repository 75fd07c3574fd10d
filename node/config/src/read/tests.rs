use super::*;
use crate::{Bucket, BucketConfig, FileSystem, S3};
use proptest::prelude::*;

fn read(text: &str) -> Result<NodeConfig, ConfigError> {
    NodeConfig::from_yaml(text)
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
fn former_names_of_fields_are_read_and_never_written() {
    let old = "node: {peers: 'http://{node}.x'}\nhttp: {operations: 127.0.0.1:7}";
    let new = "node: {peerUrl: 'http://{node}.x'}\noperations: {listen: 127.0.0.1:7}";
    assert_eq!(read(old).unwrap(), read(new).unwrap());
    let written = read(old).unwrap().to_yaml().unwrap();
    assert!(written.contains("peers: null") && !written.contains("operations: 127"), "{written}");
}

#[test]
fn the_bucket_is_s3_or_a_directory() {
    let backend = |text: &str| read(text).unwrap().bucket.backend;
    let s3 = BucketConfig::S3(S3 { name: "images".into(), ..S3::default() });
    assert_eq!(backend("bucket: {s3: {name: images}}"), s3);
    assert_eq!(backend("bucket: {s3: {name: images}, fileSystem: null}"), s3);
    assert_eq!(backend("bucket: {fileSystem: {path: x}}"), BucketConfig::FileSystem(FileSystem { path: "x".into() }));
    assert_eq!(backend("bucket: {prefix: x/}"), BucketConfig::default());
    let written = NodeConfig { bucket: Bucket::of(s3), ..NodeConfig::default() };
    assert_eq!(read(&written.to_yaml().unwrap()).unwrap(), written);
}

#[test]
fn the_node_name_comes_from_the_environment() {
    // Cargo sets this variable for every test.
    let named = read("node: {name: '${CARGO_PKG_NAME}'}").unwrap();
    assert_eq!(named.node.name.as_str(), env!("CARGO_PKG_NAME"));
    assert!(refusal("node: {name: '${NOPE}'}").contains("NOPE is not set"));
    assert!(refusal("node: {name: '${NOPE'}").starts_with("node.name: "));
}

#[test]
fn access_control_is_refused_whole_with_the_path_of_the_wrong_field() {
    for (text, path) in [
        ("auth: {tokens: {notBefore: yesterday}}", "auth.tokens.notBefore"),
        ("auth: {tokens: {notBefore: 2026-11-01}}", "auth.tokens.notBefore"),
        ("auth: {tokens: {lifetime: 59s}}", "auth.tokens.lifetime"),
        ("auth: {tokens: {lifetime: 25h}}", "auth.tokens.lifetime"),
        ("auth: {tokens: {keyFile: ''}}", "auth.tokens.keyFile"),
        ("auth: {service: r}\nnode: {peerUrl: 'http://{node}.x'}", "auth.tokens.keyFile"),
        ("auth: {users: {}}", "auth.users.file"),
        ("auth: {groups: {sre: ['']}}", "auth.groups"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.starts_with(&format!("{path}: ")), "{refusal}");
    }
    let valid = "auth: {service: r, tokens: {keyFile: k, notBefore: 2026-11-01T00:00:00Z}, users: {file: u}}\n\
                 node: {peerUrl: 'http://{node}.x'}";
    let config = read(valid).unwrap();
    let auth = config.auth.clone().unwrap();
    assert_eq!(auth.tokens.not_before.unwrap().milliseconds(), 1_793_491_200_000);
    assert_eq!(read(&config.to_yaml().unwrap()).unwrap(), config);
    assert!(read("auth: {}").is_ok() && read("auth: {tokens: {lifetime: 60s}}").is_ok());
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
        ("store: {lowFree: 20%, targetFree: 20%}", "store.targetFree"),
        ("store: {capacity: 0}", "store.capacity"),
        ("store: {scrub: {period: 59m}}", "store.scrub.period"),
        ("store: {lowFree: 1Gi, targetFree: 2Gi, capacity: 1Gi}", "store.targetFree"),
        ("bucket: {fileSystem: null}", "bucket"),
        ("bucket: {s3: {name: images}, fileSystem: {path: /x}}", "bucket"),
        // Also next to the directory that is the default.
        ("bucket: {s3: {name: images}, fileSystem: {path: entrepot-data/bucket}}", "bucket"),
        ("bucket: {s3: {name: ''}}", "bucket.s3.name"),
        ("bucket: {s3: {name: images, endpoint: 'http://s3/%zz'}}", "bucket.s3.endpoint"),
        ("bucket: {s3: {name: images, endpoint: 'ftp://x'}}", "bucket.s3.endpoint"),
        ("bucket: {s3: {name: images, endpoint: 'https://user:password@s3:7070'}}", "bucket.s3.endpoint"),
        ("bucket: {prefix: /a}", "bucket.prefix"),
        ("bucket: {prefix: ../}", "bucket.prefix"),
        ("bucket: {fileSystem: {path: data}}\nstore: {path: data/store}", "store.path"),
        ("node: {name: A.b}", "node.name"),
        ("node: {peerUrl: 'http://x'}", "node.peerUrl"),
        ("node: {peerUrl: 'http://{node}.x:5000/path?q#z'}", "node.peerUrl"),
        ("node: {peerUrl: 'http://{node}:5000'}", "node.peerUrl"),
        ("node: {peers: 'http://{node}:5000'}", "node.peers"),
        ("node: {peers: [a]}", "node.peers"),
        ("node: {peers: {b: 'ftp://b'}}", "node.peers.b"),
        ("node: {peers: {B.c: 'http://b'}}", "node.peers"),
        ("node: {peers: {'7': 'http://b'}}", "node.peers"),
        ("node: {name: '7', peers: {b: 'http://b'}}", "node.name"),
        ("node: {peerUrl: 'http://{node}.x', peers: {b: 'http://b'}}", "node.peers"),
        ("node: {peerUrl: 'http://{node}.x', peers: 'http://{node}.x'}", "node.peers"),
        ("node: {peerCaFile: ca.crt, peers: {b: 'http://b'}}", "node.peerCaFile"),
        ("http: {tls: {keyFile: tls.key}}", "http.tls.certFile"),
        ("http: {tls: {certFile: tls.crt}}", "http.tls.keyFile"),
        ("http: {tls: {certFile: a, keyFile: b, clientCertificates: Required}}", "http.tls.clientCertificates"),
        ("http: {tls: {certFile: a, keyFile: b, maxConnectionAge: 0s}}", "http.tls.maxConnectionAge"),
        ("operations: {listen: 127.0.0.1:5000}", "operations.listen"),
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
fn listed_peers_are_read_and_written() {
    let config = read("node: {peers: {b: 'https://10.0.0.7:5000'}, peerCaFile: ca.crt}").unwrap();
    let b = config.node.peer(&crate::NodeName::parse("b").unwrap()).unwrap();
    assert_eq!(b.to_string(), "https://10.0.0.7:5000");
    assert_eq!(config.node.peer(&crate::NodeName::parse("c").unwrap()), None);
    assert_eq!(read(&config.to_yaml().unwrap()).unwrap(), config);
}

#[test]
fn plain_http_to_another_machine_never_carries_a_session_token() {
    let s3 = |endpoint: &str, more: &str| format!("bucket: {{s3: {{name: images, endpoint: '{endpoint}'{more}}}}}");
    let token = ", credentials: {accessKeyIdFile: a, secretAccessKeyFile: b, sessionTokenFile: c}";
    for other in
        ["http://s3.storage:7070", "http://10.0.0.1", "HTTP://s3", "http://localhost.example", "http://[::2]:1"]
    {
        assert!(read(&s3(other, "")).is_ok());
        let refused = refusal(&s3(other, token));
        assert!(refused.starts_with("bucket.s3.credentials.sessionTokenFile: "), "{other}: {refused}");
    }
    for own in ["http://127.0.0.1:9000", "http://127.1.2.3", "http://[::1]:9000", "http://LocalHost:9000", "https://s3"]
    {
        assert!(read(&s3(own, token)).is_ok(), "{own}");
    }
}

#[test]
fn origins_are_accepted_as_browsers_send_them() {
    let text = "http: {allowedOrigins: ['*', 'https://ui.example.com', 'http://localhost:8080', 'http://[::1]:80801']}";
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
