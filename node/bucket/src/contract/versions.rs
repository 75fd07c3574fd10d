//! Writes and deletes that name the version of an object.

use super::{Case, Place, read};
use crate::{Delete, ETag, Put, PutBody, PutMode};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;

pub(super) const CASES: &[Case] = &[
    ("a version is replaced only while it is current", |place| replace(place).boxed()),
    ("every request returns the same version", |place| learned(place).boxed()),
    ("without a version only a missing object is written", |place| absent(place).boxed()),
    ("one of several concurrent writers of a version wins", |place| concurrent_put(place).boxed()),
    ("a version is deleted only while it is current", |place| delete(place).boxed()),
    ("either a writer or a deleter of a version wins", |place| put_and_delete(place).boxed()),
    ("an overwrite is never lost to a writer of a version", |place| overwrite(place).boxed()),
];

impl Place {
    async fn put_version(&self, name: &str, content: impl Into<Bytes>, version: Option<&ETag>) -> Put {
        let mode = PutMode::IfMatch(version.cloned());
        self.bucket.put(&self.key(name), PutBody::Bytes(content.into()), mode).await.unwrap()
    }

    async fn delete_version(&self, name: &str, version: &ETag) -> Delete {
        self.bucket.delete_if_match(&self.key(name), version).await.unwrap()
    }
}

fn done(put: Put) -> ETag {
    let Put::Done(version) = put else { panic!("{put:?}") };
    version
}

fn other() -> ETag {
    ETag("0123456789abcdef0123456789abcdef".into())
}

async fn replace(place: Place) {
    let first = done(place.put("data", "first").await);
    let second = done(place.put_version("data", "second", Some(&first)).await);
    assert_ne!(first, second);
    assert_eq!(place.content("data").await.unwrap(), b"second");
    for version in [&first, &other()] {
        assert_eq!(place.put_version("data", "third", Some(version)).await, Put::Changed);
        assert_eq!(place.put_version("nothing", "third", Some(version)).await, Put::Changed);
    }
    assert_eq!(place.content("data").await.unwrap(), b"second");
    assert!(place.content("nothing").await.is_none());
    place.bucket.delete(&place.key("data")).await.unwrap();
    assert_eq!(place.put_version("data", "third", Some(&second)).await, Put::Changed);
    assert!(place.content("data").await.is_none());
}

async fn learned(place: Place) {
    let put = done(place.put("data", "0").await);
    let head = place.bucket.head(&place.key("data")).await.unwrap().unwrap().etag;
    let object = place.get("data", None).await.unwrap();
    let got = object.meta.etag.clone();
    read(object).await.unwrap();
    assert_eq!((&put, &put), (&head, &got));
    let mut version = got;
    for round in 1..5 {
        version = done(place.put_version("data", format!("{round}"), Some(&version)).await);
    }
    assert_eq!(place.content("data").await.unwrap(), b"4");
}

async fn absent(place: Place) {
    let first = done(place.put_version("data", "first", None).await);
    assert_eq!(place.put_version("data", "second", None).await, Put::Changed);
    assert_eq!(place.content("data").await.unwrap(), b"first");
    place.put_version("data", "second", Some(&first)).await;
    place.bucket.delete(&place.key("data")).await.unwrap();
    done(place.put_version("data", "third", None).await);
}

async fn concurrent_put(place: Place) {
    for round in 0..3 {
        let name = format!("{round}/data");
        let version = match round {
            0 => None,
            _ => Some(done(place.put(&name, "before").await)),
        };
        let puts = join_all((0..20).map(|number| {
            let (place, name, version) = (place.clone(), name.clone(), version.clone());
            async move {
                // A transient conflict of two writes is not a result: the writer tries again.
                loop {
                    let body = PutBody::Bytes(format!("writer {number}").into());
                    match place.bucket.put(&place.key(&name), body, PutMode::IfMatch(version.clone())).await {
                        Err(error) if error.is_transient() => tokio::task::yield_now().await,
                        answer => break answer.unwrap(),
                    }
                }
            }
        }));
        let answers = puts.await;
        let winners: Vec<_> = (0..).zip(&answers).filter(|(_, put)| **put != Put::Changed).collect();
        assert_eq!(winners.len(), 1, "{answers:?}");
        assert_eq!(place.content(&name).await.unwrap(), format!("writer {}", winners[0].0).into_bytes());
    }
}

async fn delete(place: Place) {
    let first = done(place.put("a/data", "first").await);
    let second = done(place.put("a/data", "second").await);
    for version in [&first, &other()] {
        assert_eq!(place.delete_version("a/data", version).await, Delete::Changed);
    }
    assert_eq!(place.content("a/data").await.unwrap(), b"second");
    assert_eq!(place.delete_version("a/data", &second).await, Delete::Done);
    assert!(place.content("a/data").await.is_none());
    // A delete of a missing object removes nothing. Buckets differ in which of the two results they
    // return.
    place.delete_version("a/data", &second).await;
    place.delete_version("nothing", &other()).await;
    done(place.put_version("a/data", "third", None).await);
    assert_eq!(place.list("", false, None, 10).await.keys.len(), 1, "the probe left no object here");
}

/// Only if both are done in one step.
async fn put_and_delete(place: Place) {
    let version = done(place.put("asked/data", "x").await);
    place.delete_version("asked/data", &version).await;
    let capabilities = place.bucket.capabilities();
    if !capabilities.conditional_delete || !capabilities.conditional_put {
        return;
    }
    for round in 0..20 {
        let name = format!("{round}/data");
        let version = done(place.put(&name, "before").await);
        let key = place.key(&name);
        let put = place.bucket.put(&key, PutBody::Bytes("after".into()), PutMode::IfMatch(Some(version.clone())));
        let deleted = place.bucket.delete_if_match(&key, &version);
        let (put, deleted) = futures::join!(put, deleted);
        let (put, deleted) = (put.unwrap(), deleted.unwrap());
        let content = place.content(&name).await;
        match (&put, deleted) {
            (Put::Done(_), Delete::Changed) => assert_eq!(content.unwrap(), b"after"),
            (Put::Changed, Delete::Done) => assert!(content.is_none()),
            both => panic!("both won or neither did: {both:?}"),
        }
    }
}

/// An unconditional overwrite does not have the version of a writer that comes afterwards.
async fn overwrite(place: Place) {
    for round in 0..20 {
        let name = format!("{round}/data");
        let version = done(place.put(&name, "before").await);
        let overwrite = place.put(&name, "overwritten");
        let put = place.put_version(&name, "by version", Some(&version));
        let (overwritten, put) = futures::join!(overwrite, put);
        done(overwritten);
        let content = place.content(&name).await.unwrap();
        assert_eq!(content, b"overwritten", "the overwrite comes last, or the writer of a version notices it: {put:?}");
    }
}
