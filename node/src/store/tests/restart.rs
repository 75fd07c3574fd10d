//! What a restart keeps, and what it does not trust.

use super::super::LinkKind;
use crate::store::KnownTag;
use crate::store::testing::{Fixture, content, corrupt, files_in, read, size, store_content};
use entrepot_bucket::ETag;
use entrepot_oci::{Repository, Tag};
use futures::TryStreamExt;
use std::time::Duration;

#[tokio::test]
async fn content_statistics_links_and_tags_survive_a_clean_restart() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (repository, tag) = (Repository::parse("a/b").unwrap(), Tag::parse("v1").unwrap());
    let mut digests = Vec::new();
    for seed in 0..5 {
        let (digest, bytes) = content(seed, 1000);
        store_content(&store, &digest, &bytes).await.unwrap();
        fixture.clock.advance(Duration::from_secs(1));
        digests.push(digest);
    }
    for digest in digests.iter().skip(2) {
        drop(store.contents.open(digest).await.unwrap());
        fixture.clock.advance(Duration::from_millis(7));
    }
    store.links.remember(&store.links.look(&digests[0]), &repository, LinkKind::Layer, &digests[0]);
    store.links.remember(&store.links.look(&digests[1]), &repository, LinkKind::Revision, &digests[1]);
    let known = KnownTag { digest: digests[1], etag: ETag("x".into()), seen: fixture.clock.uptime() };
    store.tags.remember(&store.tags.look(&repository, &tag), &repository, &tag, known.digest, known.etag.clone());
    store.contents.remove(&digests[4]).await.unwrap();
    let sorted = |store: &crate::store::Store| {
        let mut records = store.contents.records();
        records.sort_by_key(|record| record.digest);
        records
    };
    let before = sorted(&store);
    store.close().unwrap();
    drop(store);

    let store = fixture.open();
    assert_eq!(sorted(&store), before);
    assert_eq!(store.room.usage().used, 4000);
    assert_eq!(store.links.age(&repository, LinkKind::Layer, &digests[0]), Some(Duration::ZERO));
    assert_eq!(store.links.age(&repository, LinkKind::Revision, &digests[1]), Some(Duration::ZERO));
    assert_eq!(store.links.age(&repository, LinkKind::Layer, &digests[1]), None);
    assert_eq!(store.tags.get(&repository, &tag), Some(known));

    store.tags.forget(&repository, &tag);
    store.links.forget(&repository, LinkKind::Layer, &digests[0]);
    store.close().unwrap();
    drop(store);
    let store = fixture.open();
    assert_eq!(store.tags.get(&repository, &tag), None);
    assert_eq!(store.links.age(&repository, LinkKind::Layer, &digests[0]), None);
}

#[tokio::test]
async fn a_killed_node_keeps_what_its_last_batch_wrote() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, bytes) = content(1, 1000);
    store_content(&store, &digest, &bytes).await.unwrap();
    store.inner.write_records();
    let written = store.contents.records();
    fixture.clock.advance(Duration::from_secs(1));
    drop(store.contents.open(&digest).await.unwrap());
    assert_ne!(store.contents.records(), written);
    drop(store);
    assert_eq!(fixture.open().contents.records(), written);
}

#[tokio::test]
async fn a_start_closes_the_store_of_an_earlier_version_to_other_users() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::roomy();
    fixture.open().close().unwrap();
    let root = &fixture.config.path;
    let mode = |folder: &std::path::Path| std::fs::metadata(folder).unwrap().permissions().mode() & 0o777;
    let open = |folder: &std::path::Path, mode| {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    // As on a volume whose group the kubelet has set.
    open(root, 0o775);
    for folder in ["blobs", "fills", "uploads", "pending"] {
        open(&root.join(folder), 0o775);
    }
    let _store = fixture.open();
    for folder in ["blobs", "fills", "uploads", "pending"] {
        assert_eq!(mode(&root.join(folder)), 0o700, "{folder}");
    }
    assert_eq!(mode(root), 0o775, "the permissions of a volume are the administrator's");
}

#[tokio::test]
async fn damaged_statistics_are_replaced_and_the_content_is_kept() {
    for damage in [0..1 << 20, 0..100, 64..4096, 4096..8192, 5000..5001] {
        let fixture = Fixture::roomy();
        let store = fixture.open();
        let (digest, bytes) = content(1, 1000);
        store_content(&store, &digest, &bytes).await.unwrap();
        store.close().unwrap();
        drop(store);
        let file = fixture.config.path.join("records.redb");
        let mut records = std::fs::read(&file).unwrap();
        let end = damage.end.min(records.len());
        records[damage.start..end].fill(0xa5);
        std::fs::write(&file, &records).unwrap();
        let store = fixture.open();
        assert!(read(&store, &digest).await.unwrap() == bytes, "{damage:?}");
        store.close().unwrap();
        drop(store);
        assert!(read(&fixture.open(), &digest).await.unwrap() == bytes, "{damage:?}");
    }
}

