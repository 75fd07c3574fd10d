//! Real clients push to one node and pull from another that shares only the bucket.

#[path = "clients/programs.rs"]
mod programs;

use anyhow::{Result, ensure};
use entrepot_e2e::images::{Described, Layout};
use entrepot_e2e::node::Plan;
use entrepot_e2e::podman::Podman;
use entrepot_e2e::servers::Versitygw;
use entrepot_e2e::{Node, Registry, disks, s3};
use entrepot_oci::digest::Hasher;
use entrepot_oci::{Algorithm, Digest};
use programs::{Client, Crane, Oras, Regctl, Skopeo};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;
use tempfile::TempDir;

/// Two nodes with one bucket.
struct Pair {
    _nodes: [Node; 2],
    _server: Versitygw,
    _keys: TempDir,
    /// The node for pushes.
    a: Registry,
    /// The node for pulls.
    b: Registry,
}

impl Pair {
    async fn new() -> Pair {
        let (server, keys) = (Versitygw::start().await.unwrap(), TempDir::new().unwrap());
        let start = || Plan::over(s3::node_bucket(&server.s3.endpoint, keys.path()).unwrap()).start();
        let nodes = [start().await.unwrap(), start().await.unwrap()];
        let [a, b] = [nodes[0].registry.clone(), nodes[1].registry.clone()];
        Pair { _nodes: nodes, _server: server, _keys: keys, a, b }
    }

    /// Pushes the tag `v1` of the layout to one node, pulls it from the other, and compares every
    /// byte.
    async fn copy(&self, client: &impl Client, layout: &Layout, case: &str) -> Result<()> {
        let start = Instant::now();
        let repository = format!("{}/{case}", client.name());
        client.push(layout.path(), "v1", &format!("{}/{repository}:v1", self.a.host())).await?;
        let pushed = start.elapsed();
        let pulled = TempDir::new()?;
        client.pull(&format!("{}/{repository}:v1", self.b.host()), pulled.path(), "v1").await?;
        for digest in layout.digests()? {
            let file = pulled.path().join("blobs/sha256").join(digest.hex());
            ensure!(hash(&file)? == digest, "{case}: {} pulled other bytes for {digest}", client.name());
        }
        let whole = start.elapsed();
        println!("{:<7} {case}: pushed in {pushed:.1?}, pulled in {:.1?}", client.name(), whole - pushed);
        Ok(())
    }
}

