//! The turns of requests to the bucket, and who loses one.
//!
//! The body of a get keeps its turn while it is read. A client that reads slowly, or not at all, would
//! keep it for as long as it likes, and as many clients as there are turns would cut the node off from
//! a bucket in perfect health. Two rules prevent that:
//!
//! - Bodies that clients may read have three quarters of the turns, so that links, tags, lists and
//!   uploads always find one.
//! - When a request waits, the client that was behind for the longest time loses its turn: its body
//!   ends with a transient error, after which its reader requests the rest. This costs a request to
//!   the bucket, but only while turns are short.

use crate::{BodyReader, BodyStream, BucketError, BucketErrorKind, Key, Operation};
use bytes::Bytes;
use entrepot_runtime::clock::Stopwatch;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// How long in total a reader may be behind before it can lose its turn. It is far longer than a
/// new request to the bucket takes, and far shorter than a request waits for the bucket.
const BEHIND: Duration = Duration::from_millis(500);

/// How often a waiting request looks for a reader that is behind.
const CHECK: Duration = Duration::from_millis(100);

/// All turns of a bucket. Clones share them.
#[derive(Clone)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    /// A part of `all`: a body that a client may read takes one of both.
    of_clients: Arc<Semaphore>,
    bodies: Arc<Bodies>,
}

/// A turn. Dropping it frees it.
pub(super) struct Turn {
    _of_all: OwnedSemaphorePermit,
    of_clients: Option<OwnedSemaphorePermit>,
}

/// The open bodies that may lose their turn.
#[derive(Default)]
struct Bodies(Mutex<Open>);

#[derive(Default)]
struct Open {
    next: u64,
    bodies: BTreeMap<u64, Arc<Mutex<Body>>>,
}

struct Body {
    /// `None` once the body has ended or lost its turn.
    open: Option<(BodyStream, Turn)>,
    lost: bool,
    /// For how long pieces were not requested, in total.
    behind: Duration,
    /// When the reader got its last piece. `None` while it waits for the bucket.
    since: Option<Stopwatch>,
}

impl Turns {
    pub(super) fn new(all: usize) -> Turns {
        let of_clients = (all * 3 / 4).max(1);
        Turns {
            all: Arc::new(Semaphore::new(all)),
            of_clients: Arc::new(Semaphore::new(of_clients)),
            bodies: Arc::default(),
        }
    }

    /// A turn, in order of arrival.
    pub(super) async fn take(&self, reader: BodyReader) -> Result<Turn, AcquireError> {
        let of_clients = match reader {
            BodyReader::Client => Some(self.acquire(&self.of_clients).await?),
            BodyReader::Node => None,
        };
        Ok(Turn { _of_all: self.acquire(&self.all).await?, of_clients })
    }

    async fn acquire(&self, from: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, AcquireError> {
        if let Ok(permit) = from.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let mut acquiring = pin!(from.clone().acquire_owned());
        loop {
            self.bodies.reclaim();
            tokio::select! {
                biased;
                permit = &mut acquiring => return permit,
                () = tokio::time::sleep(CHECK) => {}
            }
        }
    }

    /// The body, which keeps the turn until it ends, is dropped, or loses it.
    pub(super) fn held_by(&self, key: &Key, body: BodyStream, turn: Turn) -> BodyStream {
        if turn.of_clients.is_none() {
            return Holding { body, turn: Some(turn) }.boxed();
        }
        let body =
            Body { open: Some((body, turn)), lost: false, behind: Duration::ZERO, since: Some(Stopwatch::start()) };
        let body = Arc::new(Mutex::new(body));
        let number = self.bodies.add(body.clone());
        Losable { key: key.clone(), body, number, bodies: self.bodies.clone() }.boxed()
    }
}

impl Bodies {
    fn add(&self, body: Arc<Mutex<Body>>) -> u64 {
        let mut open = self.0.lock();
        let number = open.next;
        open.next += 1;
        open.bodies.insert(number, body);
        number
    }

    /// Takes the turn of the reader that was behind for the longest time, if any was for long enough.
    fn reclaim(&self) {
        let open = self.0.lock();
        let behind = |body: &Arc<Mutex<Body>>| Some((body.try_lock()?.is_behind()?, body.clone()));
        let slowest = open.bodies.values().filter_map(behind).max_by_key(|(span, _)| *span);
        drop(open);
        let Some((_, body)) = slowest else { return };
        let mut body = body.lock();
        // It may have been read in the meantime. A body that is being read must not lose its turn,
        // because nothing would wake its reader.
        if body.is_behind().is_some() {
            body.lost = true;
            let open = body.open.take();
            drop(body);
            drop(open);
        }
    }
}

impl Body {
    /// For how long the reader was behind, if that is long enough and it is behind now.
    fn is_behind(&self) -> Option<Duration> {
        self.open.as_ref()?;
        let behind = self.behind + self.since?.elapsed();
        (behind >= BEHIND).then_some(behind)
    }
}

/// A body that keeps its turn until it ends.
struct Holding {
    body: BodyStream,
    turn: Option<Turn>,
}

impl Stream for Holding {
    type Item = Result<Bytes, BucketError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = self.body.poll_next_unpin(context);
        if piece.is_ready() && !matches!(piece, Poll::Ready(Some(Ok(_)))) {
            self.turn = None;
        }
        piece
    }
}

