//! Storing, reading, removing.

use super::super::LinkKind;
use crate::store::testing::{Fixture, content, files_in, read, size, store_content};
use crate::store::{KnownTag, StoreError};
use entrepot_bucket::ETag;
use entrepot_oci::{Digest, Repository, Tag};
use futures::TryStreamExt;
use std::time::Duration;

#[tokio::test]
async fn stored_content_is_read_back() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    for length in [0, 1, 512 << 10, (512 << 10) + 1, 3_000_000] {
        let (digest, bytes) = content(1, length);
        store_content(&store, &digest, &bytes).await.unwrap();
        assert_eq!(store.contents.size(&digest), Some(size(&bytes)));
        assert!(read(&store, &digest).await.unwrap() == bytes, "{length}");
    }
    assert_eq!(files_in(&fixture.config.path.join("fills")), 0);
}

#[tokio::test]
async fn any_range_is_read_correctly() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, bytes) = content(1, 2_000_000);
    store_content(&store, &digest, &bytes).await.unwrap();
    let stored = store.contents.open(&digest).await.unwrap().unwrap();
    for range in [0..1, 0..0, 1_999_999..2_000_000, 524_287..524_289, 3..1_900_000] {
        let pieces: Vec<_> = stored.stream(range.start..range.end).try_collect().await.unwrap();
        let expected = &bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
        assert!(pieces.concat() == expected, "{range:?}");
    }
}

#[tokio::test]
async fn missing_content_is_not_an_error() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, _) = content(1, 10);
    assert_eq!(store.contents.size(&digest), None);
    assert!(store.contents.open(&digest).await.unwrap().is_none());
    assert_eq!(store.contents.read_small(&digest).await.unwrap(), None);
    assert_eq!(store.contents.remove(&digest).await.unwrap(), 0);
}

#[tokio::test]
async fn storing_again_keeps_one_copy_and_releases_the_reservation() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, bytes) = content(1, 1000);
    store_content(&store, &digest, &bytes).await.unwrap();
    let before = store.room.usage();
    store_content(&store, &digest, &bytes).await.unwrap();
    assert_eq!((store.room.usage().used, store.room.usage().reserved), (before.used, 0));
    assert_eq!(files_in(&fixture.config.path.join("fills")), 0);
}

#[tokio::test]
async fn a_reservation_becomes_the_size_of_the_content() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    for (reserved, length) in [(10_000, 300), (300, 300), (100, 300)] {
        let used = store.room.usage().used;
        let (digest, bytes) = content(reserved, length);
        let reservation = store.room.reserve(reserved).await.unwrap();
        let file = store.dirs.new_fill();
        std::fs::write(&file, &bytes).unwrap();
        store.contents.adopt(&digest, &file, reservation, true).await.unwrap();
        assert_eq!((store.room.usage().used, store.room.usage().reserved), (used + 300, 0));
    }
}

#[tokio::test]
async fn adopting_a_missing_file_releases_the_reservation() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, _) = content(1, 10);
    let reservation = store.room.reserve(10).await.unwrap();
    let error = store.contents.adopt(&digest, &store.dirs.new_fill(), reservation, false).await.unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert_eq!((store.room.usage().used, store.room.usage().reserved), (0, 0));
}

#[tokio::test]
async fn removed_content_is_gone_from_disk_and_memory_except_for_open_readers() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, bytes) = content(1, 2_000_000);
    store_content(&store, &digest, &bytes).await.unwrap();
    assert_eq!(store.contents.read_small(&digest).await.unwrap().unwrap(), bytes);
    let open = store.contents.open(&digest).await.unwrap().unwrap();
    assert_eq!(store.contents.remove(&digest).await.unwrap(), 2_000_000);
    assert_eq!(store.contents.read_small(&digest).await.unwrap(), None);
    assert!(read(&store, &digest).await.is_none());
    assert!(!fixture.file_of(&digest).exists());
    let pieces: Vec<_> = open.stream(0..open.size).try_collect().await.unwrap();
    assert!(pieces.concat() == bytes);
    assert_eq!(store.room.usage().used, 0);
}

#[tokio::test]
async fn pinned_content_is_not_removed_until_the_last_pin_is_gone() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, bytes) = content(1, 10);
    let first = store.contents.pin(&digest);
    store_content(&store, &digest, &bytes).await.unwrap();
    let second = store.contents.pin(&digest);
    assert_eq!(store.contents.remove(&digest).await.unwrap(), 0);
    drop(first);
    assert_eq!(store.contents.remove(&digest).await.unwrap(), 0);
    drop(second);
    assert_eq!(store.contents.remove(&digest).await.unwrap(), 10);
}

