//! Sessions that are removed to make place for others.

use super::folder;
use crate::clean;
use crate::store::UnusedSessions;
use crate::testing::{Node, Setup, body, client, repository, sha256};
use crate::upload::UploadError;
use bytes::Bytes;
use entrepot_config::{ByteSize, EvictionPolicy};
use entrepot_oci::{Digest, SessionId};
use entrepot_runtime::share::Holder;
use futures::stream;
use std::io;
use std::sync::Arc;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn is_there(node: &Node, id: &SessionId) -> bool {
    // Does not request its status, which would count as a use.
    assert_eq!(node.uploads.is_open(id), node.store.dirs.uploads().join(id.to_string()).exists());
    node.uploads.is_open(id)
}

#[tokio::test]
async fn the_longest_unused_empty_session_of_a_client_is_removed_for_a_new_one() {
    let folder = folder();
    // One client gets three of five, because two are free then.
    let node = Node::start(folder.path(), Setup { max_sessions: 5, ..Setup::default() });
    let name = repository("a");
    let with_bytes = node.open(&name).await;
    node.uploads.append(&name, &with_bytes, None, body(&[b"x"])).await.unwrap();
    node.clock.advance(10 * MINUTE);
    let first = node.open(&name).await;
    node.clock.advance(SECOND);
    let second = node.open(&name).await;
    node.clock.advance(SECOND);
    // A request for its status does not renew it.
    node.uploads.status(&name, &first).await.unwrap();
    let third = node.open(&name).await;
    assert!(!is_there(&node, &first), "it was unused for longer than the second");
    for id in [&with_bytes, &second, &third] {
        assert!(is_there(&node, id));
    }
    assert_eq!(node.metrics.sessions.get(), 3);
}

#[tokio::test]
async fn a_client_that_keeps_opening_sessions_does_not_block_other_pushes() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup { max_sessions: 10, ..Setup::default() });
    for _ in 0..100 {
        node.open(&repository("loop")).await;
    }
    node.push(&repository("a"), b"layer").await;
    assert!(node.metrics.sessions.get() <= 10);
    assert!(std::fs::read_dir(node.store.dirs.uploads()).unwrap().count() <= 10);
}

#[tokio::test]
async fn sessions_in_use_stay_and_a_new_one_is_rejected_until_one_is_idle() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup { max_sessions: 3, ..Setup::default() });
    let name = repository("a");
    let (receiving, paused) = (node.open(&name).await, node.open(&name).await);
    node.uploads.append(&name, &paused, None, body(&[b"x"])).await.unwrap();
    // It has no bytes yet, and a request writes to it.
    let endless = Box::pin(stream::pending::<io::Result<Bytes>>());
    let mut writing = std::pin::pin!(node.uploads.append(&name, &receiving, None, endless));
    assert!(futures::poll!(&mut writing).is_pending());
    node.clock.advance(MINUTE - SECOND);
    assert!(matches!(node.uploads.open(&name, client()).await, Err(UploadError::TooManySessions(3))));
    node.clock.advance(SECOND);
    node.open(&name).await;
    assert!(is_there(&node, &receiving) && !is_there(&node, &paused));
    let gone = node.uploads.append(&name, &paused, None, body(&[b"x"])).await;
    assert!(matches!(gone, Err(UploadError::UnknownSession)), "{gone:?}");
}

#[tokio::test]
async fn a_client_of_a_restarted_node_has_time_to_return() {
    let folder = folder();
    let name = repository("a");
    let node = Node::start(folder.path(), Setup { max_sessions: 1, ..Setup::default() });
    let id = node.open(&name).await;
    node.uploads.append(&name, &id, None, body(&[b"x"])).await.unwrap();
    let now = entrepot_runtime::clock::Timestamp(node.clock.now().0 + 3_600_000);
    node.stop().await;
    let node = Node::start(folder.path(), Setup { max_sessions: 1, now, ..Setup::default() });
    assert!(matches!(node.uploads.open(&name, client()).await, Err(UploadError::TooManySessions(1))));
    node.clock.advance(MINUTE);
    node.open(&name).await;
}

#[tokio::test]
async fn the_longest_unused_sessions_are_removed_first_for_waiting_reservations() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup { capacity: ByteSize::bytes(3400), ..Setup::default() });
    start_cleaner(&node);
    let name = repository("a");
    // Content that is never evicted takes so much that uploads cannot have their part.
    let pushed = [[8; 1200], [9; 1200]];
    let _pins = pushed.map(|content| node.store.contents.pin(&sha256(&content)));
    for content in pushed {
        node.push(&name, &content).await;
    }
    let mut old = Vec::new();
    for _ in 0..3 {
        let id = node.open(&name).await;
        node.uploads.append(&name, &id, None, body(&[&[1; 300]])).await.unwrap();
        node.clock.advance(SECOND);
        old.push(id);
    }
    let new = node.open(&name).await;
    let refused = node.uploads.append(&name, &new, None, body(&[&[2; 500]])).await;
    assert!(matches!(&refused, Err(UploadError::Store(error)) if error.is_no_room()), "{refused:?}");
    node.clock.advance(MINUTE);
    node.uploads.append(&name, &new, None, body(&[&[2; 500]])).await.unwrap();
    let there: Vec<_> = old.iter().map(|id| is_there(&node, id)).collect();
    assert_eq!(there, [false, false, true], "no more sessions than needed are removed");
    assert_eq!(node.metrics.store.evicted_bytes.get(), 600);
    assert!(node.tasks.stop(Duration::from_secs(20)).await);
}

