//! No file of the store prevents a start, whatever other programs did to it, while the node was
//! stopped or running. Afterwards a push and a pull work, and nothing wrong is served.

use crate::repository::Replicator;
use crate::store::testing::read;
use crate::testing::{Node, Setup, body, faulty, repository};
use entrepot_bucket::Bucket;
use entrepot_bucket::fault::{Fault, Faults};
use entrepot_bucket::{BucketErrorKind, Get, GetOptions, Operation, collect_small};
use entrepot_config::ReplicationMode;
use entrepot_oci::Digest;
use entrepot_runtime::testing::eventually;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Changes that another program may make to a file or a directory.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    Garbage,
    Emptied,
    Halved,
    Removed,
    Folder,
    FullFolder,
    LinkToNothing,
    LinkToFile,
    StrangeName,
}

const DAMAGES: [Damage; 9] = [
    Damage::Garbage,
    Damage::Emptied,
    Damage::Halved,
    Damage::Removed,
    Damage::Folder,
    Damage::FullFolder,
    Damage::LinkToNothing,
    Damage::LinkToFile,
    Damage::StrangeName,
];

/// Applies the damage. `aside` is a file outside the store, which a link may point to.
fn apply(damage: Damage, path: &Path, aside: &Path) {
    let is_folder = path.is_dir();
    let content = if is_folder { Vec::new() } else { fs::read(path).unwrap_or_default() };
    if damage == Damage::StrangeName {
        let _ = fs::rename(path, path.with_file_name(OsStr::from_bytes(b"\xff\xfe.json")));
        return;
    }
    // Both as programs that overwrite a file and as those that replace it.
    if is_folder {
        fs::remove_dir_all(path).unwrap();
    } else if !matches!(damage, Damage::Garbage | Damage::Emptied | Damage::Halved) {
        let _ = fs::remove_file(path);
    }
    match damage {
        Damage::Garbage => fs::write(path, [0xa5; 5000]).unwrap(),
        Damage::Emptied => fs::write(path, []).unwrap(),
        Damage::Halved => fs::write(path, &content[..content.len() / 2]).unwrap(),
        Damage::Removed | Damage::StrangeName => {}
        Damage::Folder => fs::create_dir(path).unwrap(),
        Damage::FullFolder => {
            fs::create_dir(path).unwrap();
            fs::write(path.join("others"), b"precious").unwrap();
        }
        Damage::LinkToNothing => symlink("/nowhere/at/all", path).unwrap(),
        Damage::LinkToFile => symlink(aside, path).unwrap(),
    }
}

/// One store to which one damage after another is applied.
struct Trial {
    folder: tempfile::TempDir,
    bucket: Arc<dyn Bucket>,
    faults: Faults,
    pushed: Vec<(Digest, Vec<u8>)>,
}

