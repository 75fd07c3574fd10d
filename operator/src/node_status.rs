//! Reads the `/status` of nodes over HTTP.

use crate::metrics::Metrics;
use crate::names::OPERATIONS_PORT;
use crate::reconcile::rollout::is_ready;
use entrepot_config::NodeStatus;
use futures::future::join_all;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::core::v1::Pod;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Timeout of one status request. A node queries its bucket for it and gives up earlier than this.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);

/// Size limit of a status response, which normally has a few hundred bytes.
const MAX_STATUS_SIZE: usize = 64 << 10;

/// The HTTP client for the nodes' operations port.
#[derive(Clone)]
pub struct NodeStatusClient {
    client: Client<HttpConnector, Empty<Bytes>>,
    metrics: Arc<Metrics>,
}

impl NodeStatusClient {
    pub fn new(metrics: Arc<Metrics>) -> NodeStatusClient {
        // Nodes restart and are queried rarely, so a kept connection would mostly be a broken one.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        NodeStatusClient { client, metrics }
    }

    /// The status of every ready pod that responds, in no particular order.
    pub async fn read_all<'a>(&self, pods: impl IntoIterator<Item = &'a Pod>) -> Vec<NodeStatus> {
        let ready = pods.into_iter().filter(|pod| is_ready(pod));
        let addresses = ready.filter_map(|pod| pod.status.as_ref()?.pod_ip.as_deref()?.parse::<IpAddr>().ok());
        join_all(addresses.map(|address| self.read_one(address))).await.into_iter().flatten().collect()
    }

    async fn read_one(&self, address: IpAddr) -> Option<NodeStatus> {
        let host = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, self.fetch(&format!("http://{host}:{OPERATIONS_PORT}/status")))
            .await
        {
            Ok(Ok(status)) => Some(status),
            Ok(Err(error)) => self.count_failure(&host, &error),
            Err(_) => self.count_failure(&host, "no response in time"),
        }
    }

    fn count_failure(&self, host: &str, why: &str) -> Option<NodeStatus> {
        self.metrics.status_failures.inc();
        tracing::debug!(node = host, why, "failed to read the status of a registry pod");
        None
    }

    async fn fetch(&self, url: &str) -> Result<NodeStatus, String> {
        let target = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let response = self.client.get(target).await.map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body =
            Limited::new(response.into_body(), MAX_STATUS_SIZE).collect().await.map_err(|error| error.to_string())?;
        if status != 200 {
            return Err(format!("status {status}"));
        }
        serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string())
    }
}
