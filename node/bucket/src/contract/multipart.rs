//! Multipart uploads.

use super::{Case, Place, TemporaryFile, pattern};
use crate::{BucketErrorKind, MultipartId, PartTag, Put, PutBody, PutMode};
use futures::FutureExt;
use futures::future::join_all;
use std::ops::Range;

/// S3 accepts no smaller part, except for the last one ("Amazon S3 multipart upload limits").
const PART: usize = 5 << 20;

pub(super) const CASES: &[Case] = &[
    ("parts are sent in any order and concurrently", |place| any_order(place).boxed()),
    ("one part is enough", |place| one_part(place).boxed()),
    ("a part that is sent again replaces the first one", |place| part_again(place).boxed()),
    ("a completion obeys its mode", |place| conditional(place).boxed()),
    ("an aborted upload leaves nothing", |place| abort(place).boxed()),
    ("a removed upload accepts nothing more", |place| gone(place).boxed()),
    ("two uploads of one key do not mix", |place| two_uploads(place).boxed()),
    ("a large object is sent in parts", |place| big(place).boxed()),
];

async fn part(place: &Place, upload: &MultipartId, number: u32, body: PutBody) -> PartTag {
    place.bucket.multipart_part(&place.key("data"), upload, number, body).await.unwrap()
}

async fn complete(place: &Place, upload: &MultipartId, parts: Vec<PartTag>, mode: PutMode) -> Put {
    place.bucket.multipart_complete(&place.key("data"), upload, parts, mode).await.unwrap()
}

fn bytes(content: &[u8]) -> PutBody {
    PutBody::Bytes(content.to_vec().into())
}

async fn any_order(place: Place) {
    let key = place.key("data");
    let content = pattern(1, 2 * PART + 1234);
    let file = TemporaryFile::new(&content);
    let upload = place.bucket.multipart_begin(&key).await.unwrap();
    let last = 2 * PART as u64..content.len() as u64;
    let third = part(&place, &upload, 3, file.range(last)).await;
    assert!(place.bucket.head(&key).await.unwrap().is_none(), "the object is invisible before the completion");
    let range = |number: u64| -> Range<u64> { number * PART as u64..(number + 1) * PART as u64 };
    let (second, first) =
        futures::join!(part(&place, &upload, 2, file.range(range(1))), part(&place, &upload, 1, file.range(range(0))));
    let Put::Done(etag) = complete(&place, &upload, vec![first, second, third], PutMode::IfAbsent).await else {
        panic!("there was no object")
    };
    assert_eq!(place.bucket.head(&key).await.unwrap().unwrap().etag, etag);
    assert!(place.content("data").await.unwrap() == content);
    let listed = place.list_all("", false, 1000).await.0;
    assert_eq!(listed, ["data"], "parts are not objects");
}

async fn one_part(place: Place) {
    let upload = place.bucket.multipart_begin(&place.key("data")).await.unwrap();
    let only = part(&place, &upload, 1, bytes(b"small")).await;
    assert!(matches!(complete(&place, &upload, vec![only], PutMode::Overwrite).await, Put::Done(_)));
    assert_eq!(place.content("data").await.unwrap(), b"small");
}

async fn part_again(place: Place) {
    let upload = place.bucket.multipart_begin(&place.key("data")).await.unwrap();
    part(&place, &upload, 1, bytes(b"first try")).await;
    let second = part(&place, &upload, 1, bytes(b"second")).await;
    assert!(matches!(complete(&place, &upload, vec![second], PutMode::IfAbsent).await, Put::Done(_)));
    assert_eq!(place.content("data").await.unwrap(), b"second");
}

async fn conditional(place: Place) {
    place.put("data", "there").await;
    let upload = place.bucket.multipart_begin(&place.key("data")).await.unwrap();
    let only = part(&place, &upload, 1, bytes(b"sent")).await;
    assert_eq!(complete(&place, &upload, vec![only], PutMode::IfAbsent).await, Put::Exists);
    assert_eq!(place.content("data").await.unwrap(), b"there");
    place.bucket.multipart_abort(&place.key("data"), &upload).await.unwrap();

    let upload = place.bucket.multipart_begin(&place.key("data")).await.unwrap();
    let only = part(&place, &upload, 1, bytes(b"sent")).await;
    assert!(matches!(complete(&place, &upload, vec![only], PutMode::Overwrite).await, Put::Done(_)));
    assert_eq!(place.content("data").await.unwrap(), b"sent");
}

async fn abort(place: Place) {
    let key = place.key("data");
    let upload = place.bucket.multipart_begin(&key).await.unwrap();
    part(&place, &upload, 1, bytes(&pattern(1, PART))).await;
    let beside = place.bucket.multipart_begin(&place.key("data-beside")).await.unwrap();
    assert_eq!(place.bucket.multipart_unfinished(&key).await.unwrap(), std::slice::from_ref(&upload));
    place.bucket.multipart_abort(&key, &upload).await.unwrap();
    place.bucket.multipart_abort(&key, &upload).await.unwrap();
    assert_eq!(place.bucket.multipart_unfinished(&key).await.unwrap(), []);
    place.bucket.multipart_abort(&place.key("data-beside"), &beside).await.unwrap();
    assert!(place.bucket.head(&key).await.unwrap().is_none());
    assert!(place.list("", false, None, 10).await.keys.is_empty());
}

async fn gone(place: Place) {
    let key = place.key("data");
    let upload = place.bucket.multipart_begin(&key).await.unwrap();
    let only = part(&place, &upload, 1, bytes(b"x")).await;
    place.bucket.multipart_abort(&key, &upload).await.unwrap();
    let sent = place.bucket.multipart_part(&key, &upload, 2, bytes(b"y")).await;
    assert_eq!(sent.unwrap_err().kind, BucketErrorKind::Refused);
    let completed = place.bucket.multipart_complete(&key, &upload, vec![only], PutMode::IfAbsent).await;
    assert_eq!(completed.unwrap_err().kind, BucketErrorKind::Refused);
    assert!(place.bucket.head(&key).await.unwrap().is_none());
}

async fn two_uploads(place: Place) {
    let key = place.key("data");
    let first = place.bucket.multipart_begin(&key).await.unwrap();
    let second = place.bucket.multipart_begin(&key).await.unwrap();
    assert_ne!(first, second);
    let of_first = part(&place, &first, 1, bytes(b"first")).await;
    let of_second = part(&place, &second, 1, bytes(b"second")).await;
    assert!(matches!(complete(&place, &second, vec![of_second], PutMode::IfAbsent).await, Put::Done(_)));
    assert_eq!(complete(&place, &first, vec![of_first], PutMode::IfAbsent).await, Put::Exists);
    place.bucket.multipart_abort(&key, &first).await.unwrap();
    assert_eq!(place.content("data").await.unwrap(), b"second");
}

async fn big(place: Place) {
    const SIZE: usize = 64 << 20;
    let content = pattern(2, SIZE);
    let file = TemporaryFile::new(&content);
    let upload = place.bucket.multipart_begin(&place.key("data")).await.unwrap();
    let bounds = [0, 24 << 20, 48 << 20, SIZE as u64];
    let sending = (1..4).zip(bounds.windows(2)).map(|(number, bounds)| {
        let body = file.range(bounds[0]..bounds[1]);
        part(&place, &upload, number, body)
    });
    let parts = join_all(sending).await;
    assert!(matches!(complete(&place, &upload, parts, PutMode::IfAbsent).await, Put::Done(_)));
    assert!(place.content("data").await.unwrap() == content);
    place.bucket.delete(&place.key("data")).await.unwrap();
}