#[tokio::test]
async fn small_content_is_served_from_memory() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, bytes) = content(1, 1000);
    store.contents.insert_small(&digest, bytes.clone()).await.unwrap();
    assert_eq!(std::fs::read(fixture.file_of(&digest)).unwrap(), bytes);
    let first = store.contents.read_small(&digest).await.unwrap().unwrap();
    let second = store.contents.read_small(&digest).await.unwrap().unwrap();
    assert_eq!(first.as_ptr(), second.as_ptr(), "not the same memory");
    assert_eq!(first, bytes);
}

#[tokio::test]
async fn links_are_remembered_for_stored_content_only() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let repository = Repository::parse("a").unwrap();
    let (digest, bytes) = content(1, 10);
    store.links.remember(&store.links.look(&digest), &repository, LinkKind::Layer, &digest);
    assert_eq!(store.links.age(&repository, LinkKind::Layer, &digest), None);
    store_content(&store, &digest, &bytes).await.unwrap();
    store.links.remember(&store.links.look(&digest), &repository, LinkKind::Layer, &digest);
    fixture.clock.advance(Duration::from_secs(5));
    assert_eq!(store.links.age(&repository, LinkKind::Layer, &digest), Some(Duration::from_secs(5)));
    assert_eq!(store.links.age(&repository, LinkKind::Revision, &digest), None);
    assert_eq!(store.links.age(&Repository::parse("b").unwrap(), LinkKind::Layer, &digest), None);
    store.links.forget(&repository, LinkKind::Layer, &digest);
    assert_eq!(store.links.age(&repository, LinkKind::Layer, &digest), None);
}

#[tokio::test]
async fn links_of_expected_content_are_kept_when_it_is_stored() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let [kept, deleted] = ["a", "b"].map(|name| Repository::parse(name).unwrap());
    let (digest, bytes) = content(1, 10);
    let age = |repository: &Repository| store.links.age(repository, LinkKind::Layer, &digest);
    let expected = (store.contents.expect(&digest), store.contents.expect(&digest));
    store.links.remember(&store.links.look(&digest), &kept, LinkKind::Layer, &digest);
    store.links.remember(&store.links.look(&digest), &deleted, LinkKind::Layer, &digest);
    drop(expected.0);
    assert_eq!((age(&kept), age(&deleted)), (Some(Duration::ZERO), Some(Duration::ZERO)), "one still expects it");
    store.links.forget(&deleted, LinkKind::Layer, &digest);
    store_content(&store, &digest, &bytes).await.unwrap();
    assert_eq!((age(&kept), age(&deleted)), (Some(Duration::ZERO), None));
    store.links.remember(&store.links.look(&digest), &deleted, LinkKind::Layer, &digest);
    drop(expected.1);
    assert_eq!((age(&kept), age(&deleted)), (Some(Duration::ZERO), Some(Duration::ZERO)));
}

#[tokio::test]
async fn links_of_expected_content_that_is_never_stored_are_forgotten() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let repository = Repository::parse("a").unwrap();
    let (digest, bytes) = content(1, 10);
    let expected = store.contents.expect(&digest);
    store.links.remember(&store.links.look(&digest), &repository, LinkKind::Layer, &digest);
    drop(expected);
    assert_eq!(store.links.age(&repository, LinkKind::Layer, &digest), None);
    store_content(&store, &digest, &bytes).await.unwrap();
    assert_eq!(store.links.age(&repository, LinkKind::Layer, &digest), None);
}

#[tokio::test]
async fn the_oldest_of_too_many_links_is_forgotten() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, bytes) = content(1, 10);
    store_content(&store, &digest, &bytes).await.unwrap();
    let repository = |number: usize| Repository::parse(&format!("r{number}")).unwrap();
    let known = |number| store.links.age(&repository(number), LinkKind::Layer, &digest).is_some();
    for number in 0..65 {
        store.links.remember(&store.links.look(&digest), &repository(number), LinkKind::Layer, &digest);
        fixture.clock.advance(Duration::from_secs(1));
    }
    assert!(!known(0));
    assert!((1..65).all(known));
}

#[test]
fn a_tag_is_known_until_it_is_forgotten() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (repository, tag) = (Repository::parse("a").unwrap(), Tag::parse("latest").unwrap());
    let digest = Digest::of(entrepot_oci::Algorithm::Sha256, b"x");
    let known = KnownTag { digest, etag: ETag("1".into()), seen: fixture.clock.uptime() };
    store.tags.remember(&store.tags.look(&repository, &tag), &repository, &tag, known.digest, known.etag.clone());
    assert_eq!(store.tags.get(&repository, &tag), Some(known));
    store.tags.forget(&repository, &tag);
    assert_eq!(store.tags.get(&repository, &tag), None);
}

#[test]
fn a_store_is_used_by_one_node() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let second = super::super::Store::open(&fixture.config, fixture.clock.clone(), fixture.metrics.clone());
    assert!(matches!(second, Err(StoreError::Locked(_))));
    drop(store);
    fixture.open();
}
