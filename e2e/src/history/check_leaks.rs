//! Checks that stores keep to their capacity, and that nothing is left over.

use super::deployment::{Bucket, CAPACITY, Deployment, SESSION_EXPIRY, files};
use super::model::Model;
use super::plan::WITH_CLOCK;
use super::violations::Broken;
use crate::{usage, wait};
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Interval between measurements of the stores.
const LOOK: Duration = Duration::from_millis(200);
/// Measurements in a row for which a store must be too large: one walk may see files from before
/// and after an eviction.
const CONFIRMED: u32 = 3;
/// Nodes remove expired sessions every minute.
const SESSIONS_GONE: Duration = Duration::from_secs(75);
/// An idle node that has served a few clients has fewer descriptors than this.
const DESCRIPTORS: usize = 300;
/// The allocator keeps the memory of a burst: six clients that pushed 240 blobs of up to 6 MB left
/// 290 MiB, and twice as many clients 540 MiB. A leak of everything that passes through a node would
/// exceed this limit within a minute.
const MEMORY: u64 = 1 << 30;
/// Time limit for unfinished uploads in the bucket to disappear.
const CLEARED: Duration = Duration::from_secs(30);

/// Measures these stores until it is dropped.
pub async fn watch_sizes(model: &Model, stores: &[PathBuf]) {
    loop {
        for store in stores {
            let mut larger = 0;
            let mut size = 0;
            while larger < CONFIRMED {
                let folder = store.clone();
                size = tokio::task::spawn_blocking(move || size_of(&folder)).await.unwrap_or_default();
                if size <= CAPACITY.get() {
                    break;
                }
                larger += 1;
            }
            if larger == CONFIRMED {
                let explanation = format!("it has {size} bytes; its capacity is {} bytes", CAPACITY.get());
                model.violations.add(Broken::Bound, &format!("the store {}", store.display()), &explanation);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Bytes of content. Each file counts with its disk usage, without the rest of its last block,
/// because reservations count bytes. The access statistics are not content.
fn size_of(store: &Path) -> u64 {
    let mut counted = HashSet::new();
    let mut size = 0;
    for folder in ["blobs", "fills", "uploads", "pending"] {
        for file in files(&store.join(folder)) {
            let Ok(data) = fs::metadata(&file) else { continue };
            // A file that was renamed during the walk counts once.
            if counted.insert(data.ino()) {
                size += data.len().min(data.blocks() * 512);
            }
        }
    }
    size
}

/// Checks what must hold while no request is running.
pub async fn check_nodes(model: &Model, deployment: &Deployment) {
    for (place, node) in deployment.nodes.iter().enumerate() {
        let name = format!("node {}", node.plan.config.node.name);
        let descriptors = fs::read_dir(format!("/proc/{}/fd", node.id())).map_or(0, Iterator::count);
        if descriptors > DESCRIPTORS {
            let explanation = format!("{descriptors} file descriptors are open although no client sends requests");
            model.violations.add(Broken::Leak, &format!("{name}: descriptors"), &explanation);
        }
        let memory = usage::memory(node.id()).unwrap_or_default();
        if memory > MEMORY {
            let explanation = format!("it has {} MiB although no client sends requests", memory >> 20);
            model.violations.add(Broken::Leak, &format!("{name}: memory"), &explanation);
        }
        // The clock of this node was set back, so its sessions live longer.
        if place != WITH_CLOCK {
            for session in old_sessions(&node.store()) {
                let explanation = format!("it received nothing for longer than {:?}", SESSION_EXPIRY + SESSIONS_GONE);
                model.violations.add(Broken::Leak, &format!("{name}: session {session}"), &explanation);
            }
        }
    }
}

/// Sessions that should have been removed.
fn old_sessions(store: &Path) -> Vec<String> {
    let folders = fs::read_dir(store.join("uploads")).into_iter().flatten().flatten();
    let old = folders.filter(|folder| {
        let mut files = files(&folder.path());
        files.push(folder.path());
        let changed = files.iter().filter_map(|file| fs::metadata(file).ok()?.modified().ok()).max();
        changed.is_some_and(|changed| {
            SystemTime::now().duration_since(changed).is_ok_and(|age| age > SESSION_EXPIRY + SESSIONS_GONE)
        })
    });
    old.map(|folder| folder.file_name().to_string_lossy().into_owned()).collect()
}

/// Checks the bucket at the end.
pub async fn check_bucket(model: &Model, bucket: &Bucket) {
    let cleared =
        wait::until("nothing unfinished is in the bucket", CLEARED, || async { unfinished(bucket).await.is_empty() });
    if cleared.await.is_err() {
        let left = unfinished(bucket).await;
        let explanation = left.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
        model.violations.add(
            Broken::Leak,
            &format!("{} unfinished uploads or files in the bucket", left.len()),
            &explanation,
        );
    }
}

async fn unfinished(bucket: &Bucket) -> Vec<String> {
    match bucket {
        Bucket::S3 { server, .. } => match server.s3.open_multiparts().await {
            // Distribution removes its own unfinished uploads itself.
            Ok(keys) => keys.into_iter().filter(|key| !key.contains("/_uploads/")).collect(),
            Err(error) => vec![format!("{error:#}")],
        },
        Bucket::Folder(folder) => {
            // Lock files of keys and of running nodes stay; their number is bounded.
            let unfinished = [".entrepot/put", ".entrepot/multipart"].map(|name| files(&folder.path().join(name)));
            unfinished.concat().iter().map(|path| path.display().to_string()).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn the_size_of_a_store_counts_each_content_file_once() {
        let store = TempDir::new().unwrap();
        let (blobs, uploads) = (store.path().join("blobs/sha256/aa"), store.path().join("uploads/1"));
        fs::create_dir_all(&blobs).unwrap();
        fs::create_dir_all(&uploads).unwrap();
        fs::write(blobs.join("aa"), vec![1; 10_000]).unwrap();
        fs::hard_link(blobs.join("aa"), uploads.join("data")).unwrap();
        fs::File::create(blobs.join("hole")).unwrap().set_len(1 << 20).unwrap();
        fs::write(store.path().join("records.redb"), vec![1; 10_000]).unwrap();
        assert_eq!(size_of(store.path()), 10_000);
    }

    #[test]
    fn a_session_is_old_if_none_of_its_files_changed_for_too_long() {
        let store = TempDir::new().unwrap();
        for name in ["old", "new"] {
            let session = store.path().join("uploads").join(name);
            fs::create_dir_all(&session).unwrap();
            fs::write(session.join("data"), "x").unwrap();
        }
        let old = SystemTime::now() - (SESSION_EXPIRY + SESSIONS_GONE + Duration::from_secs(10));
        for path in ["uploads/old", "uploads/old/data"] {
            fs::File::open(store.path().join(path)).unwrap().set_modified(old).unwrap();
        }
        assert_eq!(old_sessions(store.path()), ["old"]);
    }
}