impl Trial {
    fn new() -> Trial {
        let (bucket, faults) = faulty();
        Trial { folder: tempfile::tempdir().unwrap(), bucket, faults, pushed: Vec::new() }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn start(&self) -> Node {
        let setup = Setup { bucket: self.bucket.clone(), mode: ReplicationMode::WriteBack, ..Setup::default() };
        Node::start(&self.root(), setup)
    }

    async fn push(&mut self, node: &Node, what: &str) -> Digest {
        let content = format!("{what} {}", self.pushed.len()).repeat(200).into_bytes();
        let digest = node.push(&repository("a/b"), &content).await;
        self.pushed.push((digest, content));
        digest
    }

    async fn in_bucket(&self, node: &Node, digest: &Digest) -> Option<Vec<u8>> {
        let key = node.layout.data(digest);
        match self.bucket.get(&key, GetOptions::default()).await.unwrap() {
            Get::Found(object) => Some(collect_small(&key, object, 1 << 20).await.unwrap().0.to_vec()),
            Get::NotModified | Get::Missing => None,
        }
    }

    /// Creates a durable blob, a pending one, a session and a download; returns the paths of all of
    /// them.
    async fn prepare(&mut self, node: &Node) -> (Vec<PathBuf>, Digest) {
        self.faults.clear();
        let durable = self.push(node, "durable").await;
        node.replicate.durable(&repository("a/b"), &durable).await.unwrap();
        self.faults.add(Fault::error(Operation::Head, BucketErrorKind::Connection).on_key("/blobs/"));
        let pending = self.push(node, "pending").await;
        let session = node.open(&repository("a/b")).await;
        node.uploads.append(&repository("a/b"), &session, None, body(&[b"half"])).await.unwrap();
        let root = self.root();
        let fill = node.store.dirs.new_fill();
        fs::write(&fill, b"half a download").unwrap();
        let journaled = fs::read_dir(root.join("pending")).unwrap().map(|entry| entry.unwrap().path());
        let entry = journaled
            .into_iter()
            .find(|path| path.to_string_lossy().contains(&pending.hex()) && path.to_string_lossy().ends_with(".json"))
            .unwrap();
        let session = root.join("uploads").join(session.to_string());
        let file = node.store.contents.path(&pending);
        let places = [
            root.join("lock"),
            root.join("clean"),
            root.join("blobs"),
            root.join("blobs/sha256"),
            file.parent().unwrap().to_owned(),
            file,
            node.store.contents.path(&durable),
            root.join("fills"),
            fill,
            root.join("uploads"),
            session.join("data"),
            session.join("record"),
            root.join("pending"),
            entry,
        ];
        (places.into(), pending)
    }

    /// Checks that the node works and that all its content is correct.
    async fn works(&mut self, node: &Node, case: &str) {
        self.faults.clear();
        let digest = self.push(node, "afterwards").await;
        node.replicate.durable(&repository("a/b"), &digest).await.unwrap();
        eventually(&format!("{case}: nothing is pending"), || node.metrics.pending.blobs.get() == 0).await;
        for (digest, content) in self.pushed.iter().rev().take(12) {
            let stored = read(&node.store, digest).await;
            assert!(stored.is_none_or(|stored| stored == *content), "{case}: {digest} is served wrong");
            let sent = self.in_bucket(node, digest).await;
            assert!(sent.is_none_or(|sent| sent == *content), "{case}: {digest} was sent wrong");
        }
        assert!(read(&node.store, &digest).await.is_some(), "{case}: what was pushed is not stored");
    }
}

/// Whether a pending blob must still become durable: its content and its journal entry exist.
fn survives(place: &Path, damage: Damage, pending: &Digest) -> bool {
    let text = place.to_string_lossy();
    let is_entry = text.contains("/pending/");
    let is_content = text.ends_with(&pending.hex()) || text.ends_with("/blobs") || text.ends_with("/sha256");
    let is_shelf = place.file_name().is_some_and(|name| name == &pending.hex()[..2]);
    let is_lost = is_content || is_shelf || text.ends_with("/pending") || (is_entry && damage == Damage::Removed);
    !is_lost
}

/// Whether the damage is something that is not a directory among the upload sessions; repairing
/// that is not the store's job.
fn is_the_upload_flows(place: &Path, damage: Damage) -> bool {
    let is_session = place.parent().is_some_and(|parent| parent.ends_with("uploads"));
    is_session || (place.ends_with("uploads") && damage == Damage::FullFolder)
}

/// Damages one path after another in each way, while the node is `running` or stopped.
async fn every_place(running: bool) {
    let mut trial = Trial::new();
    let aside = trial.folder.path().join("aside");
    fs::write(&aside, b"of others").unwrap();
    let mut node = trial.start();
    let mut place = 0;
    loop {
        for damage in DAMAGES {
            let (places, pending) = trial.prepare(&node).await;
            let Some(place) = places.get(place) else { return node.stop().await };
            if is_the_upload_flows(place, damage) {
                continue;
            }
            let case = format!("{damage:?} at {}, {}", place.display(), if running { "running" } else { "stopped" });
            if running {
                apply(damage, place, &aside);
                trial.works(&node, &case).await;
                node.stop().await;
                node = trial.start();
            } else {
                node.stop().await;
                apply(damage, place, &aside);
                node = trial.start();
            }
            trial.works(&node, &case).await;
            if !running && survives(place, damage, &pending) {
                assert!(trial.in_bucket(&node, &pending).await.is_some(), "{case}: the pending blob is lost");
            }
            assert_eq!(fs::read(&aside).unwrap(), b"of others", "{case}");
        }
        place += 1;
    }
}

#[tokio::test]
async fn no_damage_to_the_store_of_a_stopped_node_prevents_its_start() {
    every_place(false).await;
}

#[tokio::test]
async fn no_damage_to_the_store_of_a_running_node_stops_it() {
    every_place(true).await;
}

/// All paths in a store.
fn everything(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn no_random_damage_prevents_a_start_or_causes_a_wrong_response() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut state = seed;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut trial = Trial::new();
    let aside = trial.folder.path().join("aside");
    fs::write(&aside, b"of others").unwrap();
    let mut node = trial.start();
    for round in 0..40 {
        trial.prepare(&node).await;
        node.stop().await;
        let mut done = Vec::new();
        for _ in 0..=random(4) {
            let places = everything(&trial.root());
            let (place, damage) = (&places[random(places.len())], DAMAGES[random(DAMAGES.len())]);
            if is_the_upload_flows(place, damage) {
                continue;
            }
            apply(damage, place, &aside);
            done.push((damage, place.clone()));
        }
        node = trial.start();
        trial.works(&node, &format!("seed {seed}, round {round}: {done:?}")).await;
    }
    node.stop().await;
}
