//! Asks clients to leave a node that drains.

use axum::Router;
use axum::extract::Request;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Version};
use axum::middleware::{Next, from_fn};
use axum::response::Response;

/// The router with `Connection: close` in its responses over HTTP/1 while the node drains.
///
/// A load balancer sends new connections to other nodes, but a client keeps those that it has. It
/// would begin upload sessions at this node until the listener closes, and finish them at a node
/// that cannot reach this one any more. HTTP/2 has no such header.
pub fn asking_to_leave(router: Router, draining: impl Fn() -> bool + Clone + Send + Sync + 'static) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let draining = draining.clone();
        async move {
            let keeps = request.version() < Version::HTTP_2;
            let mut response: Response = next.run(request).await;
            if keeps && draining() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_connection_is_kept_until_the_node_drains() {
        let draining = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&draining);
        let router = asking_to_leave(Router::new(), move || seen.load(Ordering::SeqCst));
        let connection = async |version| {
            let request = Request::builder().version(version).uri("/").body(Body::empty()).unwrap();
            router.clone().oneshot(request).await.unwrap().headers().get(CONNECTION).cloned()
        };
        assert_eq!(connection(Version::HTTP_11).await, None);
        draining.store(true, Ordering::SeqCst);
        assert_eq!(connection(Version::HTTP_11).await, Some(HeaderValue::from_static("close")));
        assert_eq!(connection(Version::HTTP_2).await, None);
    }
}
