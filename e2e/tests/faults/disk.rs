//! Faults of the disk: full, out of inodes, failing on a write or a read, and a store that somebody
//! deleted.

use entrepot_config::ReplicationMode;
use entrepot_e2e::client::{Registry, Reply};
use entrepot_e2e::disks::{FailingDisk, RemountedDisk, SmallDisk};
use entrepot_e2e::node::Plan;
use entrepot_e2e::push::Image;
use entrepot_e2e::{Content, Node, wait};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// A node with its store on its own disk, and a healthy node with the same bucket.
struct Setting {
    node: Node,
    healthy: Node,
    _bucket: TempDir,
}

impl Setting {
    async fn new(disk: &Path) -> Setting {
        Setting::of(disk, ReplicationMode::WriteThrough).await
    }

    async fn of(disk: &Path, mode: ReplicationMode) -> Setting {
        let bucket = TempDir::new().unwrap();
        let healthy = Plan::over_folder(bucket.path()).start().await.unwrap();
        let plan = Plan::over_folder(bucket.path()).with(|config| config.replication.mode = mode);
        let node = plan.start_at(&disk.join("store")).await.unwrap();
        Setting { node, healthy, _bucket: bucket }
    }

    async fn missing(&self, size: u64) -> Content {
        let blob = Content::fresh(size);
        self.healthy.registry.push("disk/app", &blob).await.unwrap();
        blob
    }

    /// The content files in the store.
    fn stored(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.node.store().join("blobs")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
            }
        }
        files
    }
}

