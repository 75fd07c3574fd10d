//! What is compared: Entrepot and its peers, all over one bucket of one S3 server.

use super::steps::Urls;
use crate::node::Plan;
use crate::proxy::{Line, Proxy, Traffic};
use crate::push::Image;
use crate::s3::{self, BUCKET, S3};
use crate::servers::{Distribution, Driver, Nginx, Versitygw};
use crate::usage;
use crate::{Node, Registry};
use anyhow::{Context, Result, ensure};
use aws_sdk_s3::presigning::PresigningConfig;
use entrepot_node::oci::Digest;
use http::Method;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How clients reach content.
pub enum Speaks {
    /// As at a registry.
    Registry,
    /// By the keys of the bucket, signed for this endpoint.
    S3(S3),
}

/// One of those that are compared.
pub struct System {
    pub name: &'static str,
    pub registry: Registry,
    speaks: Speaks,
    processes: Vec<u32>,
}

impl System {
    pub fn new(name: &'static str, url: &str, speaks: Speaks, processes: Vec<u32>) -> System {
        System { name, registry: Registry::new(url), speaks, processes }
    }

    /// Where a client finds the image.
    ///
    /// # Errors
    /// When a URL cannot be signed.
    pub async fn urls(&self, repository: &str, tag: &str, image: &Image) -> Result<Urls> {
        let mut blobs = Vec::new();
        for blob in image.blobs() {
            let url = match &self.speaks {
                Speaks::Registry => format!("/v2/{repository}/blobs/{}", blob.digest),
                Speaks::S3(s3) => self.signed(s3, &blob.digest).await?,
            };
            blobs.push((url, blob.size));
        }
        let manifest = match &self.speaks {
            Speaks::Registry => format!("/v2/{repository}/manifests/{tag}"),
            Speaks::S3(s3) => self.signed(s3, &image.digest).await?,
        };
        Ok(Urls { manifest, blobs })
    }

    async fn signed(&self, s3: &S3, digest: &Digest) -> Result<String> {
        let hex = digest.hex();
        let key = format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        let presigning = PresigningConfig::expires_in(Duration::from_secs(3600))?;
        let request = s3.client().get_object().bucket(BUCKET).key(key).presigned(presigning).await?;
        let path = request.uri().strip_prefix(s3.endpoint.as_str()).context("a URL of the endpoint")?;
        Ok(path.to_owned())
    }

    /// Seconds of processor time that it has used so far.
    ///
    /// # Errors
    /// When it ended.
    pub fn processor(&self) -> Result<f64> {
        self.processes.iter().map(|process| usage::processor(*process)).sum()
    }

    /// # Errors
    /// When it ended.
    pub fn forget_peak(&self) -> Result<()> {
        self.processes.iter().try_for_each(|process| usage::forget_peak(*process))
    }

    /// The most bytes of memory that it had since [`System::forget_peak`].
    ///
    /// # Errors
    /// When it ended.
    pub fn peak_memory(&self) -> Result<u64> {
        self.processes.iter().map(|process| usage::peak_memory(*process)).sum()
    }
}

/// Requests as Amazon charges them: those that write or list, and all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    pub writes: u64,
    pub reads: u64,
}

/// All of them, and the S3 server behind them. They end with their value.
pub struct Fleet {
    /// Entrepot, CNCF Distribution, its pull-through cache, nginx's, and the S3 server itself.
    pub systems: Vec<System>,
    /// Another node of Entrepot: what it pushes none of the systems has stored.
    pub pusher: Node,
    proxy: Option<Proxy>,
    node: Node,
    _distributions: Vec<Distribution>,
    _nginx: Nginx,
    server: Versitygw,
    _folders: [TempDir; 3],
}

