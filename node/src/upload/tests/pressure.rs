//! Sessions that are removed to make place for others.

use super::folder;
use crate::clean;
use crate::store::UnusedSessions;
use crate::testing::{Node, Setup, body, repository};
use crate::upload::UploadError;
use bytes::Bytes;
use entrepot_config::{ByteSize, EvictionPolicy};
use entrepot_oci::SessionId;
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
async fn the_longest_unused_empty_session_is_removed_for_a_new_one() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup { max_sessions: 3, ..Setup::default() });
    let name = repository("a");
    let with_bytes = node.open(&name).await;
    node.uploads.append(&name, &with_bytes, None, body(&[b"x"])).await.unwrap();
    node.clock.advance(10 * MINUTE);
    let first = node.open(&name).await;
    node.clock.advance(SECOND);
    let second = node.open(&name).await;
    node.clock.advance(SECOND);
    node.uploads.status(&name, &first).await.unwrap();
    let third = node.open(&name).await;
    assert!(!is_there(&node, &second), "it was unused for longer than the first");
    for id in [&with_bytes, &first, &third] {
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
    let node = Node::start(folder.path(), Setup { max_sessions: 2, ..Setup::default() });
    let name = repository("a");
    let (receiving, paused) = (node.open(&name).await, node.open(&name).await);
    node.uploads.append(&name, &paused, None, body(&[b"x"])).await.unwrap();
    // It has no bytes yet, and a request writes to it.
    let endless = Box::pin(stream::pending::<io::Result<Bytes>>());
    let mut writing = std::pin::pin!(node.uploads.append(&name, &receiving, None, endless));
    assert!(futures::poll!(&mut writing).is_pending());
    node.clock.advance(MINUTE - SECOND);
    assert!(matches!(node.uploads.open(&name).await, Err(UploadError::TooManySessions(2))));
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
    assert!(matches!(node.uploads.open(&name).await, Err(UploadError::TooManySessions(1))));
    node.clock.advance(MINUTE);
    node.open(&name).await;
}

#[tokio::test]
async fn the_longest_unused_sessions_are_removed_first_for_waiting_reservations() {
    let folder = folder();
    let node = Node::start(folder.path(), Setup { capacity: ByteSize::bytes(1000), ..Setup::default() });
    let sessions = Arc::new(node.uploads.clone());
    let policy = EvictionPolicy::LeastRecentlyUsed;
    clean::start(&node.tasks, node.store.clone(), policy, sessions, node.metrics.clone());
    let name = repository("a");
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
