//! CNCF Distribution and the node over one bucket: each serves what the other wrote.

use anyhow::Result;
use entrepot_e2e::node::Plan;
use entrepot_e2e::push::{INDEX, Image};
use entrepot_e2e::servers::{Distribution, Driver, Minio, Versitygw};
use entrepot_e2e::{Content, Registry, s3};
use serde_json::json;
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread")]
async fn each_serves_what_the_other_wrote_to_a_folder() {
    let folder = TempDir::new().unwrap();
    let node = Plan::over_folder(folder.path()).start().await.unwrap();
    let distribution = Distribution::start(Driver::FileSystem(folder.path())).await.unwrap();
    both_ways(&node.registry, &distribution.registry).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_serves_what_the_other_wrote_to_versitygw() {
    let (server, keys) = (Versitygw::start().await.unwrap(), TempDir::new().unwrap());
    let node = Plan::over(s3::node_bucket(&server.s3.endpoint, keys.path()).unwrap()).start().await.unwrap();
    let distribution = Distribution::start(Driver::S3(&server.s3)).await.unwrap();
    both_ways(&node.registry, &distribution.registry).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_serves_what_the_other_wrote_to_minio() {
    let (server, keys) = (Minio::start().await.unwrap(), TempDir::new().unwrap());
    let node = Plan::over(s3::node_bucket(&server.s3.endpoint, keys.path()).unwrap()).start().await.unwrap();
    let distribution = Distribution::start(Driver::S3(&server.s3)).await.unwrap();
    both_ways(&node.registry, &distribution.registry).await.unwrap();
}

async fn both_ways(node: &Registry, distribution: &Registry) -> Result<()> {
    one_way(node, distribution, "from/node").await?;
    one_way(distribution, node, "from/distribution").await?;
    mixed(node, distribution).await
}

/// An image, an index, several tags and an empty layer, written through one and read through the
/// other.
async fn one_way(writer: &Registry, reader: &Registry, repository: &str) -> Result<()> {
    let (first, second) = (Image::fresh(&[100_000, 40 << 20]), Image::fresh(&[10, 0]));
    writer.push_image(repository, "v1", &first).await?;
    writer.push_image(repository, "v2", &second).await?;
    let entry = |image: &Image, architecture: &str| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": image.digest.to_string(),
            "size": image.manifest.len(),
            "platform": {"os": "linux", "architecture": architecture},
        })
    };
    let manifests = [entry(&first, "amd64"), entry(&second, "arm64")];
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).to_string();
    writer.put_manifest(repository, "latest", INDEX, index.as_bytes()).await?.expect(201)?;

    reader.pull_image(repository, "v1", &first).await?;
    reader.pull_image(repository, "v2", &second).await?;
    reader.pull_image(repository, &first.digest.to_string(), &first).await?;
    let served = reader.manifest(repository, "latest").await?.expect(200)?;
    assert_eq!(served.body, index.as_bytes());
    assert_eq!(served.header("content-type"), Some(INDEX));
    let tags = reader.get(&format!("/v2/{repository}/tags/list")).await?.expect(200)?.json()?;
    assert_eq!(tags, json!({"name": repository, "tags": ["latest", "v1", "v2"]}));
    let catalog = reader.get("/v2/_catalog").await?.expect(200)?.json()?;
    assert!(catalog["repositories"].as_array().is_some_and(|all| all.contains(&json!(repository))), "{catalog}");
    Ok(())
}

/// Blobs through one and the manifest through the other, a tag that each moves in turn, and a
/// deletion.
async fn mixed(node: &Registry, distribution: &Registry) -> Result<()> {
    let image = Image::fresh(&[1000]);
    for blob in image.blobs() {
        node.push("mixed/app", blob).await?;
    }
    let kind = entrepot_e2e::push::IMAGE;
    distribution.put_manifest("mixed/app", "v1", kind, &image.manifest).await?.expect(201)?;
    node.pull_image("mixed/app", "v1", &image).await?;

    for registry in [node, distribution, node, distribution] {
        let moved = Image::fresh(&[2000]);
        registry.push_image("mixed/app", "moving", &moved).await?;
        for reader in [node, distribution] {
            assert_eq!(reader.manifest("mixed/app", "moving").await?.expect(200)?.body, moved.manifest);
        }
    }
    let unlinked = Content::fresh(500);
    distribution.push("mixed/other", &unlinked).await?;
    assert!(!node.has_blob("mixed/app", &unlinked.digest).await?, "a blob of another repository is served");
    node.delete(&format!("/v2/mixed/app/manifests/{}", image.digest)).await?.expect(202)?;
    distribution.manifest("mixed/app", &image.digest.to_string()).await?.expect(404)?;
    Ok(())
}