impl Fleet {
    /// All at the server itself, or over a proxy with that line: what it costs is then in what is measured, alike for
    /// each.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn start(line: Option<Line>) -> Result<Fleet> {
        let [keys, mirrored, cached] = [TempDir::new()?, TempDir::new()?, TempDir::new()?];
        let server = Versitygw::start().await?;
        let pusher = Plan::over(s3::node_bucket(&server.s3.endpoint, keys.path())?).start().await?;
        let proxy = match line {
            Some(line) => Some(Proxy::over(&server.s3.endpoint, line).await?),
            None => None,
        };
        let endpoint = proxy.as_ref().map_or(server.s3.endpoint.as_str(), |proxy| proxy.url.as_str());
        let s3 = S3::new(endpoint);
        let node = Plan::over(s3::node_bucket(endpoint, keys.path())?).start().await?;
        let distribution = Distribution::with_cache(Driver::S3(&s3)).await?;
        let mirror = Distribution::mirror_of(distribution.registry.url(), mirrored.path()).await?;
        let nginx = Nginx::caching(endpoint, cached.path()).await?;
        let workers = nginx.workers()?;
        let systems = vec![
            System::new(ENTREPOT, node.registry.url(), Speaks::Registry, vec![node.id()]),
            System::new(DISTRIBUTION, distribution.registry.url(), Speaks::Registry, vec![distribution.id()]),
            // Behind it stands a Distribution, whose work is part of its own.
            System::new(MIRROR, mirror.registry.url(), Speaks::Registry, vec![mirror.id(), distribution.id()]),
            System::new(NGINX, &nginx.url, Speaks::S3(s3.clone()), workers),
            System::new(S3_SERVER, endpoint, Speaks::S3(s3), vec![server.id()]),
        ];
        Ok(Fleet {
            systems,
            pusher,
            proxy,
            node,
            _distributions: vec![distribution, mirror],
            _nginx: nginx,
            server,
            _folders: [keys, mirrored, cached],
        })
    }

    /// The bucket, past any proxy.
    pub fn s3(&self) -> &S3 {
        &self.server.s3
    }

    /// Stops the node of Entrepot and starts it again: how long that took in seconds, and its memory in bytes.
    ///
    /// # Errors
    /// When it does not stop in order or does not start.
    pub async fn restart_entrepot(&mut self) -> Result<(f64, u64)> {
        ensure!(self.node.stop().await?.success(), "the node did not stop in order");
        let start = Instant::now();
        self.node.start_again().await?;
        let took = start.elapsed().as_secs_f64();
        self.systems[0] = System::new(ENTREPOT, self.node.registry.url(), Speaks::Registry, vec![self.node.id()]);
        Ok((took, self.node.memory()?))
    }

    /// # Errors
    /// When there is none of that name.
    pub fn system(&self, name: &str) -> Result<&System> {
        self.systems.iter().find(|system| system.name == name).with_context(|| name.to_owned())
    }

    /// Requests to S3 by what they are charged as, and bytes, since the last call; nothing without a proxy.
    pub fn take_cost(&self) -> (Kinds, Traffic) {
        let mut kinds = Kinds::default();
        for seen in self.proxy.as_ref().map(Proxy::take_seen).unwrap_or_default() {
            let lists = seen.target.contains("list-type=") || seen.target.contains("?uploads");
            match seen.method {
                Method::PUT | Method::POST => kinds.writes += 1,
                Method::GET if lists => kinds.writes += 1,
                // Deletions are free.
                Method::DELETE => {}
                _ => kinds.reads += 1,
            }
        }
        (kinds, self.take_traffic())
    }

    /// What went to and from S3 since the last call; nothing without a proxy.
    pub fn take_traffic(&self) -> Traffic {
        self.proxy.as_ref().map(Proxy::take_traffic).unwrap_or_default()
    }
}

pub const ENTREPOT: &str = "Entrepot";
pub const DISTRIBUTION: &str = "Distribution";
pub const MIRROR: &str = "Distribution, pull-through";
pub const NGINX: &str = "nginx proxy_cache";
pub const S3_SERVER: &str = "S3 itself";
