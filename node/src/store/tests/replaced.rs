//! Stored content that is stored again: the newly verified file replaces the existing one.

use super::super::LinkKind;
use crate::store::testing::{Fixture, content, corrupt, files_in, read, size, store_content};
use entrepot_oci::Repository;
use futures::TryStreamExt;
use std::os::unix::fs::MetadataExt;

#[tokio::test]
async fn content_stored_again_replaces_a_damaged_copy() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, bytes) = content(1, 700_000);
    store_content(&store, &digest, &bytes).await.unwrap();
    for again in ["a file", "bytes"] {
        corrupt(&fixture.file_of(&digest));
        match again {
            "a file" => store_content(&store, &digest, &bytes).await.unwrap(),
            _ => store.contents.insert(&digest, bytes.clone()).await.unwrap(),
        }
        assert!(std::fs::read(fixture.file_of(&digest)).unwrap() == bytes, "{again}");
        assert!(read(&store, &digest).await.unwrap() == bytes, "{again}");
    }
    assert_eq!((store.room.usage().used, store.room.usage().reserved), (size(&bytes), 0));
    assert_eq!(files_in(&fixture.config.path.join("fills")), 0);
    assert_eq!(store.contents.count(), 1);
}

#[tokio::test]
async fn an_unverified_copy_is_replaced_too() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, bytes) = content(1, 1000);
    store_content(&store, &digest, &bytes).await.unwrap();
    drop(store);
    corrupt(&fixture.file_of(&digest));
    let store = fixture.open();
    store_content(&store, &digest, &bytes).await.unwrap();
    assert_eq!(store.contents.size(&digest), Some(1000));
    assert!(read(&store, &digest).await.unwrap() == bytes);
    assert_eq!(store.room.usage().used, 1000);
}

#[tokio::test]
async fn links_uses_and_pins_outlive_the_replacement() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let repository = Repository::parse("a").unwrap();
    let (digest, bytes) = content(1, 1000);
    let _pin = store.contents.pin(&digest);
    store_content(&store, &digest, &bytes).await.unwrap();
    store.links.remember(&store.links.look(&digest), &repository, LinkKind::Layer, &digest);
    for _ in 0..20 {
        drop(store.contents.open(&digest).await.unwrap());
    }
    let before = store.contents.records()[0];
    store_content(&store, &digest, &bytes).await.unwrap();
    let after = store.contents.records()[0];
    assert!(store.links.age(&repository, LinkKind::Layer, &digest).is_some());
    assert!(after.frequency > before.frequency && after.pinned);
    assert_eq!(store.contents.remove(&digest).await.unwrap(), 0);
    store.links.forget(&repository, LinkKind::Layer, &digest);
    assert_eq!(store.links.age(&repository, LinkKind::Layer, &digest), None);
    store.links.remember(&store.links.look(&digest), &repository, LinkKind::Layer, &digest);
    store.links.forget_all(&digest);
    assert_eq!(store.links.age(&repository, LinkKind::Layer, &digest), None);
    assert!(read(&store, &digest).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_reader_of_a_replaced_file_continues_and_its_errors_do_not_matter() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, bytes) = content(1, 3 << 20);
    store_content(&store, &digest, &bytes).await.unwrap();
    let sound = store.contents.open(&digest).await.unwrap().unwrap();
    let cut = store.contents.open(&digest).await.unwrap().unwrap();
    let old = std::fs::File::options().write(true).open(fixture.file_of(&digest)).unwrap();
    store_content(&store, &digest, &bytes).await.unwrap();
    let pieces: Vec<_> = sound.stream(0..sound.size).try_collect().await.unwrap();
    assert!(pieces.concat() == bytes);
    old.set_len(1 << 20).unwrap();
    assert!(cut.stream(0..cut.size).try_collect::<Vec<_>>().await.is_err());
    assert_eq!(store.contents.size(&digest), Some(3 << 20), "the file that failed is not the one that is stored");
    assert!(read(&store, &digest).await.unwrap() == bytes);
}

#[tokio::test]
async fn a_file_adopted_by_the_bucket_stays_its_object_when_the_content_is_stored_again() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, bytes) = content(1, 1000);
    store_content(&store, &digest, &bytes).await.unwrap();
    let object = fixture.folder.path().join("object");
    std::fs::hard_link(fixture.file_of(&digest), &object).unwrap();
    assert!(read(&store, &digest).await.unwrap() == bytes);
    assert_eq!(fixture.evictions("corrupt"), 0);
    store_content(&store, &digest, &bytes).await.unwrap();
    assert_eq!(std::fs::metadata(&object).unwrap().nlink(), 1);
    store.contents.drop_if_hard_linked(&digest).await.unwrap();
    assert_eq!(store.contents.size(&digest), Some(1000), "a file with one hard link stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn content_that_is_stored_repeatedly_is_always_read_whole() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, bytes) = content(1, 100_000);
    store_content(&store, &digest, &bytes).await.unwrap();
    let storing = async {
        for _ in 0..100 {
            store_content(&store, &digest, &bytes).await.unwrap();
        }
    };
    let reading = async {
        for _ in 0..100 {
            assert!(read(&store, &digest).await.unwrap() == bytes);
        }
    };
    tokio::join!(storing, reading);
    assert_eq!((store.room.usage().used, store.room.usage().reserved, store.contents.count()), (100_000, 0, 1));
    assert_eq!(fixture.evictions("corrupt"), 0);
}
