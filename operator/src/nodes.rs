//! Asks nodes for their `/status`.

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

/// A node asks its bucket, and gives up before this.
const PATIENCE: Duration = Duration::from_secs(8);

/// A status has a few hundred bytes; whatever is longer is not one.
const LONGEST: usize = 64 << 10;

/// Speaks to nodes.
#[derive(Clone)]
pub struct Nodes {
    client: Client<HttpConnector, Empty<Bytes>>,
    metrics: Arc<Metrics>,
}

impl Nodes {
    pub fn new(metrics: Arc<Metrics>) -> Nodes {
        // Nodes come and go, and are asked rarely: a connection that is kept would mostly be a broken one.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        Nodes { client, metrics }
    }

    /// What the ready ones among the pods say of themselves, in no order.
    pub async fn ask<'a>(&self, pods: impl IntoIterator<Item = &'a Pod>) -> Vec<NodeStatus> {
        let ready = pods.into_iter().filter(|pod| is_ready(pod));
        let addresses = ready.filter_map(|pod| pod.status.as_ref()?.pod_ip.as_deref()?.parse::<IpAddr>().ok());
        join_all(addresses.map(|address| self.ask_one(address))).await.into_iter().flatten().collect()
    }

    async fn ask_one(&self, address: IpAddr) -> Option<NodeStatus> {
        let host = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        match tokio::time::timeout(PATIENCE, self.fetch(&format!("http://{host}:{OPERATIONS_PORT}/status"))).await {
            Ok(Ok(status)) => Some(status),
            Ok(Err(error)) => self.unanswered(&host, &error),
            Err(_) => self.unanswered(&host, "no answer in time"),
        }
    }

    fn unanswered(&self, host: &str, why: &str) -> Option<NodeStatus> {
        self.metrics.unanswered.inc();
        tracing::debug!(node = host, why, "a node did not tell its status");
        None
    }

    async fn fetch(&self, url: &str) -> Result<NodeStatus, String> {
        let target = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let answer = self.client.get(target).await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await.map_err(|error| error.to_string())?;
        if status != 200 {
            return Err(format!("status {status}"));
        }
        serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string())
    }
}
