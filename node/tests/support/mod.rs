//! Nodes in this process that share a bucket in memory, and a client.
// Each test program uses a part of this.
#![allow(dead_code)]

use bytes::Bytes;
use entrepot_access::AccessControl;
use entrepot_bucket::Bucket;
use entrepot_bucket::memory::Memory;
use entrepot_config::{self as config, ByteSize, NodeConfig, PeerAddress, Peers, TagPatterns};
use entrepot_node::app::access::AccessFiles;
use entrepot_node::app::flows::{Background, Flows};
use entrepot_node::http::tls::PeerTls;
use entrepot_node::http::{Forwarding, Server, Services, router};
use entrepot_node::observe::Metrics;
use entrepot_node::observe::audit::Audit;
use entrepot_node::repository::Environment;
use entrepot_node::store::Store;
use entrepot_oci::{Algorithm, Digest, NodeName};
use entrepot_runtime::{Clock, Tasks};
use http_body_util::{BodyExt, Full};
use hyper::header::HeaderMap;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// How a test's node differs from the default.
#[derive(Clone, Default)]
pub struct Setup {
    pub read_only: bool,
    pub max_requests: Option<u32>,
    pub max_sessions: Option<u32>,
    pub immutable: Option<&'static str>,
    pub allowed_origins: &'static [&'static str],
    pub namespaces: &'static [&'static str],
    /// The value of `auth`, in YAML, and the users file that it may name as `USERS`.
    pub auth: Option<(&'static str, &'static str)>,
}

/// The addresses of all nodes of this process, by name. A node knows those that were started before it.
static STARTED: Mutex<BTreeMap<String, PeerAddress>> = Mutex::new(BTreeMap::new());

/// A node that listens on loopback.
pub struct Node {
    pub address: SocketAddr,
    pub metrics: Arc<Metrics>,
    client: Client<HttpConnector, Full<Bytes>>,
    _serving: JoinSet<usize>,
    _folder: tempfile::TempDir,
}

/// A response of a node.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The value of a header; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The first code of an error document.
    pub fn code(&self) -> String {
        self.json()["errors"][0]["code"].as_str().unwrap_or_default().to_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

pub fn memory() -> Arc<dyn Bucket> {
    Arc::new(Memory::default())
}

pub fn sha256(content: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, content)
}

impl Node {
    pub async fn start(bucket: &Arc<dyn Bucket>, setup: Setup) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let defaults = NodeConfig::default().http;
        let http = config::Http {
            max_requests: setup.max_requests.unwrap_or(defaults.max_requests),
            allowed_origins: setup.allowed_origins.iter().map(|origin| (*origin).to_owned()).collect(),
            namespaces: setup.namespaces.iter().map(|name| (*name).to_owned()).collect(),
            // Tests use any name for the registry, which a node on a loopback address would refuse.
            listen: SocketAddr::from(([0, 0, 0, 0], 0)),
            ..defaults
        };
        let services = services(bucket, folder.path(), address.port(), &setup, &metrics);
        let mut serving = JoinSet::new();
        let tls = PeerTls::load(&NodeConfig::default(), Clock::system().now()).unwrap();
        let forwarding = Forwarding { tls, answer_within: NodeConfig::default().upload.answer_within.get() };
        let server = Server::new(listener, router(services, &http, forwarding), &http);
        serving.spawn(server.serve(std::future::pending(), Duration::ZERO));
        let client = Client::builder(TokioExecutor::new()).build_http();
        Node { address, metrics, client, _serving: serving, _folder: folder }
    }

    /// Sends a request with headers and a body. `target` is a path or a `Location`.
    pub async fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let mut request = hyper::Request::builder().method(method).uri(format!("http://{}{target}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(30), self.client.request(request));
        let (head, body) = answer.await.expect("timed out").unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, &[], "").await
    }

    /// Pushes a blob with `POST` and `PUT`.
    pub async fn push_blob(&self, repository: &str, content: &'static [u8]) -> Digest {
        let digest = sha256(content);
        let opened = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], "").await;
        let target = format!("{}&digest={digest}", opened.header("location"));
        let created = self.ask("PUT", &target, &[], content).await;
        assert_eq!(created.status, 201, "{}", created.text());
        digest
    }

    /// Pushes a manifest, and returns the response.
    pub async fn push_manifest(&self, repository: &str, reference: &str, content: &str) -> Answer {
        let target = format!("/v2/{repository}/manifests/{reference}");
        self.ask("PUT", &target, &[("content-type", MANIFEST)], content.to_owned()).await
    }
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A manifest with one blob as config and layer. `extra` is further JSON members.
pub fn manifest(blob: &Digest, size: usize, extra: &str) -> String {
    let descriptor = format!(r#"{{"mediaType":"application/x","digest":"{blob}","size":{size}}}"#);
    format!(r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{descriptor},"layers":[{descriptor}]{extra}}}"#)
}

