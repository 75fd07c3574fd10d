//! Single objects: put, get, head, delete.

use super::{Case, Place, TemporaryFile, pattern, read};
use crate::{BucketErrorKind, Get, GetOptions, Put, PutBody, PutMode};
use futures::FutureExt;
use futures::StreamExt;
use futures::future::join_all;

pub(super) const CASES: &[Case] = &[
    ("a missing key is not an error", |place| missing(place).boxed()),
    ("an object is read as it was put", |place| round_trip(place).boxed()),
    ("an empty object has no bytes", |place| empty(place).boxed()),
    ("a range is clamped to the end", |place| ranges(place).boxed()),
    ("a put obeys its mode", |place| conditional_put(place).boxed()),
    ("one of several concurrent conditional puts wins", |place| concurrent_put(place).boxed()),
    ("an unchanged object is not sent again", |place| conditional_get(place).boxed()),
    ("an overwrite is visible as a whole or not at all", |place| atomic_overwrite(place).boxed()),
    ("a delete can be repeated", |place| delete(place).boxed()),
    ("concurrent puts and deletes do not fail", |place| churn(place).boxed()),
    ("every character of names is kept", |place| characters(place).boxed()),
    ("a range of a file is put", |place| file_range(place).boxed()),
    ("a file that is too short or missing is rejected", |place| short_file(place).boxed()),
    ("a large object is put and read", |place| big(place).boxed()),
];

async fn missing(place: Place) {
    assert!(place.bucket.head(&place.key("nothing")).await.unwrap().is_none());
    assert!(place.get("nothing", None).await.is_none());
    assert!(place.get("nothing", Some(5..10)).await.is_none());
    let options = GetOptions { if_none_match: Some(crate::ETag("some".into())), ..GetOptions::default() };
    assert!(matches!(place.bucket.get(&place.key("nothing"), options).await.unwrap(), Get::Missing));
    place.bucket.delete(&place.key("nothing")).await.unwrap();
    place.bucket.delete(&place.key("no/such/folder/data")).await.unwrap();
    // A directory is not an object, and an object has nothing below it.
    place.put("folder/data", "x").await;
    assert!(place.bucket.head(&place.key("folder")).await.unwrap().is_none());
    assert!(place.get("folder", None).await.is_none());
    assert!(place.get("folder/data/below", None).await.is_none());
    place.bucket.delete(&place.key("folder")).await.unwrap();
    assert_eq!(place.content("folder/data").await.unwrap(), b"x");
}

async fn round_trip(place: Place) {
    let Put::Done(etag) = place.put("a/data", "content").await else { panic!("an overwrite is always done") };
    let meta = place.bucket.head(&place.key("a/data")).await.unwrap().unwrap();
    assert_eq!((meta.size, &meta.etag), (7, &etag));
    assert!(!etag.0.contains('"'), "the quotes belong to HTTP, not to the version");
    let object = place.get("a/data", None).await.unwrap();
    assert_eq!(object.meta, meta);
    assert_eq!(read(object).await.unwrap(), b"content");
}

async fn empty(place: Place) {
    place.put("data", "").await;
    assert_eq!(place.bucket.head(&place.key("data")).await.unwrap().unwrap().size, 0);
    assert_eq!(place.content("data").await.unwrap(), b"");
    let object = place.get("data", Some(0..100)).await.unwrap();
    assert_eq!((object.range.clone(), object.meta.size), (0..0, 0));
    assert_eq!(read(object).await.unwrap(), b"");
}

