//! A file that is not the verified one is verified before its next use, while the node runs and
//! after a stop.

use crate::store::Store;
use crate::store::testing::{Fixture, content, corrupt, read, size, store_content, touch};
use bytes::Bytes;
use std::fs::{self, File};
use std::path::Path;

/// The change, and its name.
type Change = (&'static str, fn(&Path));

/// Changes that another program may make to a file. Each of them changes the times or the inode.
const CHANGES: [Change; 7] = [
    ("a byte", corrupt),
    ("cut", |path| File::options().write(true).open(path).unwrap().set_len(300).unwrap()),
    ("emptied", |path| File::options().write(true).open(path).unwrap().set_len(0).unwrap()),
    ("longer", |path| File::options().write(true).open(path).unwrap().set_len(3000).unwrap()),
    ("replaced", |path| {
        let other = path.with_extension("other");
        fs::write(&other, vec![7; 2000]).unwrap();
        fs::rename(&other, path).unwrap();
    }),
    ("removed", |path| fs::remove_file(path).unwrap()),
    ("a folder", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir_all(path.join("data")).unwrap();
    }),
];

async fn stored(fixture: &Fixture) -> (Store, entrepot_oci::Digest, Bytes) {
    let store = fixture.open();
    let (digest, bytes) = content(1, 2000);
    store_content(&store, &digest, &bytes).await.unwrap();
    (store, digest, bytes)
}

async fn is_refused_and_can_come_again(fixture: &Fixture, store: &Store, change: &str) {
    let (digest, bytes) = content(1, 2000);
    assert!(read(store, &digest).await.is_none(), "{change}");
    assert_eq!(store.contents.read_small(&digest).await.unwrap(), None, "{change}");
    assert!(!store.contents.contains(&digest) && store.room.usage().used == 0, "{change}");
    store_content(store, &digest, &bytes).await.unwrap();
    assert!(read(store, &digest).await.unwrap() == bytes, "{change}");
    assert_eq!(store.room.usage().used, size(&bytes), "{change}");
    let mismatches = fixture.metrics.mismatches.with_label_values(&["store"]).get();
    assert!(mismatches == 1 || change == "removed" || change == "a folder", "{change}: {mismatches}");
}

#[tokio::test]
async fn a_file_changed_while_the_node_runs_is_not_served() {
    for (change, apply) in CHANGES {
        let fixture = Fixture::roomy();
        let (store, digest, bytes) = stored(&fixture).await;
        assert!(read(&store, &digest).await.unwrap() == bytes);
        apply(&fixture.file_of(&digest));
        is_refused_and_can_come_again(&fixture, &store, change).await;
    }
}

#[tokio::test]
async fn a_file_changed_while_the_node_is_stopped_is_not_served() {
    for (change, apply) in CHANGES {
        let fixture = Fixture::roomy();
        let (store, digest, _) = stored(&fixture).await;
        store.close().unwrap();
        drop(store);
        apply(&fixture.file_of(&digest));
        let store = fixture.open();
        assert_eq!(store.contents.size(&digest), None, "{change}: the size is not verified");
        is_refused_and_can_come_again(&fixture, &store, change).await;
    }
}

#[tokio::test]
async fn an_unchanged_file_is_not_verified_again() {
    let fixture = Fixture::roomy();
    let (store, digest, bytes) = stored(&fixture).await;
    for _ in 0..3 {
        assert!(read(&store, &digest).await.unwrap() == bytes);
    }
    store.close().unwrap();
    drop(store);
    let store = fixture.open();
    assert_eq!(store.contents.size(&digest), Some(2000), "the size is known without reading the file");
    store.close().unwrap();
    drop(store);
    assert_eq!(fixture.open().contents.size(&digest), Some(2000), "and without ever using the content");
}

#[tokio::test]
async fn a_touched_but_sound_file_is_served_and_trusted_again() {
    let fixture = Fixture::roomy();
    let (store, digest, bytes) = stored(&fixture).await;
    touch(&fixture.file_of(&digest));
    assert!(read(&store, &digest).await.unwrap() == bytes);
    assert_eq!(store.contents.size(&digest), Some(2000));
    assert_eq!(store.room.usage().used, 2000);
    store.close().unwrap();
    drop(store);
    touch(&fixture.file_of(&digest));
    let store = fixture.open();
    assert_eq!((store.contents.size(&digest), store.contents.contains(&digest)), (None, true));
    assert!(read(&store, &digest).await.unwrap() == bytes);
    assert_eq!(store.contents.size(&digest), Some(2000));
    assert_eq!(fixture.evictions("corrupt"), 0);
}

#[tokio::test]
async fn a_copy_in_memory_is_served_even_if_its_file_is_damaged() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, bytes) = content(1, 2000);
    store.contents.insert_small(&digest, bytes.clone()).await.unwrap();
    corrupt(&fixture.file_of(&digest));
    assert_eq!(store.contents.read_small(&digest).await.unwrap().unwrap(), bytes);
    assert!(read(&store, &digest).await.is_none());
    assert_eq!(store.contents.read_small(&digest).await.unwrap(), None);
}

#[tokio::test]
async fn damaged_content_that_is_not_durable_is_counted_and_not_sent() {
    let fixture = Fixture::roomy();
    let (store, digest, _) = stored(&fixture).await;
    let _pin = store.contents.pin(&digest);
    corrupt(&fixture.file_of(&digest));
    assert!(store.contents.open(&digest).await.unwrap().is_none());
    assert!(!store.contents.path(&digest).exists());
    assert_eq!(fixture.metrics.pending.damaged.get(), 1);
}

#[tokio::test]
async fn a_damaged_mark_costs_time_and_causes_no_error() {
    let damages: [fn(&mut Vec<u8>); 5] = [
        |mark| mark.truncate(mark.len() / 2),
        |mark| mark.clear(),
        |mark| mark.fill(0),
        |mark| mark.extend([0xff; 100]),
        |mark| mark.iter_mut().filter(|byte| **byte == b'1').for_each(|byte| *byte = b'2'),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let fixture = Fixture::roomy();
        let (store, digest, _) = stored(&fixture).await;
        store.close().unwrap();
        drop(store);
        let path = fixture.config.path.join("clean");
        let mut mark = fs::read(&path).unwrap();
        damage(&mut mark);
        fs::write(&path, &mark).unwrap();
        corrupt(&fixture.file_of(&digest));
        let store = fixture.open();
        assert!(read(&store, &digest).await.is_none(), "damage {number}");
        assert!(!path.exists());
    }
}
