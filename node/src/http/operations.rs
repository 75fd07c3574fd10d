//! The second listener: `/livez`, `/readyz`, `/metrics` and `/status`. It does not limit requests,
//! so that an overloaded node can still be monitored.

use crate::observe::Metrics;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use entrepot_config::NodeStatus;
use futures::future::BoxFuture;
use std::sync::Arc;

/// The text format of Prometheus.
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// What a node reports about itself.
pub trait NodeHealth: Send + Sync + 'static {
    /// Whether load balancers may send requests to this node. False while it starts and stops.
    fn is_ready(&self) -> bool;

    /// Whether the node can write to its store; otherwise the reason, as text.
    fn store(&self) -> BoxFuture<'_, Result<(), String>>;

    /// The status for the operator and for people.
    fn status(&self) -> BoxFuture<'_, NodeStatus>;
}

/// Serves probes and scrapes.
pub fn router(metrics: Arc<Metrics>, node: Arc<dyn NodeHealth>) -> Router {
    Router::new()
        .route("/status", get(status).with_state(Arc::clone(&node)))
        .route("/livez", get("alive\n"))
        .route("/readyz", get(ready).with_state(node))
        .route("/metrics", get(scrape).with_state(metrics))
        .method_not_allowed_fallback(async || {
            (StatusCode::METHOD_NOT_ALLOWED, "method not allowed; allowed methods: GET, HEAD\n")
        })
        .fallback(async || {
            (StatusCode::NOT_FOUND, "no such endpoint; this listener serves /livez, /readyz, /metrics and /status\n")
        })
}

/// Readiness depends on the store, because a node that cannot write to it accepts no pushes. It
/// does not depend on the bucket, because without it a node still serves the content of its store.
async fn ready(State(node): State<Arc<dyn NodeHealth>>) -> Response {
    if !node.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "not ready: the node is starting or shutting down\n").into_response();
    }
    match node.store().await {
        Ok(()) => "ready\n".into_response(),
        Err(why) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: cannot write to the store: {why}\n")).into_response()
        }
    }
}

/// The node's status in JSON.
async fn status(State(node): State<Arc<dyn NodeHealth>>) -> Response {
    match serde_json::to_string_pretty(&node.status().await) {
        Ok(text) => ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], text + "\n").into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot encode the status");
            (StatusCode::INTERNAL_SERVER_ERROR, "cannot encode the status\n").into_response()
        }
    }
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, METRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot encode the metrics");
            (StatusCode::INTERNAL_SERVER_ERROR, "cannot encode the metrics\n").into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::access::AccessFiles;
    use crate::app::bucket_health::BucketHealth;
    use crate::app::live::LiveConfig;
    use crate::app::probes::Probes;
    use crate::app::shutdown::Readiness;
    use crate::app::status::Reporter;
    use crate::app::store_health::StoreHealth;
    use crate::app::tls::LiveTls;
    use crate::observe::audit::Audit;
    use crate::store::Store;
    use axum::body::Body;
    use axum::http::{Method, Request};
    use entrepot_access::AccessControl;
    use entrepot_bucket::Memory;
    use entrepot_runtime::Clock;
    use http_body_util::BodyExt;
    use std::path::Path;
    use tower::ServiceExt;

    fn operations(readiness: &Readiness) -> Router {
        operations_of(readiness, tempfile::tempdir().unwrap().path())
    }

    fn operations_of(readiness: &Readiness, disk: &Path) -> Router {
        let metrics = Arc::new(Metrics::new().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let config = entrepot_config::NodeConfig::default();
        let store = entrepot_config::Store { path: folder.path().to_owned(), ..config.store.clone() };
        let store = Store::open(&store, Clock::system(), metrics.clone()).unwrap();
        let audit = Audit::new("a".into(), config.audit.clone(), Clock::system(), Box::new(std::io::sink()));
        let audit = Arc::new(audit);
        let access =
            AccessFiles::start(&config, AccessControl::default(), Clock::system(), audit.clone(), metrics.registry())
                .unwrap();
        let reporter = Reporter {
            node: "images-0".into(),
            health: BucketHealth::new(Arc::new(Memory::default()), &crate::repository::Layout::new("")),
            tls: LiveTls::load(&config, Clock::system(), metrics.registry()).unwrap(),
            live: LiveConfig::new(Arc::new(config), store.clone(), access.clone(), audit, metrics.registry()).unwrap(),
            access,
            store,
            metrics: metrics.clone(),
        };
        let probes = Probes { readiness: readiness.clone(), store: StoreHealth::new(disk), reporter };
        router(metrics, Arc::new(probes))
    }

    #[tokio::test]
    async fn a_node_reports_its_status() {
        let answer = ask(&operations(&Readiness::default()), Method::GET, "/status").await;
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        let status: entrepot_config::NodeStatus = serde_json::from_slice(&text).unwrap();
        assert_eq!((status.node.as_str(), status.bucket.state), ("images-0", entrepot_config::BucketState::Reachable));
        assert!(status.store.capacity > 0);
    }

    async fn ask(router: &Router, method: Method, path: &str) -> Response {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn a_node_is_always_alive_and_ready_only_between_start_and_stop() {
        let (readiness, disk) = (Readiness::default(), tempfile::tempdir().unwrap());
        let operations = operations_of(&readiness, disk.path());
        for (is_ready, expected) in [(false, 503), (true, 200), (false, 503)] {
            readiness.set(is_ready);
            assert_eq!(ask(&operations, Method::GET, "/livez").await.status(), 200);
            assert_eq!(ask(&operations, Method::GET, "/readyz").await.status(), expected);
            assert_eq!(ask(&operations, Method::HEAD, "/readyz").await.status(), expected);
        }
    }

    #[tokio::test]
    async fn a_node_that_cannot_write_to_its_store_is_alive_but_not_ready() {
        let readiness = Readiness::default();
        readiness.set(true);
        let operations = operations_of(&readiness, Path::new("/proc/entrepot"));
        assert_eq!(ask(&operations, Method::GET, "/livez").await.status(), 200);
        let answer = ask(&operations, Method::GET, "/readyz").await;
        assert_eq!(answer.status(), 503);
        let said = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(said.starts_with(b"not ready: cannot write to the store: "), "{said:?}");
    }

    #[tokio::test]
    async fn only_the_four_paths_exist_and_they_are_read_only() {
        let operations = operations(&Readiness::default());
        assert_eq!(ask(&operations, Method::GET, "/").await.status(), 404);
        let refused = ask(&operations, Method::POST, "/livez").await;
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["allow"]),
            (405, &HeaderValue::from_static("GET,HEAD"))
        );
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn the_metrics_include_the_process() {
        let answer = ask(&operations(&Readiness::default()), Method::GET, "/metrics").await;
        assert_eq!(answer.headers()[CONTENT_TYPE], METRICS);
        let text = String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
        assert!(text.contains("process_resident_memory_bytes") && text.contains("entrepot_store_free_bytes"), "{text}");
    }
}
