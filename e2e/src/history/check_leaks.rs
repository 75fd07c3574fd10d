//! Whether stores keep to their capacity, and whether nothing is left behind.

use super::fleet::{Bucket, CAPACITY, Fleet, SESSION_EXPIRY, files};
use super::plan::WITH_CLOCK;
use super::violations::Broken;
use super::world::World;
use crate::{usage, wait};
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How often the size of the stores is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// A store that is too large is looked at again: a walk sees files of before and after a cleaning.
const CONFIRMED: u32 = 3;
/// A node looks for expired sessions every minute.
const SESSIONS_GONE: Duration = Duration::from_secs(75);
/// A node of a few clients has fewer descriptors when nobody asks it for anything.
const DESCRIPTORS: usize = 300;
/// The allocator keeps what a burst used: six clients that pushed 240 blobs of up to 6 MB left 290 MiB, and twice as many
/// clients 540 MiB. A leak of all that passes through a node would be above this in a minute.
const MEMORY: u64 = 1 << 30;
/// How long what is unfinished in the bucket may take to go.
const CLEARED: Duration = Duration::from_secs(30);

/// Looks at the sizes of these stores until it is dropped.
pub async fn watch_sizes(world: &World, stores: &[PathBuf]) {
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
                world.violations.add(Broken::Bound, &format!("the store {}", store.display()), &explanation);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Bytes of content: a file counts with what it takes on the disk, but not with the rest of its last block, which a
/// reservation in bytes does not have. Its records are not content.
fn size_of(store: &Path) -> u64 {
    let mut counted = HashSet::new();
    let mut size = 0;
    for folder in ["blobs", "fills", "uploads", "pending"] {
        for file in files(&store.join(folder)) {
            let Ok(data) = fs::metadata(&file) else { continue };
            // A file that was renamed under the walk is one file.
            if counted.insert(data.ino()) {
                size += data.len().min(data.blocks() * 512);
            }
        }
    }
    size
}

/// What must be true whenever nothing is under way.
pub async fn check_nodes(world: &World, fleet: &Fleet) {
    for (place, node) in fleet.nodes.iter().enumerate() {
        let name = format!("node {}", node.plan.config.node.name);
        let descriptors = fs::read_dir(format!("/proc/{}/fd", node.id())).map_or(0, Iterator::count);
        if descriptors > DESCRIPTORS {
            let explanation = format!("{descriptors} file descriptors are open though nobody asks for anything");
            world.violations.add(Broken::Leak, &format!("{name}: descriptors"), &explanation);
        }
        let memory = usage::memory(node.id()).unwrap_or_default();
        if memory > MEMORY {
            let explanation = format!("it has {} MiB though nobody asks for anything", memory >> 20);
            world.violations.add(Broken::Leak, &format!("{name}: memory"), &explanation);
        }
        // By its own clock, which was set back, sessions live longer.
        if place != WITH_CLOCK {
            for session in old_sessions(&node.store()) {
                let explanation = format!("it received nothing for longer than {:?}", SESSION_EXPIRY + SESSIONS_GONE);
                world.violations.add(Broken::Leak, &format!("{name}: the session {session}"), &explanation);
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

/// What must be true of the bucket at the end.
pub async fn check_bucket(world: &World, bucket: &Bucket) {
    let cleared =
        wait::until("nothing unfinished is in the bucket", CLEARED, || async { unfinished(bucket).await.is_empty() });
    if cleared.await.is_err() {
        let left = unfinished(bucket).await;
        let explanation = left.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
        world.violations.add(
            Broken::Leak,
            &format!("{} unfinished uploads or files in the bucket", left.len()),
            &explanation,
        );
    }
}

async fn unfinished(bucket: &Bucket) -> Vec<String> {
    match bucket {
        Bucket::S3 { server, .. } => match server.s3.open_multiparts().await {
            // Distribution's own unfinished uploads are its own to remove.
            Ok(keys) => keys.into_iter().filter(|key| !key.contains("/_uploads/")).collect(),
            Err(error) => vec![format!("{error:#}")],
        },
        Bucket::Folder(folder) => {
            // Locks of keys and of running nodes stay; there is a bounded number of them.
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
    fn a_store_has_the_size_of_its_content_and_each_file_counts_once() {
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
    fn a_session_is_left_behind_when_nothing_of_it_changed_for_too_long() {
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
