use super::super::contract;
use super::*;
use bytes::Bytes;
use entrepot_runtime::clock::Timestamp;
use std::fs::File;
use std::sync::atomic::Ordering;
use std::time::Duration;

struct Folder {
    root: tempfile::TempDir,
    bucket: FileSystem,
}

fn folder() -> Folder {
    let root = tempfile::tempdir().unwrap();
    let bucket = FileSystem::open(root.path(), Clock::system()).unwrap();
    Folder { root, bucket }
}

fn bytes(content: &'static str) -> PutBody {
    PutBody::Bytes(Bytes::from_static(content.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_the_contract() {
    let folder = folder();
    contract::holds(Arc::new(folder.bucket.clone()), "team-a/").await;
    assert_eq!(left_over(&folder), Vec::<PathBuf>::new());
}

/// The files in the bucket's own directory.
fn left_over(folder: &Folder) -> Vec<PathBuf> {
    let own = folder.root.path().join(OWN_FOLDER);
    let entries = ["put", "multipart"].map(|name| std::fs::read_dir(own.join(name)).unwrap());
    entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

#[tokio::test]
async fn a_key_is_the_path_of_a_plain_file() {
    let folder = folder();
    let key = Key::new("docker/registry/v2/blobs/sha256/ab/abc/data");
    folder.bucket.put(&key, bytes("content"), PutMode::IfAbsent).await.unwrap();
    assert_eq!(std::fs::read(folder.root.path().join(key.as_str())).unwrap(), b"content");
    // Files of another program are served too.
    std::fs::write(folder.root.path().join("docker/other"), "theirs").unwrap();
    assert_eq!(folder.bucket.head(&Key::new("docker/other")).await.unwrap().unwrap().size, 6);
}

#[tokio::test]
async fn the_last_delete_removes_the_folders_except_the_root() {
    let folder = folder();
    for key in ["docker/a/b/data", "docker/a/c/data"] {
        folder.bucket.put(&Key::new(key), bytes("x"), PutMode::IfAbsent).await.unwrap();
    }
    folder.bucket.delete(&Key::new("docker/a/b/data")).await.unwrap();
    assert!(!folder.root.path().join("docker/a/b").exists() && folder.root.path().join("docker/a/c").exists());
    folder.bucket.delete(&Key::new("docker/a/c/data")).await.unwrap();
    assert!(!folder.root.path().join("docker").exists() && folder.root.path().exists());
}

#[tokio::test]
async fn a_folder_left_by_an_interrupted_put_is_not_listed() {
    let folder = folder();
    folder.bucket.put(&Key::new("tags/b/link"), bytes("x"), PutMode::IfAbsent).await.unwrap();
    std::fs::create_dir_all(folder.root.path().join("tags/a/current")).unwrap();
    let options = ListOptions { prefix: "tags/".into(), delimiter: true, after: None, max: 10 };
    assert_eq!(folder.bucket.list(options).await.unwrap().prefixes, ["tags/b/"]);
}

#[tokio::test]
async fn two_nodes_share_a_folder() {
    let folder = folder();
    let other = FileSystem::open(folder.root.path(), Clock::system()).unwrap();
    let key = Key::new("docker/data");
    let answers = futures::join!(
        folder.bucket.put(&key, bytes("one"), PutMode::IfAbsent),
        other.put(&key, bytes("other"), PutMode::IfAbsent)
    );
    let exists = [answers.0.unwrap(), answers.1.unwrap()].iter().filter(|put| **put == Put::Exists).count();
    assert_eq!(exists, 1);
}

#[tokio::test]
async fn files_of_a_killed_node_are_removed_at_once_and_those_of_a_running_one_are_kept() {
    let Folder { root, bucket: living } = folder();
    let open = || FileSystem::open(root.path(), Clock::system()).unwrap();
    let killed = open();
    let key = Key::new("a");
    let mut uploads = Vec::new();
    for bucket in [&living, &killed] {
        let upload = bucket.multipart_begin(&key).await.unwrap();
        bucket.multipart_part(&key, &upload, 1, bytes("part")).await.unwrap();
        uploads.push(upload);
    }
    let in_use = living.tree.temporaries.create().unwrap();
    // A killed process runs no destructors: its file remains, and the kernel closes it.
    let path = {
        let left = killed.tree.temporaries.create().unwrap();
        let path = left.path().to_owned();
        std::fs::hard_link(&path, root.path().join("kept")).unwrap();
        path
    };
    std::fs::rename(root.path().join("kept"), &path).unwrap();
    assert!(path.exists());

    open();
    let folder = Folder { root, bucket: living.clone() };
    assert_eq!(left_over(&folder).len(), 4, "all of them are alive");
    drop(killed);
    FileSystem::open(folder.root.path(), Clock::system()).unwrap();
    let upload = folder.root.path().join(OWN_FOLDER).join("multipart").join(&uploads[0].0);
    assert_eq!(left_over(&folder), [in_use.path().to_owned(), upload]);
    drop(in_use);
    let part = living.multipart_part(&key, &uploads[0], 1, bytes("part")).await.unwrap();
    let put = living.multipart_complete(&key, &uploads[0], vec![part], PutMode::IfAbsent).await.unwrap();
    assert!(matches!(put, Put::Done(_)));
}

/// As on FUSE, FAT, or NFS: a feature that the file system has rejected once is not tried again.
fn lacking(links: bool, exclusive_renames: bool) -> Folder {
    let folder = folder();
    let lacks = folder.bucket.tree.temporaries.lacks();
    lacks.links.store(links, Ordering::Relaxed);
    lacks.exclusive_renames.store(exclusive_renames, Ordering::Relaxed);
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_without_hard_links_keeps_the_contract() {
    for exclusive_renames in [false, true] {
        let folder = lacking(true, exclusive_renames);
        contract::holds(Arc::new(folder.bucket.clone()), "team-a/").await;
        assert_eq!(left_over(&folder), Vec::<PathBuf>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_without_hard_links_or_exclusive_renames_do_not_both_put_first() {
    let folder = lacking(true, true);
    let other = FileSystem::open(folder.root.path(), Clock::system()).unwrap();
    let lacks = other.tree.temporaries.lacks();
    lacks.links.store(true, Ordering::Relaxed);
    lacks.exclusive_renames.store(true, Ordering::Relaxed);
    for round in 0..50 {
        let key = Key::new(format!("docker/{round}/data"));
        let puts = [&folder.bucket, &other].map(|bucket| {
            let (bucket, key) = (bucket.clone(), key.clone());
            async move { bucket.put(&key, bytes("x"), PutMode::IfAbsent).await.unwrap() }
        });
        let answers = futures::future::join_all(puts).await;
        assert_eq!(answers.iter().filter(|put| **put == Put::Exists).count(), 1, "{answers:?}");
    }
}

#[test]
fn a_lack_of_hard_links_or_exclusive_renames_is_recognized_by_its_errno() {
    use rustix::io::Errno;
    let refused = |errno: Errno| temporary::refuses_links(&errno.into());
    assert!([Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS].map(refused).iter().all(|refused| *refused));
    assert!(![Errno::EXIST, Errno::NOENT, Errno::NOSPC].map(refused).iter().any(|refused| *refused));
}

/// Two nodes with several threads each: every writer increments the number in one object.
#[tokio::test(flavor = "multi_thread")]
async fn no_conditional_change_is_lost_among_many_nodes_and_threads() {
    const WRITERS: usize = 6;
    const ROUNDS: usize = 20;
    let folder = folder();
    let other = FileSystem::open(folder.root.path(), Clock::system()).unwrap();
    let key = Key::new("docker/tag");
    folder.bucket.put(&key, PutBody::Bytes("0".into()), PutMode::Overwrite).await.unwrap();
    let writers = (0..WRITERS).map(|number| {
        let bucket = if number % 2 == 0 { folder.bucket.clone() } else { other.clone() };
        let key = key.clone();
        async move {
            for _ in 0..ROUNDS {
                loop {
                    let (content, version) = crate::get_small(&bucket, &key, 10).await.unwrap().unwrap();
                    let number: usize = std::str::from_utf8(&content).unwrap().parse().unwrap();
                    let body = PutBody::Bytes((number + 1).to_string().into());
                    if let Put::Done(_) = bucket.put(&key, body, PutMode::IfMatch(Some(version))).await.unwrap() {
                        break;
                    }
                }
            }
        }
    });
    futures::future::join_all(writers).await;
    let (content, _) = crate::get_small(&other, &key, 10).await.unwrap().unwrap();
    assert_eq!(content, (WRITERS * ROUNDS).to_string());
}

#[tokio::test]
async fn every_write_that_replaces_or_removes_waits_for_the_lock_of_its_key() {
    use futures::FutureExt;
    let folder = folder();
    let other = FileSystem::open(folder.root.path(), Clock::system()).unwrap();
    let key = Key::new("docker/tag");
    let Put::Done(version) = folder.bucket.put(&key, bytes("x"), PutMode::Overwrite).await.unwrap() else { panic!() };
    let held = other.tree.temporaries.locks.hold(key.as_str()).unwrap();
    let versioned = PutMode::IfMatch(Some(version.clone()));
    let mut writes = vec![
        folder.bucket.put(&key, bytes("y"), PutMode::Overwrite).map(|put| put.map(|_| ())).boxed(),
        folder.bucket.put(&key, bytes("y"), versioned).map(|put| put.map(|_| ())).boxed(),
        folder.bucket.delete(&key),
        folder.bucket.delete_if_match(&key, &version).map(|deleted| deleted.map(|_| ())).boxed(),
    ];
    for write in &mut writes {
        assert!(tokio::time::timeout(Duration::from_millis(50), write).await.is_err(), "it waits");
    }
    drop(held);
    for write in writes {
        write.await.unwrap();
    }
}

#[tokio::test]
async fn a_file_that_changed_is_neither_adopted_nor_copied() {
    use entrepot_oci::{Algorithm, Digest};
    for copied in [false, true] {
        let folder = folder();
        folder.bucket.tree.sync_failed.store(copied, Ordering::Relaxed);
        let source = folder.root.path().join("stored");
        let checksum = crate::Checksum::Digest(Digest::of(Algorithm::Sha256, b"content"));
        let file = || PutBody::File { path: source.clone(), range: 0..7, checksum: Some(checksum) };
        let key = Key::new("docker/data");
        std::fs::write(&source, "c0ntent").unwrap();
        let refused = folder.bucket.put(&key, file(), PutMode::Overwrite).await.unwrap_err();
        assert_eq!(refused.kind, BucketErrorKind::WrongContent);
        assert!(folder.bucket.head(&key).await.unwrap().is_none());
        assert_eq!(left_over(&folder), Vec::<PathBuf>::new());
        std::fs::write(&source, "content").unwrap();
        folder.bucket.put(&key, file(), PutMode::Overwrite).await.unwrap();
        let object = std::fs::metadata(folder.root.path().join(key.as_str())).unwrap();
        assert_eq!((object.len(), object.nlink()), (7, if copied { 1 } else { 2 }));
    }
}

#[tokio::test]
async fn versions_of_one_size_written_at_the_same_time_differ() {
    let root = tempfile::tempdir().unwrap();
    // The clock stands still, as it does for the kernel between two ticks.
    let bucket = FileSystem::open(root.path(), Clock::manual(Timestamp(1_700_000_000_000))).unwrap();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..50 {
        let Put::Done(etag) = bucket.put(&Key::new("tag"), bytes("x"), PutMode::Overwrite).await.unwrap() else {
            panic!("an overwrite is always done")
        };
        assert!(seen.insert(etag));
    }
}

#[tokio::test]
async fn an_upload_id_cannot_escape_the_folder() {
    let folder = folder();
    std::fs::create_dir(folder.root.path().join("precious")).unwrap();
    let id = MultipartId("../../precious".into());
    folder.bucket.multipart_abort(&Key::new("a"), &id).await.unwrap();
    assert!(folder.root.path().join("precious").exists());
    let sent = folder.bucket.multipart_part(&Key::new("a"), &id, 1, bytes("x")).await;
    assert_eq!(sent.unwrap_err().kind, BucketErrorKind::Refused);
}

#[tokio::test]
async fn a_file_truncated_while_it_is_read_ends_with_an_error() {
    let folder = folder();
    let key = Key::new("data");
    let content = vec![1; 3 * super::super::READ_SIZE];
    folder.bucket.put(&key, PutBody::Bytes(content.into()), PutMode::IfAbsent).await.unwrap();
    let Get::Found(mut object) = folder.bucket.get(&key, GetOptions::default()).await.unwrap() else {
        panic!("the object exists")
    };
    assert!(object.body.next().await.unwrap().is_ok());
    File::options().write(true).open(folder.root.path().join("data")).unwrap().set_len(10).unwrap();
    assert_eq!(object.body.next().await.unwrap().unwrap_err().kind, BucketErrorKind::Truncated);
    assert!(tokio::time::timeout(Duration::from_secs(5), object.body.next()).await.unwrap().is_none());
}

#[test]
fn a_full_disk_is_distinguished_from_a_failing_one() {
    let of = |errno: rustix::io::Errno| kind_of(&errno.into());
    assert_eq!(of(rustix::io::Errno::NOSPC), BucketErrorKind::Full);
    assert_eq!(of(rustix::io::Errno::DQUOT), BucketErrorKind::Full);
    assert_eq!(of(rustix::io::Errno::IO), BucketErrorKind::Server);
    assert_eq!(of(rustix::io::Errno::ROFS), BucketErrorKind::Denied);
}

#[tokio::test]
async fn a_whole_file_of_the_same_file_system_becomes_the_object_without_a_copy() {
    let folder = folder();
    let source = folder.root.path().join("stored");
    std::fs::write(&source, "content").unwrap();
    let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
    let file = |range| PutBody::File { path: source.clone(), range, checksum: None };

    let whole = Key::new("docker/whole");
    folder.bucket.put(&whole, file(0..7), PutMode::IfAbsent).await.unwrap();
    assert_eq!(inode(&folder.root.path().join(whole.as_str())), inode(&source));
    let exists = folder.bucket.put(&whole, file(0..7), PutMode::IfAbsent).await.unwrap();
    assert_eq!(exists, Put::Exists);

    for (key, range, content) in [("docker/end", 3..7, "tent"), ("docker/beginning", 0..3, "con")] {
        folder.bucket.put(&Key::new(key), file(range), PutMode::Overwrite).await.unwrap();
        let object = folder.root.path().join(key);
        assert_eq!(std::fs::read_to_string(&object).unwrap(), content);
        assert_ne!(inode(&object), inode(&source), "a range of a file is a separate file");
    }
    assert_eq!(left_over(&folder), Vec::<PathBuf>::new());
    std::fs::remove_file(&source).unwrap();
    assert_eq!(std::fs::read_to_string(folder.root.path().join(whole.as_str())).unwrap(), "content");
}

#[tokio::test]
async fn after_a_failed_sync_files_are_copied() {
    let folder = folder();
    let source = folder.root.path().join("stored");
    std::fs::write(&source, "content").unwrap();
    folder.bucket.tree.sync_failed.store(true, Ordering::Relaxed);
    let key = Key::new("docker/copied");
    folder
        .bucket
        .put(&key, PutBody::File { path: source.clone(), range: 0..7, checksum: None }, PutMode::IfAbsent)
        .await
        .unwrap();
    let object = std::fs::metadata(folder.root.path().join(key.as_str())).unwrap();
    assert_eq!((object.len(), object.nlink()), (7, 1));
    assert_eq!(std::fs::metadata(&source).unwrap().nlink(), 1);
}