async fn ranges(place: Place) {
    let content = pattern(1, 3_000_000);
    place.put("data", content.clone()).await;
    let size = content.len() as u64;
    for (asked, answered) in [
        (0..size, 0..size),
        (0..1, 0..1),
        (1_000_000..2_000_001, 1_000_000..2_000_001),
        (size - 1..size, size - 1..size),
        (2_999_000..size + 1000, 2_999_000..size),
        (0..u64::MAX, 0..size),
    ] {
        let object = place.get("data", Some(asked.clone())).await.unwrap();
        assert_eq!((object.range.clone(), object.meta.size), (answered.clone(), size), "{asked:?}");
        let bytes = read(object).await.unwrap();
        assert!(bytes == content[answered.start as usize..answered.end as usize], "{asked:?}");
    }
    let options = GetOptions { range: Some(size..size + 1), ..GetOptions::default() };
    let outside = place.bucket.get(&place.key("data"), options).await;
    assert_eq!(outside.err().expect("the range is outside the object").kind, BucketErrorKind::Refused);
}

async fn conditional_put(place: Place) {
    let Put::Done(first) = place.put_if_absent("data", "first").await else { panic!("there was no object") };
    assert_eq!(place.put_if_absent("data", "second").await, Put::Exists);
    assert_eq!(place.content("data").await.unwrap(), b"first");
    let Put::Done(third) = place.put("data", "third").await else { panic!("an overwrite is always done") };
    assert_ne!(first, third);
    assert_eq!(place.content("data").await.unwrap(), b"third");
    place.bucket.delete(&place.key("data")).await.unwrap();
    assert!(matches!(place.put_if_absent("data", "fourth").await, Put::Done(_)));
}

async fn concurrent_put(place: Place) {
    for round in 0..5 {
        let name = format!("{round}/data");
        let puts = join_all((0..8).map(|number| {
            let (place, name) = (place.clone(), name.clone());
            async move { place.put_if_absent(&name, pattern(number, 10_000)).await }
        }));
        let answers = puts.await;
        let winners: Vec<_> = (0..).zip(&answers).filter(|(_, put)| **put != Put::Exists).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        assert!(place.content(&name).await.unwrap() == pattern(winners[0].0, 10_000));
    }
}

async fn conditional_get(place: Place) {
    let Put::Done(first) = place.put("data", "first").await else { panic!("an overwrite is always done") };
    let get = |etag: &crate::ETag, range| {
        let options = GetOptions { range, if_none_match: Some(etag.clone()), ..GetOptions::default() };
        let place = place.clone();
        async move { place.bucket.get(&place.key("data"), options).await.unwrap() }
    };
    assert!(matches!(get(&first, None).await, Get::NotModified));
    assert!(matches!(get(&first, Some(0..2)).await, Get::NotModified));
    place.put("data", "secnd").await;
    let Get::Found(object) = get(&first, None).await else { panic!("the object has another version") };
    let second = object.meta.etag.clone();
    assert_eq!(read(object).await.unwrap(), b"secnd");
    assert!(matches!(get(&second, None).await, Get::NotModified));
}

async fn atomic_overwrite(place: Place) {
    // The versions have two sizes, so a mix of them shows in the length as well as in the bytes.
    let versions = [pattern(1, 700_000), pattern(2, 900_000)];
    place.put("data", versions[0].clone()).await;
    let writing = async {
        for round in 1..20 {
            place.put("data", versions[round % 2].clone()).await;
        }
    };
    let reading = async {
        for _ in 0..20 {
            let content = place.content("data").await.expect("an overwrite never removes the object");
            assert!(versions.contains(&content), "{} bytes of a mix of versions", content.len());
        }
    };
    futures::join!(writing, reading, reading_slowly(&place, &versions));
}

/// Reads one version from its first piece to its last while others replace it.
async fn reading_slowly(place: &Place, versions: &[Vec<u8>]) {
    for _ in 0..3 {
        let mut object = place.get("data", None).await.unwrap();
        let mut content = Vec::new();
        while let Some(piece) = object.body.next().await {
            // A bucket may end a body early when the object is replaced, but never continue with
            // another version.
            let Ok(piece) = piece else { break };
            content.extend_from_slice(&piece);
            tokio::task::yield_now().await;
        }
        assert!(versions.iter().any(|version| version.starts_with(&content)), "a mix of versions");
    }
}

