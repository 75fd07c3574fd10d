//! The benchmarks of a single node: each returns its figures.

use super::ROUNDS;
use super::figure::{Figure, Goal};
use crate::download::Downloads;
use crate::hashing::{BLOB, hash};
use crate::memory;
use crate::samples::{GIB, MIB, Samples};
use crate::template::{render, template};
use crate::wrk::wrk;
use anyhow::{Result, ensure};
use entrepot_e2e::content::Content;
use entrepot_e2e::node::Plan;
use entrepot_e2e::push::Image;
use entrepot_e2e::s3;
use entrepot_e2e::servers::{Nginx, Versitygw};
use entrepot_e2e::usage;
use entrepot_oci::{Algorithm, Digest};
use minijinja::context;
use std::fs;
use std::io::Write;
use std::time::Instant;
use tempfile::TempDir;

const STORED_BLOBS: u32 = 100_000;

pub async fn stored_blob() -> Result<Figure> {
    let (bucket, files) = (TempDir::new()?, TempDir::new()?);
    let mut node = Plan::over_folder(bucket.path()).start().await?;
    let blob = Content::fresh(BLOB);
    node.registry.push("bench/app", &blob).await?;
    // After the push the file is only in the bucket's folder. The first pull copies it into the
    // store.
    node.registry.pull("bench/app", &blob.digest).await?;
    let mut file = fs::File::create(files.path().join("blob"))?;
    blob.pieces(0..blob.size).try_for_each(|piece| file.write_all(&piece))?;
    let nginx = Nginx::start(files.path()).await?;
    let theirs = format!("{}/blob", nginx.url);
    let (mut node_samples, mut nginx_samples) = (Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        // The throughput differs by up to a quarter between two processes with the same file, so
        // each round has a process of its own.
        ensure!(node.stop().await?.success(), "the node did not shut down cleanly");
        node.start_again().await?;
        let ours = format!("{}/v2/bench/app/blobs/{}", node.registry.url(), blob.digest);
        node_samples.0.push(wrk(&["-t2", "-c4", "-d5s"], &ours).await?.bytes / GIB);
        nginx_samples.0.push(wrk(&["-t2", "-c4", "-d5s"], &theirs).await?.bytes / GIB);
    }
    Ok(Figure {
        name: "stored blob",
        unit: "GiB/s",
        node: node_samples,
        reference: Some(("nginx", nginx_samples)),
        goal: Goal::Ratio(1.5),
        note: None,
    })
}

pub async fn push() -> Result<Figure> {
    let bucket = TempDir::new()?;
    let node = Plan::over_folder(bucket.path()).start().await?;
    let (mut pushes, mut hashes, mut ahead) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        let blob = Content::fresh(BLOB);
        memory::settle()?;
        let start = Instant::now();
        node.registry.push("bench/app", &blob).await?;
        pushes.0.push(BLOB as f64 / MIB / start.elapsed().as_secs_f64());
        let bytes = blob.bytes();
        let start = Instant::now();
        std::hint::black_box(ring::digest::digest(&ring::digest::SHA256, &bytes));
        hashes.0.push(BLOB as f64 / MIB / start.elapsed().as_secs_f64());
        ahead.0.push(BLOB as f64 / MIB / hash(&blob)?);
    }
    let values = context! { hashed => ahead.median(), reached => pushes.median() / ahead.median() };
    let note = render(template!("performance_push"), values)?;
    Ok(Figure {
        name: "push",
        unit: "MiB/s",
        node: pushes,
        reference: Some(("SHA-256 on one core", hashes)),
        goal: Goal::Ratio(0.6),
        note: Some(note),
    })
}