fn hash(file: &Path) -> Result<Digest> {
    let (mut file, mut buffer) = (File::open(file)?, vec![0; 1 << 20]);
    let mut hasher = Hasher::new(Algorithm::Sha256);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// A layout with one image or index, tagged `v1`.
fn layout(fill: impl FnOnce(&Layout) -> Result<Described>) -> Layout {
    let mut layout = Layout::new().unwrap();
    let named = fill(&layout).unwrap();
    layout.tag(&named, "v1").unwrap();
    layout
}

fn image() -> Layout {
    layout(|layout| layout.image("amd64", &[layout.layer("a", 3_000_000)?, layout.layer("b", 10)?]))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_copies_an_image() {
    let (pair, image) = (Pair::new().await, image());
    pair.copy(&Skopeo, &image, "image").await.unwrap();
    pair.copy(&Crane, &image, "image").await.unwrap();
    pair.copy(&Regctl::new().unwrap(), &image, "image").await.unwrap();
    pair.copy(&Oras, &image, "image").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_copies_a_multi_platform_index() {
    let pair = Pair::new().await;
    let index = layout(|layout| {
        let images = ["amd64", "arm64", "s390x"].map(|architecture| {
            layout.image(architecture, &[layout.layer("common", 100_000)?, layout.layer(architecture, 200_000)?])
        });
        layout.index(&images.into_iter().collect::<Result<Vec<_>>>()?)
    });
    pair.copy(&Skopeo, &index, "index").await.unwrap();
    pair.copy(&Crane, &index, "index").await.unwrap();
    pair.copy(&Regctl::new().unwrap(), &index, "index").await.unwrap();
    pair.copy(&Oras, &index, "index").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_layers_are_copied() {
    let pair = Pair::new().await;
    let image = layout(|layout| {
        let layers: Result<Vec<_>> = (0..100).map(|n| layout.layer(&format!("layer-{n}"), 50_000)).collect();
        layout.image("amd64", &layers?)
    });
    pair.copy(&Skopeo, &image, "hundred").await.unwrap();
    pair.copy(&Crane, &image, "hundred").await.unwrap();
    pair.copy(&Oras, &image, "hundred").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_layer_is_copied() {
    let pair = Pair::new().await;
    let image = layout(|layout| layout.image("amd64", &[layout.bytes(entrepot_e2e::push::LAYER, b"")?]));
    pair.copy(&Regctl::new().unwrap(), &image, "empty").await.unwrap();
    pair.copy(&Oras, &image, "empty").await.unwrap();
    pair.copy(&Crane, &image, "empty").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_of_two_gibibytes_is_copied() {
    // The layer exists on disk as the original, at both nodes, at the S3 server (also as parts),
    // and as the pulled copy.
    disks::need(13 << 30).unwrap();
    let pair = Pair::new().await;
    let image = layout(|layout| layout.image("amd64", &[layout.layer("large", 2 << 30)?]));
    pair.copy(&Skopeo, &image, "large").await.unwrap();
    pair.copy(&Regctl::new().unwrap(), &image, "large").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_copies_an_image_and_an_index() {
    let (pair, podman) = (Pair::new().await, Podman::new().unwrap());
    let image = image();
    let (pushed, digest) =
        podman.push(image.path(), "v1", &format!("{}/podman/image:v1", pair.a.host())).await.unwrap();
    // podman compresses layers while it pushes, and reports the resulting manifest digest.
    let served = pair.b.manifest("podman/image", "v1").await.unwrap().expect(200).unwrap();
    assert_eq!(served.header("docker-content-digest"), Some(digest.as_str()));
    let pulled = podman.pull(&format!("{}/podman/image:v1", pair.b.host())).await.unwrap();
    assert_eq!(pulled, pushed, "the pulled image is not the pushed one");

    let index = layout(|layout| {
        let images = ["amd64", "arm64"].map(|name| layout.image(name, &[layout.layer(name, 1000)?]));
        layout.index(&images.into_iter().collect::<Result<Vec<_>>>()?)
    });
    podman.push_index(index.path(), "v1", &format!("{}/podman/index:v1", pair.a.host())).await.unwrap();
    let served = pair.b.manifest("podman/index", "v1").await.unwrap().expect(200).unwrap().json().unwrap();
    let listed = served["manifests"].as_array().unwrap();
    assert_eq!(listed.len(), 2, "{served}");
    for entry in listed {
        let digest = entry["digest"].as_str().unwrap();
        let manifest = pair.b.manifest("podman/index", digest).await.unwrap().expect(200).unwrap().json().unwrap();
        let layer = Digest::parse(manifest["layers"][0]["digest"].as_str().unwrap()).unwrap();
        pair.b.pull("podman/index", &layer).await.unwrap();
    }
    podman.pull(&format!("{}/podman/index:v1", pair.b.host())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_about_an_image_is_found_and_pulled() {
    let (pair, image) = (Pair::new().await, image());
    let text = b"what is known of this image\n";
    let file = TempDir::new().unwrap();
    std::fs::write(file.path().join("report.txt"), text).unwrap();
    let regctl = Regctl::new().unwrap();
    Oras.push(image.path(), "v1", &format!("{}/artifact/app:v1", pair.a.host())).await.unwrap();

    Oras.attach(&format!("{}/artifact/app:v1", pair.a.host()), "text/x-oras", file.path()).await.unwrap();
    regctl.attach(&format!("{}/artifact/app:v1", pair.a.host()), "text/x-regctl", file.path()).await.unwrap();
    // Each client finds, at the other node, what both have attached.
    let subject = format!("{}/artifact/app:v1", pair.b.host());
    for found in [Oras.discover(&subject).await.unwrap(), regctl.discover(&subject).await.unwrap()] {
        for kind in ["text/x-oras", "text/x-regctl"] {
            assert!(found.contains(kind), "{kind} is not among {found}");
        }
    }
    assert_eq!(regctl.fetch(&subject, "text/x-oras").await.unwrap().as_bytes(), text);
    assert_eq!(Oras.fetch(&pair.b, "artifact/app", &subject, "text/x-regctl").await.unwrap().as_bytes(), text);
}
