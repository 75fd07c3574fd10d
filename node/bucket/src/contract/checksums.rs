//! Bytes that differ from those that were received.

use super::{Case, Place, TemporaryFile, pattern};
use crate::checksum::crc32c;
use crate::{BucketErrorKind, Checksum, Put, PutMode};
use entrepot_oci::{Algorithm, Digest};
use futures::FutureExt;

pub(super) const CASES: &[Case] = &[
    ("a file that changed since it was hashed is not stored", |place| object(place).boxed()),
    ("a part that changed since it was hashed is not stored", |place| part(place).boxed()),
];

/// S3 accepts no smaller part, except for the last one.
const PART: usize = 5 << 20;

fn checksums(content: &[u8]) -> [Checksum; 3] {
    let digest = |algorithm| Checksum::Digest(Digest::of(algorithm, content));
    [digest(Algorithm::Sha256), digest(Algorithm::Sha512), Checksum::Crc32c(crc32c(content))]
}

/// The content with one bit flipped, as a failing disk does it.
fn damaged(content: &[u8]) -> Vec<u8> {
    let mut damaged = content.to_vec();
    damaged[content.len() / 2] ^= 1;
    damaged
}

async fn object(place: Place) {
    let content = pattern(5, 1_000_000);
    let (whole, changed) = (TemporaryFile::new(&content), TemporaryFile::new(&damaged(&content)));
    let size = content.len() as u64;
    for (number, checksum) in checksums(&content).into_iter().enumerate() {
        let name = format!("{number}/data");
        for mode in [PutMode::IfAbsent, PutMode::Overwrite] {
            let refused = place.bucket.put(&place.key(&name), changed.checked(0..size, checksum), mode).await;
            assert_eq!(refused.unwrap_err().kind, BucketErrorKind::WrongContent, "{checksum:?}");
            assert!(place.content(&name).await.is_none(), "{checksum:?}");
        }
        let put = place.bucket.put(&place.key(&name), whole.checked(0..size, checksum), PutMode::IfAbsent).await;
        assert!(matches!(put.unwrap(), Put::Done(_)));
        // The existing object remains unchanged.
        let body = changed.checked(0..size, checksum);
        let refused = place.bucket.put(&place.key(&name), body, PutMode::Overwrite).await;
        assert_eq!(refused.unwrap_err().kind, BucketErrorKind::WrongContent, "{checksum:?}");
        assert!(place.content(&name).await.unwrap() == content);
    }
    assert_eq!(place.list_all("", false, 100).await.0.len(), 3);
}

async fn part(place: Place) {
    let content = pattern(6, PART);
    let (whole, changed) = (TemporaryFile::new(&content), TemporaryFile::new(&damaged(&content)));
    let size = PART as u64;
    let key = place.key("data");
    for checksum in checksums(&content) {
        let upload = place.bucket.multipart_begin(&key).await.unwrap();
        let refused = place.bucket.multipart_part(&key, &upload, 1, changed.checked(0..size, checksum)).await;
        assert_eq!(refused.unwrap_err().kind, BucketErrorKind::WrongContent, "{checksum:?}");
        let first = place.bucket.multipart_part(&key, &upload, 1, whole.checked(0..size, checksum)).await.unwrap();
        let second = place.bucket.multipart_part(&key, &upload, 2, whole.range(0..7)).await.unwrap();
        let put = place.bucket.multipart_complete(&key, &upload, vec![first, second], PutMode::Overwrite).await;
        assert!(matches!(put.unwrap(), Put::Done(_)));
        assert!(place.content("data").await.unwrap() == [&content[..], &content[..7]].concat());
    }
}