/// A body that may lose its turn.
struct Losable {
    key: Key,
    body: Arc<Mutex<Body>>,
    number: u64,
    bodies: Arc<Bodies>,
}

impl Stream for Losable {
    type Item = Result<Bytes, BucketError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut body = self.body.lock();
        if let Some(since) = body.since.take() {
            body.behind += since.elapsed();
        }
        let Some((stream, _)) = &mut body.open else {
            let lost = std::mem::take(&mut body.lost).then(|| {
                let error = BucketError::new(Operation::Get, self.key.as_str(), BucketErrorKind::Truncated);
                Err(error.because("its reader was slow, and another request needed its turn"))
            });
            return Poll::Ready(lost);
        };
        let piece = stream.poll_next_unpin(context);
        match &piece {
            Poll::Ready(Some(Ok(_))) => body.since = Some(Stopwatch::start()),
            Poll::Ready(None | Some(Err(_))) => body.open = None,
            Poll::Pending => {}
        }
        piece
    }
}

impl Drop for Losable {
    fn drop(&mut self) {
        self.bodies.0.lock().bodies.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use crate::limit::Limited;
    use crate::{BodyReader, Bucket, Get, GetOptions, Key, Memory, Object, PutBody, PutMode};
    use futures::{FutureExt, StreamExt, TryStreamExt};
    use std::sync::Arc;

    async fn limited(turns: u32) -> Limited {
        let memory = Arc::new(Memory::default());
        memory.put(&Key::new("a"), PutBody::Bytes(vec![7; 1 << 20].into()), PutMode::Overwrite).await.unwrap();
        Limited::new(memory, turns, 1 << 20)
    }

    async fn get(bucket: &Limited, reader: BodyReader) -> Object {
        match bucket.get(&Key::new("a"), GetOptions { reader, ..GetOptions::default() }).await.unwrap() {
            Get::Found(object) => object,
            Get::NotModified | Get::Missing => panic!("the object exists"),
        }
    }

    #[tokio::test]
    async fn clients_that_do_not_read_leave_turns_for_other_requests() {
        let bucket = limited(4).await;
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(get(&bucket, BodyReader::Client).now_or_never().expect("a turn is free"));
        }
        assert!(bucket.head(&Key::new("a")).now_or_never().is_some());
        assert!(get(&bucket, BodyReader::Node).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_reader_that_is_behind_loses_its_turn_only_when_another_request_needs_it() {
        let bucket = limited(1).await;
        let mut slow = get(&bucket, BodyReader::Client).await.body;
        assert!(slow.next().await.is_some_and(|piece| piece.is_ok()));
        // The second one waits until the first has been behind for long enough.
        let second = get(&bucket, BodyReader::Client).await;
        let lost = slow.next().await.unwrap().unwrap_err();
        assert!(lost.is_transient(), "{lost}");
        assert!(slow.next().await.is_none());
        let content: Vec<_> = second.body.try_collect().await.unwrap();
        assert_eq!(content.iter().map(|piece| piece.len()).sum::<usize>(), 1 << 20);
    }

    #[tokio::test]
    async fn a_body_that_the_node_reads_keeps_its_turn() {
        let bucket = limited(1).await;
        let mut held = get(&bucket, BodyReader::Node).await.body;
        let waiting = tokio::time::timeout(super::BEHIND * 3, get(&bucket, BodyReader::Client)).await;
        assert!(waiting.is_err(), "the turn was not taken away");
        assert!(held.next().await.is_some_and(|piece| piece.is_ok()));
    }

    #[tokio::test]
    async fn a_reader_that_waits_for_the_bucket_keeps_its_turn() {
        use crate::fault::{Effect, Fault, Faults, Faulty};
        let faults = Faults::default();
        let memory = Arc::new(Memory::default());
        memory.put(&Key::new("a"), PutBody::Bytes(vec![7; 10].into()), PutMode::Overwrite).await.unwrap();
        let bucket = Limited::new(Arc::new(Faulty::new(memory, &faults)), 1, 1 << 20);
        faults.add(Fault::new(crate::Operation::Get, Effect::Stall { after: 3 }));
        let mut body = get(&bucket, BodyReader::Client).await.body;
        assert!(body.next().await.is_some_and(|piece| piece.is_ok()));
        let mut next = body.next();
        assert!((&mut next).now_or_never().is_none());
        let waiting = tokio::time::timeout(super::BEHIND * 3, get(&bucket, BodyReader::Client)).await;
        assert!(waiting.is_err(), "the turn was not taken away");
    }
}
