//! Sessions that outlive a run of the node.

use super::{folder, in_bucket};
use crate::store::UnusedSessions;
use crate::testing::{Node, Setup, body, broken_body, repository, sha256};
use crate::upload::{Place, UploadError};
use entrepot_runtime::clock::Timestamp;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

fn data(node: &Node) -> PathBuf {
    let sessions: Vec<_> = std::fs::read_dir(node.store.dirs.uploads()).unwrap().collect();
    assert_eq!(sessions.len(), 1);
    sessions[0].as_ref().unwrap().path().join("data")
}

fn flip(file: &PathBuf, at: u64) {
    let file = File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// The first 1,100,000 bytes are acknowledged, then 100,000 arrive with a request that breaks.
const ANSWERED: usize = 1_100_000;
const RECEIVED: usize = 1_200_000;

fn content() -> Vec<u8> {
    (0..1_300_000u32).map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

#[tokio::test]
async fn a_bit_that_flips_anywhere_while_the_node_is_down_is_found() {
    let (name, content) = (repository("a"), content());
    for at in [0, ANSWERED - 1, ANSWERED, RECEIVED - 1] {
        for take_again in [false, true] {
            let folder = folder();
            let bucket = Setup::default().bucket;
            let node = Node::start(folder.path(), Setup { bucket: bucket.clone(), ..Setup::default() });
            let id = node.open(&name).await;
            node.uploads.append(&name, &id, None, body(&[&content[..ANSWERED]])).await.unwrap();
            let broken = broken_body(&content[ANSWERED..RECEIVED]);
            assert!(node.uploads.append(&name, &id, None, broken).await.is_err());
            let file = data(&node);
            node.stop().await;
            flip(&file, at as u64);

            let node = Node::start(folder.path(), Setup { bucket, ..Setup::default() });
            let from = if take_again { ANSWERED } else { RECEIVED };
            let place = Some(Place::Offset(from as u64));
            let digest = sha256(&content);
            let result = node.uploads.finish(&name, &id, &digest, place, body(&[&content[from..]])).await;
            if take_again && at >= ANSWERED {
                // The damaged bytes were sent again.
                result.unwrap();
                assert!(in_bucket(&node, &digest).await);
            } else {
                assert!(matches!(result, Err(UploadError::DigestMismatch { .. })), "{at} {take_again}: {result:?}");
                assert!(!in_bucket(&node, &digest).await);
                assert!(matches!(node.uploads.status(&name, &id).await, Err(UploadError::UnknownSession)));
            }
        }
    }
}

#[tokio::test]
async fn a_start_does_not_read_the_bytes_of_sessions() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let id = node.open(&repository("a")).await;
    let file = data(&node);
    node.stop().await;
    // A hole that would take a quarter of an hour to read.
    let size = 1 << 40;
    File::options().write(true).open(&file).unwrap().set_len(size).unwrap();
    let node = Node::start(folder.path(), Setup::default());
    assert_eq!(node.uploads.status(&repository("a"), &id).await.unwrap().offset, size);
    node.uploads.cancel(&repository("a"), &id).await.unwrap();
}

#[tokio::test]
async fn bytes_lost_in_a_power_failure_are_requested_again() {
    let (name, content) = (repository("a"), content());
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let id = node.open(&name).await;
    node.uploads.append(&name, &id, None, body(&[&content[..ANSWERED]])).await.unwrap();
    let file = data(&node);
    node.stop().await;
    File::options().write(true).open(&file).unwrap().set_len(1000).unwrap();
    let node = Node::start(folder.path(), Setup::default());
    let place = Some(Place::Offset(ANSWERED as u64));
    let refused = node.uploads.append(&name, &id, place, body(&[&content[ANSWERED..]])).await;
    assert!(matches!(refused, Err(UploadError::OutOfOrder { offset: 1000 })), "{refused:?}");
    let place = Some(Place::Offset(1000));
    node.uploads.finish(&name, &id, &sha256(&content), place, body(&[&content[1000..]])).await.unwrap();
}

/// A node that is killed after it has truncated the bytes of a request leaves any length from the
/// acknowledged bytes on.
#[tokio::test]
async fn an_interrupted_request_can_be_repeated_after_a_crash_at_any_length() {
    let (name, content) = (repository("a"), content());
    for length in [ANSWERED, ANSWERED + 1, RECEIVED] {
        let folder = folder();
        let node = Node::start(folder.path(), Setup::default());
        let id = node.open(&name).await;
        node.uploads.append(&name, &id, None, body(&[&content[..ANSWERED]])).await.unwrap();
        assert!(node.uploads.append(&name, &id, None, broken_body(&content[ANSWERED..RECEIVED])).await.is_err());
        let file = data(&node);
        node.stop().await;
        File::options().write(true).open(&file).unwrap().set_len(length as u64).unwrap();
        let node = Node::start(folder.path(), Setup::default());
        let place = Some(Place::Offset(ANSWERED as u64));
        node.uploads.finish(&name, &id, &sha256(&content), place, body(&[&content[ANSWERED..]])).await.unwrap();
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_restart_does_not_renew_the_age_of_a_session() {
    let folder = folder();
    let name = repository("a");
    let node = Node::start(folder.path(), Setup::default());
    let id = node.open(&name).await;
    node.uploads.append(&name, &id, None, body(&[b"old"])).await.unwrap();
    let mut now = node.clock.now();
    node.stop().await;
    for _ in 0..4 {
        now = Timestamp(now.0 + 5 * 3_600_000);
        let node = Node::start(folder.path(), Setup { now, ..Setup::default() });
        assert_eq!(node.uploads.expire().await, 0);
        node.stop().await;
    }
    let node = Node::start(folder.path(), Setup { now, ..Setup::default() });
    node.clock.advance(5 * HOUR);
    assert_eq!(node.uploads.expire().await, 3);
    assert!(matches!(node.uploads.status(&name, &id).await, Err(UploadError::UnknownSession)));
}

#[tokio::test]
async fn setting_the_wall_clock_makes_no_session_immortal_and_ends_none() {
    let folder = folder();
    let name = repository("a");
    let node = Node::start(folder.path(), Setup::default());
    for to in [Timestamp(0), Timestamp(u64::MAX / 2)] {
        let id = node.open(&name).await;
        node.uploads.append(&name, &id, None, body(&[b"old"])).await.unwrap();
        node.clock.set(to);
        node.clock.advance(23 * HOUR);
        assert_eq!(node.uploads.expire().await, 0);
        node.clock.advance(2 * HOUR);
        assert_eq!(node.uploads.expire().await, 3);
    }
}

#[tokio::test]
async fn a_record_from_the_future_ages_from_the_first_start_that_reads_it() {
    let folder = folder();
    let name = repository("a");
    let ahead = Timestamp(1_000 * 3_600_000);
    let node = Node::start(folder.path(), Setup { now: ahead, ..Setup::default() });
    let id = node.open(&name).await;
    node.uploads.append(&name, &id, None, body(&[b"old"])).await.unwrap();
    node.stop().await;
    let expires = async |hour: u64| {
        let node = Node::start(folder.path(), Setup { now: Timestamp(hour * 3_600_000), ..Setup::default() });
        let bytes = node.uploads.expire().await;
        node.stop().await;
        bytes
    };
    assert_eq!([expires(1).await, expires(24).await, expires(26).await], [0, 0, 3]);
}
