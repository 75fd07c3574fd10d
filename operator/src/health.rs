//! The operator's listener: `/livez`, `/readyz`, `/metrics`.
#![allow(clippy::disallowed_types)] // The operator's only status codes are here.

use crate::lists::Lists;
use crate::metrics::Metrics;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The content type of Prometheus' text format.
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Whether the API server was reached; false at first. Clones share the value.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }
}

/// Serves probes and metrics. A replica that is not the leader is ready as well: it is on standby
/// and lists nothing.
pub fn router(metrics: Arc<Metrics>, readiness: Readiness, lists: Lists) -> Router {
    Router::new()
        .route("/livez", get("alive\n"))
        .route("/readyz", get(ready).with_state((readiness, lists.clone())))
        .route("/metrics", get(scrape).with_state((metrics, lists)))
}

async fn ready(State((readiness, lists)): State<(Readiness, Lists)>) -> (StatusCode, String) {
    if !readiness.0.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "not ready: the API server has not been reached yet\n".into());
    }
    let problems: Vec<_> = lists.problems().into_iter().filter_map(|(_, problem)| problem).collect();
    if problems.is_empty() {
        (StatusCode::OK, "ready\n".into())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", problems.join("; ")))
    }
}

async fn scrape(State((metrics, lists)): State<(Arc<Metrics>, Lists)>) -> Response {
    for (kind, problem) in lists.problems() {
        metrics.lists_failing.with_label_values(&[kind]).set(i64::from(problem.is_some()));
    }
    match metrics.text() {
        Ok(text) => ([(CONTENT_TYPE, METRICS)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot encode metrics");
            (StatusCode::INTERNAL_SERVER_ERROR, "cannot encode metrics\n").into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use k8s_openapi::api::core::v1::Pod;
    use kube::runtime::watcher;
    use tower::ServiceExt;

    async fn ask(router: &Router, path: &str) -> (u16, String) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let (head, body) = router.clone().oneshot(request).await.unwrap().into_parts();
        (head.status.as_u16(), String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn it_is_alive_at_once_and_ready_later_and_serves_its_metrics() {
        let metrics = Arc::new(Metrics::new().unwrap());
        metrics.leader.set(1);
        let readiness = Readiness::default();
        let router = router(metrics, readiness.clone(), Lists::default());
        assert_eq!((ask(&router, "/livez").await.0, ask(&router, "/readyz").await.0), (200, 503));
        readiness.set(true);
        assert_eq!(ask(&router, "/readyz").await.0, 200);
        assert!(ask(&router, "/metrics").await.1.contains("entrepot_operator_leader 1"));
    }

    #[tokio::test]
    async fn a_leader_that_cannot_list_is_not_ready_and_names_the_kind() {
        let (readiness, lists) = (Readiness::default(), Lists::default());
        readiness.set(true);
        let router = router(Arc::new(Metrics::new().unwrap()), readiness, lists.clone());
        lists.expect("RegistryCluster");
        let error = watcher::Error::InitialListFailed(kube::Error::LinesCodecMaxLineLengthExceeded);
        lists.record::<Pod>("RegistryCluster", &Err(error));
        let (code, text) = ask(&router, "/readyz").await;
        assert!(code == 503 && text.contains("cannot list RegistryCluster"), "{code} {text}");
        let failing = |value: u8| format!("entrepot_operator_lists_failing{{kind=\"RegistryCluster\"}} {value}");
        assert!(ask(&router, "/metrics").await.1.contains(&failing(1)));
        lists.record::<Pod>("RegistryCluster", &Ok(watcher::Event::InitDone));
        assert_eq!(ask(&router, "/readyz").await.0, 200);
        assert!(ask(&router, "/metrics").await.1.contains(&failing(0)));
    }
}