/// The nodes that were started before the one at this port, which is added to them.
fn peers(port: u16) -> BTreeMap<String, PeerAddress> {
    let mut started = STARTED.lock().unwrap();
    let before = started.clone();
    started.insert(format!("node-{port}"), format!("http://127.0.0.1:{port}").parse().unwrap());
    before
}

fn services(
    bucket: &Arc<dyn Bucket>,
    folder: &std::path::Path,
    port: u16,
    setup: &Setup,
    metrics: &Arc<Metrics>,
) -> Services {
    let defaults = NodeConfig::default();
    let hour = config::Duration::from_secs(3600);
    let immutable = setup.immutable.iter().map(|pattern| (*pattern).to_owned()).collect();
    let max_sessions = setup.max_sessions.unwrap_or(defaults.upload.max_sessions);
    let config = NodeConfig {
        node: config::Node {
            name: NodeName::parse(&format!("node-{port}")).unwrap(),
            peers: Some(Peers::Listed(peers(port))),
            ..config::Node::default()
        },
        bucket: config::Bucket {
            retry_budget: config::Duration::from_secs(1),
            request_timeout: config::Duration::from_secs(5),
            ..defaults.bucket
        },
        store: config::Store { path: folder.to_owned(), capacity: Some(ByteSize::mebibytes(256)), ..defaults.store },
        links: config::Links { fresh_for: hour, stale_if_error: hour },
        tags: config::Tags { immutable: TagPatterns::new(immutable).unwrap(), ..defaults.tags },
        upload: config::Upload { max_sessions, ..defaults.upload },
        read_only: setup.read_only,
        auth: setup.auth.map(|setup| auth(folder, setup)),
        ..defaults
    };
    let clock = Clock::system();
    let store = Store::open(&config.store, clock.clone(), metrics.clone()).unwrap();
    let env = Environment::new(Arc::new(config), bucket.clone(), store, clock, Tasks::new(), metrics.clone());
    let background = Background::on(tokio::runtime::Handle::current()).unwrap();
    let access = AccessControl::default();
    let audit =
        Arc::new(Audit::new("a".into(), config::Audit::default(), env.clock.clone(), Box::new(std::io::sink())));
    AccessFiles::start(&env.config, access.clone(), env.clock.clone(), audit.clone(), metrics.registry()).unwrap();
    Flows::wire(&env, &background).unwrap().services(&env, access, audit)
}

/// Access control with a users file in the folder of the node.
fn auth(folder: &std::path::Path, (auth, users): (&str, &str)) -> config::Auth {
    let file = folder.join("htpasswd");
    std::fs::write(&file, users).unwrap();
    let indented = auth.replace("USERS", file.to_str().unwrap()).replace('\n', "\n  ");
    NodeConfig::from_yaml(&format!("auth:\n  {indented}")).unwrap().auth.unwrap()
}
