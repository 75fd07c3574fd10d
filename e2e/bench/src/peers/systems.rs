//! The systems that are compared: Entrepot and its peers, all over one bucket of one S3 server.

use super::image_transfer::Urls;
use crate::download::Downloads;
use anyhow::{Context, Result, ensure};
use entrepot_e2e::node::Plan;
use entrepot_e2e::proxy::{Line, Proxy, Traffic};
use entrepot_e2e::push::Image;
use entrepot_e2e::s3::{self, S3};
use entrepot_e2e::servers::{Distribution, Driver, Nginx, Versitygw};
use entrepot_e2e::usage;
use entrepot_e2e::{Node, Registry};
use http::Method;
use std::time::Instant;
use tempfile::TempDir;

/// How clients address content.
pub enum Speaks {
    /// With the API of a registry.
    Registry,
    /// With presigned URLs of the objects, for this endpoint.
    S3(S3),
}

/// One of the compared systems.
pub struct System {
    pub name: &'static str,
    pub registry: Registry,
    pub downloads: Downloads,
    speaks: Speaks,
    processes: Vec<u32>,
}

impl System {
    pub fn new(name: &'static str, url: &str, speaks: Speaks, processes: Vec<u32>) -> System {
        System { name, registry: Registry::new(url), downloads: Downloads::from(url), speaks, processes }
    }

    /// The URLs of an image.
    ///
    /// # Errors
    /// If a URL cannot be signed.
    pub async fn urls(&self, repository: &str, tag: &str, image: &Image) -> Result<Urls> {
        let mut blobs = Vec::new();
        for blob in image.blobs() {
            let url = match &self.speaks {
                Speaks::Registry => format!("/v2/{repository}/blobs/{}", blob.digest),
                Speaks::S3(s3) => s3.presigned(&blob.digest).await?,
            };
            blobs.push((url, blob.size));
        }
        let manifest = match &self.speaks {
            Speaks::Registry => format!("/v2/{repository}/manifests/{tag}"),
            Speaks::S3(s3) => s3.presigned(&image.digest).await?,
        };
        Ok(Urls { manifest, blobs })
    }

    /// CPU time in seconds that the system has used so far.
    ///
    /// # Errors
    /// If a process of the system ended.
    pub fn processor(&self) -> Result<f64> {
        self.processes.iter().map(|process| usage::processor(*process)).sum()
    }

    /// Resets the peak memory.
    ///
    /// # Errors
    /// If a process of the system ended.
    pub fn forget_peak(&self) -> Result<()> {
        self.processes.iter().try_for_each(|process| usage::forget_peak(*process))
    }

    /// Peak memory in bytes since [`System::forget_peak`].
    ///
    /// # Errors
    /// If a process of the system ended.
    pub fn peak_memory(&self) -> Result<u64> {
        self.processes.iter().map(|process| usage::peak_memory(*process)).sum()
    }
}

/// Numbers of requests by Amazon's price classes: those that write or list, and all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    pub writes: u64,
    pub reads: u64,
}

/// A bucket in an S3 server of its own.
pub struct Bucket {
    pub server: Versitygw,
    /// A node that pushes the content. The other nodes do not have this content in their stores.
    pub pusher: Node,
    keys: TempDir,
}

impl Bucket {
    /// # Errors
    /// If the server or the node does not start.
    pub async fn new() -> Result<Bucket> {
        let (server, keys) = (Versitygw::start().await?, TempDir::new()?);
        let pusher = Plan::over(s3::node_bucket(&server.s3.endpoint, keys.path())?).start().await?;
        Ok(Bucket { server, pusher, keys })
    }

    /// The plan of a node with this bucket. `endpoint` is that of the server, or that of a proxy in
    /// front of it.
    ///
    /// # Errors
    /// If the files of the keys cannot be written.
    pub fn plan(&self, endpoint: &str) -> Result<Plan> {
        Ok(Plan::over(s3::node_bucket(endpoint, self.keys.path())?))
    }
}