/// Writes zeros until the disk is full.
fn fill(disk: &Path) -> PathBuf {
    let path = disk.join("filler");
    let mut file = File::create(&path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    path
}

fn is_told_to_come_back(reply: &Reply) -> bool {
    reply.status == 503 && reply.header("retry-after").is_some()
}

async fn push(registry: &Registry, blob: &Content) -> Reply {
    registry.try_push("disk/app", blob).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_pulls_stream_uncached_and_pushes_get_503() {
    let disk = SmallDisk::new(64).unwrap();
    let setting = Setting::new(disk.path()).await;
    let stored = setting.missing(1 << 20).await;
    setting.node.registry.pull("disk/app", &stored.digest).await.unwrap();
    let filler = fill(disk.path());

    for size in [1000, 10 << 20, 200 << 20] {
        let blob = setting.missing(size).await;
        setting.node.registry.pull("disk/app", &blob.digest).await.unwrap();
    }
    let reply = push(&setting.node.registry, &Content::fresh(1 << 20)).await;
    assert!(is_told_to_come_back(&reply), "{reply:?}");
    let image = Image::fresh(&[1000]);
    setting.healthy.registry.push_image("disk/image", "v1", &image).await.unwrap();
    setting.node.registry.pull_image("disk/image", "v1", &image).await.unwrap();

    fs::remove_file(filler).unwrap();
    setting.node.registry.retrying(Duration::from_secs(20)).push("disk/app", &Content::fresh(1 << 20)).await.unwrap();
    setting.node.registry.pull("disk/app", &stored.digest).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_others_on_the_disk_causes_no_eviction() {
    let disk = SmallDisk::new(100).unwrap();
    fs::write(disk.path().join("of another"), vec![0; 95 << 20]).unwrap();
    let setting = Setting::new(disk.path()).await;
    let blob = Content::fresh(1 << 20);
    setting.node.registry.push("disk/app", &blob).await.unwrap();
    let metrics = setting.node.metrics().await.unwrap();
    let [capacity, free, low] =
        ["capacity", "free", "low_free"].map(|what| metrics.sum(&format!("store_{what}_bytes"), &[]));
    assert!(capacity < f64::from(6 << 20), "the capacity is {capacity} bytes although only 5 MiB were free");
    assert!(free >= low, "{free} bytes are free, and eviction starts below {low}");
    assert_eq!(metrics.sum("evictions_total", &[]), 0.0);
    assert_eq!(setting.stored().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_free_inodes_counts_as_full() {
    let disk = SmallDisk::of_few_files(1000).unwrap();
    let setting = Setting::new(disk.path()).await;
    let mut number = 0;
    while File::create(disk.path().join(format!("file-{number}"))).is_ok() {
        number += 1;
    }
    let blob = setting.missing(3 << 20).await;
    setting.node.registry.pull("disk/app", &blob.digest).await.unwrap();
    let reply = push(&setting.node.registry, &Content::fresh(1000)).await;
    assert!(is_told_to_come_back(&reply), "{reply:?}");
    (0..number).for_each(|number| fs::remove_file(disk.path().join(format!("file-{number}"))).unwrap());
    let reply = push(&setting.node.registry, &Content::fresh(1000)).await;
    assert_eq!(reply.status, 201, "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_a_failing_disk_lost_is_not_acknowledged() {
    // The file system sees 256 MiB; after 48 MiB every write is lost, which only a sync reports.
    let disk = FailingDisk::new(256, 48).unwrap();
    // WriteBack acknowledges what this disk keeps, WriteThrough what the bucket keeps.
    let setting = Setting::of(disk.path(), ReplicationMode::WriteBack).await;
    let (mut taken, mut refused) = (Vec::new(), 0);
    for _ in 0..12 {
        let blob = Content::fresh(8 << 20);
        match push(&setting.node.registry, &blob).await.status {
            201 => taken.push(blob),
            500..=599 => refused += 1,
            other => panic!("unexpected status {other}"),
        }
    }
    assert!(refused > 0, "no push was affected by the failing disk");
    println!("on a failing disk {} pushes were accepted and {refused} rejected", taken.len());
    let drained = || async { setting.node.metrics().await.is_ok_and(|m| m.sum("pending_blobs", &[]) == 0.0) };
    wait::until("nothing is pending", Duration::from_secs(30), drained).await.unwrap();
    for blob in &taken {
        setting.healthy.registry.pull("disk/app", &blob.digest).await.unwrap();
    }
    // Pulls work even if nothing can be written.
    let blob = setting.missing(8 << 20).await;
    setting.node.registry.pull("disk/app", &blob.digest).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_dead_disk_is_not_ready_still_serves_and_rejects_pushes() {
    let disk = RemountedDisk::new(64).unwrap();
    let setting = Setting::new(disk.path()).await;
    let blob = setting.missing(1 << 20).await;
    setting.node.registry.pull("disk/app", &blob.digest).await.unwrap();
    disk.make_read_only().unwrap();
    let told = || async {
        let reply = setting.node.operations().get("/readyz").await.unwrap();
        reply.status == 503 && String::from_utf8_lossy(&reply.body).contains("cannot write to the store: ")
    };
    wait::until("the node is not ready", Duration::from_secs(30), told).await.unwrap();
    for size in [1000, 2 << 20] {
        let reply = push(&setting.node.registry, &Content::fresh(size)).await;
        assert!(is_told_to_come_back(&reply), "{reply:?}");
    }
    setting.node.registry.pull("disk/app", &blob.digest).await.unwrap();
    let missing = setting.missing(3 << 20).await;
    setting.node.registry.pull("disk/app", &missing.digest).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_a_failing_disk_cannot_read_is_served_from_the_bucket() {
    let disk = FailingDisk::new(128, 128).unwrap();
    let setting = Setting::new(disk.path()).await;
    let blob = setting.missing(20 << 20).await;
    setting.node.registry.pull("disk/app", &blob.digest).await.unwrap();
    disk.lose(&setting.stored()).unwrap();
    // The pull that hits the failure may end early, because its first bytes are already sent. A
    // client retries.
    let mut attempts = 0;
    while let Err(error) = setting.node.registry.pull("disk/app", &blob.digest).await {
        attempts += 1;
        assert!(!format!("{error:#}").contains("digest mismatch"), "wrong bytes: {error:#}");
        assert!(attempts < 5, "{error:#}");
    }
    println!("a lost file was served again after {attempts} responses that ended early");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_deleted_store_is_filled_again() {
    let folder = TempDir::new().unwrap();
    let mut setting = Setting::new(folder.path()).await;
    let blobs = [setting.missing(5 << 20).await, setting.missing(6 << 20).await];
    for blob in &blobs {
        setting.node.registry.pull("disk/app", &blob.digest).await.unwrap();
    }
    // After an unclean stop every file is verified before it is served.
    setting.node.kill().unwrap();
    for file in setting.stored() {
        let mut bytes = fs::read(&file).unwrap();
        bytes[1234] ^= 1;
        fs::write(&file, bytes).unwrap();
    }
    setting.node.start_again().await.unwrap();
    for blob in &blobs {
        setting.node.registry.pull("disk/app", &blob.digest).await.unwrap();
    }
    let metrics = setting.node.metrics().await.unwrap();
    assert_eq!(metrics.sum("digest_mismatches_total", &["place=\"store\""]), 2.0);

    setting.node.stop().await.unwrap();
    fs::remove_dir_all(setting.node.store()).unwrap();
    setting.node.start_again().await.unwrap();
    for blob in &blobs {
        setting.node.registry.pull("disk/app", &blob.digest).await.unwrap();
    }
}
