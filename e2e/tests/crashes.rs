//! A node is killed at every step of upload, replication and commit. No acknowledged content is
//! lost, no visible content is broken, and nothing is left over.

#[path = "crashes/shared.rs"]
mod shared;

use anyhow::{Context, Result, ensure};
use entrepot_config::{ByteSize, Duration as Span, ReplicationMode};
use entrepot_e2e::push::{IMAGE, Image};
use entrepot_e2e::{Content, Node, Registry, wait};
use entrepot_oci::Digest;
use entrepot_runtime::crash::POINTS;
use shared::Shared;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

/// Size in bytes, large enough to be sent to S3 in parts.
const LARGE: u64 = 22 << 20;
/// SIGABRT, with which a crash point ends the process.
const ABORTED: i32 = 6;
const TIMEOUT: Duration = Duration::from_secs(30);
/// Nodes remove expired sessions every minute.
const EXPIRY: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_of_a_write_through_push_loses_nothing() {
    every_point(Shared::s3().await.unwrap(), ReplicationMode::WriteThrough).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_of_a_write_back_push_loses_nothing() {
    every_point(Shared::s3().await.unwrap(), ReplicationMode::WriteBack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_step_of_a_push_over_a_folder_loses_nothing() {
    every_point(Shared::folder().unwrap(), ReplicationMode::WriteThrough).await;
}

async fn every_point(bucket: Shared, mode: ReplicationMode) {
    let setting = Setting::new(bucket).await.unwrap();
    let (mut failures, mut survivors) = (Vec::new(), Vec::new());
    let points: Vec<_> = POINTS.iter().filter(|point| setting.bucket.reaches(point)).collect();
    for point in &points {
        match setting.crash_at(point, mode).await {
            Ok(node) => survivors.push((**point, node)),
            Err(error) => {
                println!("{mode:?} {point}: {error:#}");
                failures.push(**point);
            }
        }
    }
    // All nodes together, because expired sessions are removed only every minute.
    for (point, node) in &survivors {
        if let Err(error) = setting.nothing_is_left(node).await {
            println!("{mode:?} {point}: {error:#}");
            failures.push(*point);
        }
    }
    assert!(failures.is_empty(), "{mode:?}: {} of {} points failed: {failures:?}", failures.len(), points.len());
    println!("{mode:?}: the node crashed at {} points and lost nothing", points.len());
}

/// A bucket, and a healthy node that sees what other nodes will see.
struct Setting {
    bucket: Shared,
    witness: Node,
}

/// What got status 201 before the crash.
#[derive(Default)]
struct Acknowledged {
    blobs: Vec<Content>,
    image: bool,
    subject: bool,
}

impl Setting {
    async fn new(bucket: Shared) -> Result<Setting> {
        let witness = bucket.plan()?.start().await?;
        Ok(Setting { bucket, witness })
    }

    /// Crashes a node at the point during a push, and returns it after its recovery.
    async fn crash_at(&self, point: &str, mode: ReplicationMode) -> Result<Node> {
        let repository = format!("{mode:?}/{}", point.replace('.', "/")).to_lowercase();
        let subject = Image::fresh(&[]);
        let layers = vec![Content::fresh(10_000), Content::fresh(LARGE)];
        let image = Image::of(Content::fresh(50), layers, Some(&subject));
        let plan = self.bucket.plan()?.with(|config| {
            config.replication.mode = mode;
            config.replication.part_size = ByteSize::mebibytes(5);
            config.upload.session_expiry = Span::from_millis(500);
        });
        let mut node = plan.crashing_at(point).start().await?;
        let mut acknowledged = Acknowledged::default();
        let mut pushed = push(&node.registry, &repository, &image, &subject, &mut acknowledged).await;
        if point.starts_with("delete.") {
            pushed = delete(&node.registry, &repository, &image).await;
            // Content that is being deleted is no longer promised.
            acknowledged = Acknowledged { subject: true, ..Acknowledged::default() };
        }
        let status = node
            .wait(TIMEOUT)
            .await
            .with_context(|| format!("the crash point was not reached; result of the push: {pushed:?}"))?;
        ensure!(status.signal() == Some(ABORTED), "the node exited with {status} instead of a crash\n{}", node.log());

        node.plan.environment.clear();
        node.start_again().await?;
        let drained = || async { node.metrics().await.is_ok_and(|metrics| metrics.sum("pending_blobs", &[]) == 0.0) };
        wait::until("nothing is pending", TIMEOUT, drained).await?;
        self.nothing_acknowledged_is_lost(&repository, &image, &subject, &acknowledged).await?;
        self.nothing_visible_is_broken(&repository).await?;

        let mut again = Acknowledged::default();
        push(&node.registry, &repository, &image, &subject, &mut again)
            .await
            .context("the push failed after the recovery")?;
        for registry in [&self.witness.registry, &node.registry] {
            registry.pull_image(&repository, "v1", &image).await.context("after the retry")?;
            registry.pull_image(&repository, "subject", &subject).await.context("after the retry")?;
        }
        Ok(node)
    }

    async fn nothing_acknowledged_is_lost(
        &self,
        repository: &str,
        image: &Image,
        subject: &Image,
        acknowledged: &Acknowledged,
    ) -> Result<()> {
        let witness = &self.witness.registry;
        for blob in &acknowledged.blobs {
            witness.pull(repository, &blob.digest).await.context("an acknowledged blob is lost")?;
        }
        if acknowledged.subject {
            witness.pull_image(repository, "subject", subject).await.context("an acknowledged image is lost")?;
        }
        if acknowledged.image {
            witness.pull_image(repository, "v1", image).await.context("an acknowledged image is lost")?;
        }
        Ok(())
    }

    /// Checks that every link of the repository leads to complete content.
    async fn nothing_visible_is_broken(&self, repository: &str) -> Result<()> {
        let root = format!("docker/registry/v2/repositories/{repository}/");
        let witness = &self.witness.registry;
        for key in self.bucket.keys(&root).await? {
            let link = key.ends_with("/link").then(|| self.bucket.get(&key));
            let Some(link) = link else { continue };
            let digest = Digest::parse(std::str::from_utf8(&link.await?)?).with_context(|| key.clone())?;
            if key.contains("/_layers/") {
                witness.pull(repository, &digest).await.with_context(|| format!("{key} is broken"))?;
            } else {
                let reply = witness.manifest(repository, &digest.to_string()).await?;
                let manifest = reply.expect(200).with_context(|| format!("{key} is broken"))?.json()?;
                let layers = manifest["layers"].as_array().into_iter().flatten();
                for descriptor in layers.chain([&manifest["config"]]) {
                    let digest = Digest::parse(descriptor["digest"].as_str().context("the descriptor has no digest")?)?;
                    witness.pull(repository, &digest).await.with_context(|| format!("{key}: {digest}"))?;
                }
            }
        }
        let subject_path = format!("/v2/{repository}/tags/list");
        let tags = witness.get(&subject_path).await?;
        for tag in tags.json()?["tags"].as_array().into_iter().flatten() {
            let tag = tag.as_str().context("the tag is not a string")?;
            witness
                .manifest(repository, tag)
                .await?
                .expect(200)
                .with_context(|| format!("cannot read the tag {tag}"))?;
        }
        Ok(())
    }

    /// Checks that sessions disappear after they expire, and that no download, journal entry or
    /// multipart upload is left.
    async fn nothing_is_left(&self, node: &Node) -> Result<()> {
        let store = node.store();
        let left = || files(&store, &["uploads", "fills", "pending"]);
        let empty = wait::until("nothing is left", EXPIRY, || async { left().is_empty() }).await;
        empty.with_context(|| format!("left over on the disk: {:?}", left()))?;
        self.bucket.nothing_is_left(&store).await
    }
}

/// Pushes an image and one with it as its subject, in the ways that clients do, and records what
/// was acknowledged.
async fn push(
    registry: &Registry,
    repository: &str,
    image: &Image,
    subject: &Image,
    acknowledged: &mut Acknowledged,
) -> Result<()> {
    registry.push(repository, &subject.config).await?;
    acknowledged.blobs.push(subject.config);
    registry.put_manifest(repository, "subject", IMAGE, &subject.manifest).await?.expect(201)?;
    acknowledged.subject = true;
    for blob in image.blobs() {
        if blob.size > 1 << 20 {
            registry.push_after_a_break(repository, blob, 9 << 20, 3 << 20).await?;
        } else {
            registry.push(repository, blob).await?;
        }
        acknowledged.blobs.push(*blob);
    }
    registry.put_manifest(repository, "v1", IMAGE, &image.manifest).await?.expect(201)?;
    acknowledged.image = true;
    Ok(())
}

/// Deletes what [`push`] created except the subject: one of two tags by name, the other with its
/// manifest, and a layer.
async fn delete(registry: &Registry, repository: &str, image: &Image) -> Result<()> {
    registry.put_manifest(repository, "v2", IMAGE, &image.manifest).await?.expect(201)?;
    registry.delete(&format!("/v2/{repository}/manifests/v2")).await?.expect(202)?;
    registry.delete(&format!("/v2/{repository}/manifests/{}", image.digest)).await?.expect(202)?;
    let layer = image.blobs().next().context("the image has no blob")?;
    registry.delete(&format!("/v2/{repository}/blobs/{}", layer.digest)).await?.expect(202)?;
    Ok(())
}

/// All files in these folders of the store.
fn files(store: &Path, folders: &[&str]) -> Vec<String> {
    let entries = folders.iter().filter_map(|folder| std::fs::read_dir(store.join(folder)).ok()).flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path().display().to_string())).collect()
}