/// All systems and the S3 server behind them. Dropping the value stops them.
pub struct Systems {
    /// Entrepot, CNCF Distribution, its pull-through cache, nginx's, and the S3 server itself.
    pub systems: Vec<System>,
    pub bucket: Bucket,
    proxy: Option<Proxy>,
    node: Node,
    _distributions: Vec<Distribution>,
    _nginx: Nginx,
    _folders: [TempDir; 2],
}

impl Systems {
    /// Starts all systems, with a direct connection to the server or through a proxy with that
    /// line. The cost of the proxy is part of the measurement, and equal for each system.
    ///
    /// # Errors
    /// If a system does not start.
    pub async fn start(line: Option<Line>) -> Result<Systems> {
        let [mirrored, cached] = [TempDir::new()?, TempDir::new()?];
        let bucket = Bucket::new().await?;
        let direct = bucket.server.s3.endpoint.as_str();
        let proxy = match line {
            Some(line) => Some(Proxy::over(direct, line).await?),
            None => None,
        };
        let endpoint = proxy.as_ref().map_or(direct, |proxy| proxy.url.as_str());
        let s3 = S3::new(endpoint);
        let node = bucket.plan(endpoint)?.start().await?;
        let distribution = Distribution::with_cache(Driver::S3(&s3)).await?;
        let mirror = Distribution::mirror_of(distribution.registry.url(), mirrored.path()).await?;
        let nginx = Nginx::caching(endpoint, cached.path()).await?;
        let workers = nginx.workers()?;
        let systems = vec![
            System::new(ENTREPOT, node.registry.url(), Speaks::Registry, vec![node.id()]),
            System::new(DISTRIBUTION, distribution.registry.url(), Speaks::Registry, vec![distribution.id()]),
            // The cost of the cache includes that of the Distribution behind it.
            System::new(MIRROR, mirror.registry.url(), Speaks::Registry, vec![mirror.id(), distribution.id()]),
            System::new(NGINX, &nginx.url, Speaks::S3(s3.clone()), workers),
            System::new(S3_SERVER, endpoint, Speaks::S3(s3), vec![bucket.server.id()]),
        ];
        Ok(Systems {
            systems,
            bucket,
            proxy,
            node,
            _distributions: vec![distribution, mirror],
            _nginx: nginx,
            _folders: [mirrored, cached],
        })
    }

    /// The bucket, without the proxy.
    pub fn s3(&self) -> &S3 {
        &self.bucket.server.s3
    }

    /// Stops the node of Entrepot and starts it again. Returns the duration of the start in
    /// seconds, and the memory of the node in bytes.
    ///
    /// # Errors
    /// If the node does not shut down cleanly or does not start.
    pub async fn restart_entrepot(&mut self) -> Result<(f64, u64)> {
        ensure!(self.node.stop().await?.success(), "the node did not shut down cleanly");
        let start = Instant::now();
        self.node.start_again().await?;
        let took = start.elapsed().as_secs_f64();
        self.systems[0] = System::new(ENTREPOT, self.node.registry.url(), Speaks::Registry, vec![self.node.id()]);
        Ok((took, self.node.memory()?))
    }

    /// The system with that name.
    ///
    /// # Errors
    /// If no system has that name.
    pub fn system(&self, name: &str) -> Result<&System> {
        self.systems.iter().find(|system| system.name == name).with_context(|| format!("no system is named {name}"))
    }

    /// The requests to S3 by price class, and the bytes, since the last call. Zero without a proxy.
    pub fn take_cost(&self) -> (Kinds, Traffic) {
        let mut kinds = Kinds::default();
        for seen in self.proxy.as_ref().map(Proxy::take_requests).unwrap_or_default() {
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

    /// The traffic with S3 since the last call. Zero without a proxy.
    pub fn take_traffic(&self) -> Traffic {
        self.proxy.as_ref().map(Proxy::take_traffic).unwrap_or_default()
    }
}

pub const ENTREPOT: &str = "Entrepot";
pub const DISTRIBUTION: &str = "Distribution";
pub const MIRROR: &str = "Distribution, pull-through";
pub const NGINX: &str = "nginx proxy_cache";
pub const S3_SERVER: &str = "S3 itself";