pub async fn missed_blob() -> Result<Figure> {
    let (server, keys) = (Versitygw::start().await?, TempDir::new()?);
    let pusher = Plan::over(s3::node_bucket(&server.s3.endpoint, keys.path())?).start().await?;
    let node = Plan::over(s3::node_bucket(&server.s3.endpoint, keys.path())?).start().await?;
    let [downloads, from_s3] = [node.registry.url(), &server.s3.endpoint].map(Downloads::from);
    let (mut ours, mut theirs, mut costs) = (Samples::default(), Samples::default(), Costs::default());
    for _ in 0..ROUNDS {
        let blob = Content::fresh(BLOB);
        pusher.registry.push("bench/app", &blob).await?;
        let object = server.s3.presigned(&blob.digest).await?;
        memory::settle()?;
        let (server_before, client_before) = (usage::processor(server.id())?, usage::processor(std::process::id())?);
        theirs.0.push(from_s3.drain(&object).await? / MIB);
        costs.server.0.push((usage::processor(server.id())? - server_before) / (BLOB as f64 / MIB));
        costs.client.0.push((usage::processor(std::process::id())? - client_before) / (BLOB as f64 / MIB));
        ours.0.push(downloads.drain(&format!("/v2/bench/app/blobs/{}", blob.digest)).await? / MIB);
        costs.hash.0.push(hash(&blob)? / (BLOB as f64 / MIB));
    }
    let note = costs.note(theirs.median())?;
    Ok(Figure {
        name: "missed blob",
        unit: "MiB/s",
        node: ours,
        reference: Some(("the object directly from S3", theirs)),
        goal: Goal::Ratio(0.85),
        note: Some(note),
    })
}

/// CPU time per MiB, in seconds.
#[derive(Default)]
struct Costs {
    server: Samples,
    client: Samples,
    hash: Samples,
}

impl Costs {
    /// The maximum throughput of a relay that only receives, hashes and sends. It receives at the
    /// cost of the client and sends at the cost of the server.
    fn note(&self, direct: f64) -> Result<String> {
        let [server, client, hash] = [&self.server, &self.client, &self.hash].map(Samples::median);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let best = cores as f64 / (2.0 * server + 2.0 * client + hash);
        let values = context! {
            server => server * 1000.0,
            client => client * 1000.0,
            hash => hash * 1000.0,
            cores => cores,
            best => best,
            ratio => best / direct,
        };
        render(template!("performance_missed_blob"), values)
    }
}

pub async fn stored_manifest() -> Result<Vec<Figure>> {
    let bucket = TempDir::new()?;
    let node = Plan::over_folder(bucket.path()).start().await?;
    let image = Image::fresh(&[1000, 2000, 3000]);
    node.registry.push_image("bench/app", "v1", &image).await?;
    let url = format!("{}/v2/bench/app/manifests/{}", node.registry.url(), image.digest);
    let (mut requests, mut latencies) = (Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        let found = wrk(&["-t1", "-c16", "-d5s"], &url).await?;
        requests.0.push(found.requests);
        latencies.0.push(found.p99);
    }
    let figure = |name, unit, node, goal| Figure { name, unit, node, reference: None, goal, note: None };
    Ok(vec![
        figure("stored manifest", "requests/s", requests, Goal::AtLeast(20_000.0)),
        figure("stored manifest, p99", "ms", latencies, Goal::Below(10.0)),
    ])
}

pub async fn start() -> Result<Figure> {
    let (bucket, store) = (TempDir::new()?, TempDir::new()?);
    for number in 0..STORED_BLOBS {
        let content = number.to_be_bytes();
        let hex = Digest::of(Algorithm::Sha256, &content).hex();
        let folder = store.path().join("store/blobs/sha256").join(&hex[..2]);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(hex), content)?;
    }
    let mut node = Plan::over_folder(bucket.path()).start_at(&store.path().join("store")).await?;
    let mut samples = Samples::default();
    for _ in 0..ROUNDS {
        ensure!(node.stop().await?.success(), "the node did not shut down cleanly");
        let begun = Instant::now();
        node.start_again().await?;
        ensure!(node.registry.answers().await, "the node does not respond");
        samples.0.push(begun.elapsed().as_secs_f64());
    }
    Ok(Figure { name: "start", unit: "s", node: samples, reference: None, goal: Goal::Below(2.0), note: None })
}