async fn delete(place: Place) {
    place.put("a/b/c/data", "x").await;
    place.put("a/other", "y").await;
    for _ in 0..2 {
        place.bucket.delete(&place.key("a/b/c/data")).await.unwrap();
        assert!(place.content("a/b/c/data").await.is_none());
    }
    assert_eq!(place.content("a/other").await.unwrap(), b"y");
    place.put("a/b/c/data", "again").await;
    assert_eq!(place.content("a/b/c/data").await.unwrap(), b"again");
}

/// On a file system the directories are created and removed with the objects.
async fn churn(place: Place) {
    let workers = (0..4).map(|worker| {
        let place = place.clone();
        async move {
            let name = format!("shared/folder/{worker}/data");
            for round in 0..10 {
                assert!(matches!(place.put_if_absent(&name, format!("{round}")).await, Put::Done(_)));
                assert_eq!(place.content(&name).await.unwrap(), format!("{round}").into_bytes());
                place.bucket.delete(&place.key(&name)).await.unwrap();
            }
        }
    });
    join_all(workers).await;
    assert!(place.list("", false, None, 10).await.keys.is_empty());
}

async fn characters(place: Place) {
    // Repository names: [a-z0-9], '.', '_', '-' and '/'. Tags: the same and upper case. Our own
    // keys: '-' between digest parts.
    let names = [
        "repositories/a.b_c--d/e__f/_manifests/tags/v1.0_RC-1.TEST/current/link",
        "repositories/0/_manifests/tags/_/current/link",
        "repositories/0/_manifests/tags/A.-_z/current/link",
        "repositories/0/_manifests/tags/a..b/current/link",
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-",
    ];
    let longest_tag = format!("tags/{}/current/link", "T".repeat(128));
    let names: Vec<_> = names.into_iter().chain([longest_tag.as_str()]).collect();
    for name in &names {
        place.put(name, name.to_string()).await;
    }
    for name in &names {
        assert_eq!(place.content(name).await.unwrap(), name.as_bytes(), "{name}");
    }
    let mut sorted: Vec<_> = names.iter().map(ToString::to_string).collect();
    sorted.sort();
    assert_eq!(place.list_all("", false, 1000).await.0, sorted);
}

async fn file_range(place: Place) {
    let content = pattern(3, 5_000_000);
    let file = TemporaryFile::new(&content);
    for (name, range) in [("all", 0..5_000_000), ("middle", 1_234_567..4_000_001), ("none", 77..77)] {
        let put = place.bucket.put(&place.key(name), file.range(range.clone()), PutMode::IfAbsent).await.unwrap();
        assert!(matches!(put, Put::Done(_)));
        assert!(place.content(name).await.unwrap() == content[range.start as usize..range.end as usize], "{name}");
    }
}

async fn short_file(place: Place) {
    let file = TemporaryFile::new(b"0123456789");
    let missing = PutBody::File { path: "/nowhere/such/a/file".into(), range: 0..10, checksum: None };
    for (name, body) in [("short", file.range(5..11)), ("missing", missing)] {
        let error = place.bucket.put(&place.key(name), body, PutMode::Overwrite).await.unwrap_err();
        assert_eq!(error.kind, BucketErrorKind::LocalFile, "{error:?}");
        assert!(place.content(name).await.is_none(), "{name}");
    }
}

async fn big(place: Place) {
    const SIZE: usize = 64 << 20;
    let content = pattern(4, SIZE);
    let file = TemporaryFile::new(&content);
    let body = file.range(0..SIZE as u64);
    assert!(matches!(place.bucket.put(&place.key("data"), body, PutMode::IfAbsent).await.unwrap(), Put::Done(_)));
    let mut object = place.get("data", None).await.unwrap();
    assert_eq!(object.meta.size, SIZE as u64);
    let mut offset = 0;
    while let Some(piece) = object.body.next().await {
        let piece = piece.unwrap();
        assert!(content[offset..offset + piece.len()] == piece[..], "from byte {offset}");
        offset += piece.len();
    }
    assert_eq!(offset, SIZE);
    place.bucket.delete(&place.key("data")).await.unwrap();
}