fn start_cleaner(node: &Node) {
    let (sessions, policy) = (Arc::new(node.uploads.clone()), EvictionPolicy::LeastRecentlyUsed);
    clean::start(&node.tasks, node.store.clone(), policy, sessions, node.metrics.clone());
}

fn attacker() -> Holder {
    Holder::of_identity("attacker")
}

/// Pushes a blob as another client than those of the sessions before.
async fn push_as_other(node: &Node, content: &'static [u8]) -> Result<Digest, UploadError> {
    let (name, digest) = (repository("other"), sha256(content));
    let id = node.uploads.open(&name, Holder::of_identity("other")).await?.id;
    node.uploads.finish(&name, &id, &digest, None, body(&[content])).await.map(|()| digest)
}

#[tokio::test]
async fn sessions_in_use_of_one_client_leave_half_of_all_sessions_to_others() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup { max_sessions: 10, ..Setup::default() });
    let name = repository("a");
    for _ in 0..5 {
        let id = node.uploads.open(&name, attacker()).await.unwrap().id;
        node.uploads.append(&name, &id, None, body(&[b"x"])).await.unwrap();
    }
    for _ in 0..2 {
        let refused = node.uploads.open(&name, attacker()).await;
        assert!(matches!(refused, Err(UploadError::TooManySessions(10))), "{refused:?}");
        push_as_other(&node, b"layer").await.unwrap();
    }
    node.clock.advance(MINUTE);
    node.uploads.open(&name, attacker()).await.unwrap();
}

#[tokio::test]
async fn when_no_session_is_free_a_client_takes_the_place_of_the_one_that_has_most() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup { max_sessions: 4, ..Setup::default() });
    let name = repository("a");
    let open = |holder: &'static str| node.uploads.open(&name, Holder::of_identity(holder));
    let first = open("a").await.unwrap().id;
    let second = open("a").await.unwrap().id;
    let (third, fourth) = (open("b").await.unwrap().id, open("c").await.unwrap().id);
    node.clock.advance(SECOND);
    open("d").await.unwrap();
    let there: Vec<_> = [&first, &second, &third, &fourth].map(|id| is_there(&node, id)).to_vec();
    assert_eq!((there.iter().filter(|there| **there).count(), &there[2..]), (3, &[true, true][..]));
    assert!(matches!(open("e").await, Err(UploadError::TooManySessions(4))), "all have one session, which is new");
}

#[tokio::test]
async fn unfinished_uploads_of_one_client_evict_little_and_leave_space_to_others() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup { capacity: ByteSize::mebibytes(8), ..Setup::default() });
    start_cleaner(&node);
    let name = repository("a");
    let content: Vec<u8> = (0..2 << 20).map(|byte: u32| byte.to_le_bytes()[1]).collect();
    let cached = node.push(&name, &content).await;
    let mut refused = 0;
    for _ in 0..20 {
        let id = node.uploads.open(&name, attacker()).await.unwrap().id;
        match node.uploads.append(&name, &id, None, body(&[&[1; 512 << 10]])).await {
            Ok(_) => {}
            Err(UploadError::ShareUsed) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(refused, 20 - 7, "7/8 of 4 MiB");
    assert!(node.store.contents.size(&cached).is_some(), "the cached content stays");
    push_as_other(&node, &[2; 256 << 10]).await.unwrap();
    // After a minute, what nobody continues goes.
    node.clock.advance(MINUTE);
    let id = node.uploads.open(&name, attacker()).await.unwrap().id;
    node.uploads.append(&name, &id, None, body(&[&[1; 512 << 10]])).await.unwrap();
    assert!(node.tasks.stop(Duration::from_secs(20)).await);
}

#[tokio::test]
async fn only_long_unused_sessions_expire() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup::default());
    let name = repository("a");
    let (old, used) = (node.open(&name).await, node.open(&name).await);
    node.uploads.append(&name, &old, None, body(&[b"old"])).await.unwrap();
    node.clock.advance(23 * 60 * MINUTE);
    node.uploads.append(&name, &used, None, body(&[b"x"])).await.unwrap();
    node.clock.advance(2 * 60 * MINUTE);
    assert_eq!(node.uploads.expire().await, 3);
    assert!(matches!(node.uploads.status(&name, &old).await, Err(UploadError::UnknownSession)));
    assert_eq!(node.uploads.status(&name, &used).await.unwrap().offset, 1);
}