#[tokio::test]
async fn after_an_unclean_stop_a_corrupt_file_is_not_served_but_removed() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (sound, sound_bytes) = content(1, 700_000);
    let (broken, broken_bytes) = content(2, 700_000);
    for (digest, bytes) in [(&sound, &sound_bytes), (&broken, &broken_bytes)] {
        store_content(&store, digest, bytes).await.unwrap();
    }
    drop(store);
    corrupt(&fixture.file_of(&broken));
    let store = fixture.open();
    let readers = (0..8).map(|_| store.contents.open(&broken));
    assert!(futures::future::join_all(readers).await.into_iter().all(|opened| opened.unwrap().is_none()));
    assert_eq!(store.contents.read_small(&broken).await.unwrap(), None);
    assert!(!fixture.file_of(&broken).exists());
    assert_eq!(fixture.metrics.mismatches.with_label_values(&["store"]).get(), 1);
    assert_eq!(fixture.evictions("corrupt"), 1);
    assert_eq!(store.room.usage().used, 700_000);
    assert!(read(&store, &sound).await.unwrap() == sound_bytes);
    store_content(&store, &broken, &broken_bytes).await.unwrap();
    assert!(read(&store, &broken).await.unwrap() == broken_bytes);
}

#[tokio::test]
async fn content_unused_between_an_unclean_and_a_clean_stop_is_still_verified() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (used, used_bytes) = content(1, 1000);
    let (unused, unused_bytes) = content(2, 1000);
    store_content(&store, &used, &used_bytes).await.unwrap();
    store_content(&store, &unused, &unused_bytes).await.unwrap();
    drop(store);
    let store = fixture.open();
    assert!(read(&store, &used).await.is_some());
    store.close().unwrap();
    drop(store);
    corrupt(&fixture.file_of(&unused));
    let store = fixture.open();
    assert!(read(&store, &unused).await.is_none());
    assert!(read(&store, &used).await.is_some());
}

#[tokio::test]
async fn a_file_whose_size_changed_is_removed() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, bytes) = content(1, 1000);
    store_content(&store, &digest, &bytes).await.unwrap();
    std::fs::write(fixture.file_of(&digest), b"short").unwrap();
    assert!(store.contents.open(&digest).await.unwrap().is_none());
    assert_eq!(store.contents.size(&digest), None);
    assert_eq!(store.room.usage().used, 0);
}

#[tokio::test]
async fn a_file_truncated_while_it_is_read_ends_the_stream_with_an_error_and_is_removed() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, bytes) = content(1, 3 << 20);
    store_content(&store, &digest, &bytes).await.unwrap();
    let open = store.contents.open(&digest).await.unwrap().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(fixture.file_of(&digest)).unwrap();
    file.set_len(1 << 20).unwrap();
    assert!(open.stream(0..open.size).try_collect::<Vec<_>>().await.is_err());
    assert_eq!(store.contents.size(&digest), None);
    assert!(!fixture.file_of(&digest).exists());
}

#[tokio::test]
async fn a_start_removes_unknown_files_and_ignores_unknown_folders() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, bytes) = content(1, 1000);
    store_content(&store, &digest, &bytes).await.unwrap();
    std::fs::write(store.dirs.new_fill(), b"half a download").unwrap();
    drop(store);
    let shelf = fixture.file_of(&digest).parent().unwrap().to_owned();
    let strange = shelf.join("0123.tmp");
    std::fs::write(&strange, b"x").unwrap();
    // The right name in the wrong directory.
    let (other, _) = content(2, 10);
    let misplaced = shelf.join(other.hex());
    assert_ne!(other.hex()[..2], digest.hex()[..2]);
    std::fs::write(&misplaced, b"x").unwrap();
    // The layout in which CNCF Distribution stores blobs.
    let foreign = fixture.config.path.join("blobs/sha256/00").join(format!("00{}", &other.hex()[2..]));
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("data"), b"precious").unwrap();
    let store = fixture.open();
    assert!(!strange.exists() && !misplaced.exists());
    assert_eq!(std::fs::read(foreign.join("data")).unwrap(), b"precious");
    assert_eq!(files_in(&fixture.config.path.join("fills")), 0);
    assert_eq!(store.room.usage().used, size(&bytes));
}

#[tokio::test]
async fn a_start_removes_files_adopted_by_the_bucket_except_pinned_ones() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let mut stored = Vec::new();
    for seed in 0..3 {
        let (digest, bytes) = content(seed, 1000);
        store_content(&store, &digest, &bytes).await.unwrap();
        stored.push(digest);
    }
    // As a crash leaves it after the bucket has linked the file and before the store has removed
    // its own link.
    let bucket = tempfile::tempdir_in(fixture.folder.path()).unwrap();
    for digest in &stored[..2] {
        std::fs::hard_link(store.contents.path(digest), bucket.path().join(digest.hex())).unwrap();
    }
    store.close().unwrap();
    drop(store);

    let store = fixture.open();
    let pin = store.contents.pin(&stored[1]);
    store.contents.drop_hard_links();
    assert_eq!(stored.iter().map(|digest| store.contents.contains(digest)).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(store.room.usage().used, 2000);
    drop(pin);
    store.contents.drop_if_hard_linked(&stored[1]).await.unwrap();
    store.contents.drop_if_hard_linked(&stored[2]).await.unwrap();
    assert!(!store.contents.contains(&stored[1]));
    assert_eq!(store.contents.size(&stored[2]), Some(1000), "a file with one hard link stays");
    for digest in &stored[..2] {
        assert_eq!(std::fs::metadata(bucket.path().join(digest.hex())).unwrap().len(), 1000);
    }
}
