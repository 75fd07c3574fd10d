//! Injected failures, for tests of how a node handles a failing bucket.

use super::{
    BodyStream, Bucket, BucketError, BucketErrorKind, Capabilities, Delete, ETag, Get, GetOptions, ListOptions,
    MultipartId, Object, ObjectMeta, Operation, Page, PartTag, Put, PutBody, PutMode,
};
use crate::Key;
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

/// The effect of a fault. Offsets are bytes of the body, from its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// The request fails without an effect.
    Error(BucketErrorKind),
    /// The request takes effect, and its answer is lost: [`BucketErrorKind::Connection`].
    LoseAnswer,
    /// The request hangs until the fault is cleared, then continues.
    Hang,
    /// The body of a get stalls after this many bytes until the fault is cleared, then continues.
    Stall {
        /// Number of bytes before it.
        after: u64,
    },
    /// The body of a get ends early: [`BucketErrorKind::Truncated`].
    Truncate {
        /// Number of bytes before it.
        after: u64,
    },
    /// The connection of a get breaks within the body: [`BucketErrorKind::Connection`].
    Reset {
        /// Number of bytes before it.
        after: u64,
    },
    /// One byte of the body of a get is changed.
    Corrupt {
        /// Offset of the byte.
        at: u64,
    },
}

/// One fault, and the requests that it affects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// `None` affects every operation.
    pub operation: Option<Operation>,
    /// Affects keys that contain this.
    #[serde(default)]
    pub key: String,
    /// Number of requests to affect; `None` for all.
    #[serde(default)]
    pub times: Option<u64>,
    /// What happens to the requests.
    pub effect: Effect,
}

impl Fault {
    /// Affects every request of one operation.
    pub fn new(operation: Operation, effect: Effect) -> Fault {
        Fault { operation: Some(operation), key: String::new(), times: None, effect }
    }

    /// Fails every request of one operation.
    pub fn error(operation: Operation, kind: BucketErrorKind) -> Fault {
        Fault::new(operation, Effect::Error(kind))
    }

    /// Affects only this many requests.
    #[must_use]
    pub fn times(mut self, times: u64) -> Fault {
        self.times = Some(times);
        self
    }

    /// Affects only keys that contain this.
    #[must_use]
    pub fn on_key(mut self, part: &str) -> Fault {
        self.key = part.to_owned();
        self
    }
}

/// Identifies an added fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultId(usize);

/// The handle that adds faults. Clones share the state.
#[derive(Clone, Default)]
pub struct Faults {
    rules: Arc<Mutex<Vec<Rule>>>,
}

struct Rule {
    fault: Fault,
    hits: u64,
    stalled: Arc<AtomicU64>,
    cleared: CancellationToken,
}

/// A fault that applies to a request.
struct Struck {
    effect: Effect,
    stalled: Arc<AtomicU64>,
    cleared: CancellationToken,
}

impl Faults {
    fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.rules.lock()
    }

    /// Adds a fault. If several faults match a request, the one added first applies.
    pub fn add(&self, fault: Fault) -> FaultId {
        let mut rules = self.rules();
        rules.push(Rule { fault, hits: 0, stalled: Arc::default(), cleared: CancellationToken::new() });
        FaultId(rules.len() - 1)
    }

    /// The number of requests that the fault has affected.
    pub fn hits(&self, id: FaultId) -> u64 {
        self.rules().get(id.0).map_or(0, |rule| rule.hits)
    }

    /// The number of bodies that reached the place at which the fault stalls them: the bucket has
    /// answered these requests.
    pub fn stalled(&self, id: FaultId) -> u64 {
        self.rules().get(id.0).map_or(0, |rule| rule.stalled.load(Ordering::SeqCst))
    }

    /// Removes all faults; requests that hang continue. Their hits can still be read.
    pub fn clear(&self) {
        for rule in self.rules().iter_mut() {
            rule.cleared.cancel();
        }
    }

    fn strike(&self, operation: Operation, key: &str) -> Option<Struck> {
        let mut rules = self.rules();
        let rule = rules.iter_mut().find(|rule| {
            let fault = &rule.fault;
            !rule.cleared.is_cancelled()
                && fault.operation.is_none_or(|wanted| wanted == operation)
                && fault.times.is_none_or(|times| rule.hits < times)
                && key.contains(&fault.key)
        })?;
        rule.hits += 1;
        Some(Struck { effect: rule.fault.effect, stalled: rule.stalled.clone(), cleared: rule.cleared.clone() })
    }
}

/// A bucket that fails as its [`Faults`] define.
pub struct Faulty {
    inner: Arc<dyn Bucket>,
    faults: Faults,
}

impl Faulty {
    /// Fails requests to `inner` as the faults define.
    pub fn new(inner: Arc<dyn Bucket>, faults: &Faults) -> Faulty {
        Faulty { inner, faults: faults.clone() }
    }

    /// Runs the request, unless a fault applies. Faults of bodies are returned, so the get can
    /// apply them.
    async fn struck<T>(
        &self,
        operation: Operation,
        key: &str,
        request: impl Future<Output = Result<T, BucketError>>,
    ) -> Result<(T, Option<Struck>), BucketError> {
        let struck = self.faults.strike(operation, key);
        match struck.as_ref().map(|struck| struck.effect) {
            Some(Effect::Error(kind)) => return Err(injected(operation, key, kind)),
            Some(Effect::LoseAnswer) => {
                request.await?;
                return Err(injected(operation, key, BucketErrorKind::Connection));
            }
            Some(Effect::Hang) => {
                if let Some(struck) = &struck {
                    struck.cleared.cancelled().await;
                }
            }
            _ => {}
        }
        Ok((request.await?, struck))
    }

    async fn plain<T>(
        &self,
        operation: Operation,
        key: &Key,
        request: impl Future<Output = Result<T, BucketError>>,
    ) -> Result<T, BucketError> {
        Ok(self.struck(operation, key.as_str(), request).await?.0)
    }
}

fn injected(operation: Operation, key: &str, kind: BucketErrorKind) -> BucketError {
    BucketError::new(operation, key, kind).because("injected fault")
}

/// Applies the fault to the body.
fn spoil(key: &Key, object: Object, struck: Struck) -> Object {
    let fail = |kind| {
        let error = injected(Operation::Get, key.as_str(), kind);
        move |_| stream::once(async move { Err(error) }).boxed()
    };
    let body = match struck.effect {
        Effect::Error(_) | Effect::LoseAnswer | Effect::Hang => object.body,
        Effect::Truncate { after } => split(object.body, after, fail(BucketErrorKind::Truncated)),
        Effect::Reset { after } => split(object.body, after, fail(BucketErrorKind::Connection)),
        Effect::Stall { after } => split(object.body, after, |rest| {
            let wait = stream::once(async move {
                struck.stalled.fetch_add(1, Ordering::SeqCst);
                struck.cleared.cancelled().await;
            });
            wait.filter_map(|()| async { None }).chain(rest).boxed()
        }),
        Effect::Corrupt { at } => corrupted(object.body, at),
    };
    Object { body, ..object }
}

/// The first `after` bytes, followed by `then` applied to the rest.
fn split(body: BodyStream, after: u64, then: impl FnOnce(BodyStream) -> BodyStream + Send + 'static) -> BodyStream {
    enum At<F> {
        Head(BodyStream, u64, F),
        Tail(BodyStream),
    }
    let pieces = stream::unfold(At::Head(body, after, then), |at| async move {
        let (mut body, left, then) = match at {
            At::Head(body, left, then) => (body, left, then),
            At::Tail(mut body) => return body.next().await.map(|piece| (piece, At::Tail(body))),
        };
        if left == 0 {
            let mut tail = then(body);
            return tail.next().await.map(|piece| (piece, At::Tail(tail)));
        }
        match body.next().await? {
            Err(error) => Some((Err(error), At::Tail(stream::empty().boxed()))),
            Ok(mut piece) => {
                let taken = piece.split_to(usize::try_from(left).unwrap_or(usize::MAX).min(piece.len()));
                let left = left - taken.len() as u64;
                let rest = stream::iter((!piece.is_empty()).then_some(Ok(piece))).chain(body).boxed();
                Some((Ok(taken), At::Head(rest, left, then)))
            }
        }
    });
    pieces.boxed()
}

fn corrupted(body: BodyStream, at: u64) -> BodyStream {
    let mut offset = 0;
    body.map(move |piece| {
        let piece = piece?;
        let here = at.checked_sub(offset).and_then(|here| usize::try_from(here).ok());
        offset += piece.len() as u64;
        match here.filter(|here| *here < piece.len()) {
            None => Ok(piece),
            Some(here) => {
                let mut changed = piece.to_vec();
                changed[here] ^= 0xff;
                Ok(Bytes::from(changed))
            }
        }
    })
    .boxed()
}

#[async_trait]
impl Bucket for Faulty {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn head(&self, key: &Key) -> Result<Option<ObjectMeta>, BucketError> {
        self.plain(Operation::Head, key, self.inner.head(key)).await
    }

    async fn get(&self, key: &Key, options: GetOptions) -> Result<Get, BucketError> {
        match self.struck(Operation::Get, key.as_str(), self.inner.get(key, options)).await? {
            (Get::Found(object), Some(struck)) => Ok(Get::Found(spoil(key, object, struck))),
            (answer, _) => Ok(answer),
        }
    }

    async fn put(&self, key: &Key, body: PutBody, mode: PutMode) -> Result<Put, BucketError> {
        self.plain(Operation::Put, key, self.inner.put(key, body, mode)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), BucketError> {
        self.plain(Operation::Delete, key, self.inner.delete(key)).await
    }

    async fn delete_if_match(&self, key: &Key, version: &ETag) -> Result<Delete, BucketError> {
        self.plain(Operation::Delete, key, self.inner.delete_if_match(key, version)).await
    }

    async fn list(&self, options: ListOptions) -> Result<Page, BucketError> {
        let prefix = options.prefix.clone();
        Ok(self.struck(Operation::List, &prefix, self.inner.list(options)).await?.0)
    }

    async fn multipart_begin(&self, key: &Key) -> Result<MultipartId, BucketError> {
        self.plain(Operation::MultipartBegin, key, self.inner.multipart_begin(key)).await
    }

    async fn multipart_part(
        &self,
        key: &Key,
        upload: &MultipartId,
        number: u32,
        body: PutBody,
    ) -> Result<PartTag, BucketError> {
        self.plain(Operation::MultipartPart, key, self.inner.multipart_part(key, upload, number, body)).await
    }

    async fn multipart_complete(
        &self,
        key: &Key,
        upload: &MultipartId,
        parts: Vec<PartTag>,
        mode: PutMode,
    ) -> Result<Put, BucketError> {
        let request = self.inner.multipart_complete(key, upload, parts, mode);
        self.plain(Operation::MultipartComplete, key, request).await
    }

    async fn multipart_unfinished(&self, key: &Key) -> Result<Vec<MultipartId>, BucketError> {
        self.plain(Operation::MultipartUnfinished, key, self.inner.multipart_unfinished(key)).await
    }

    async fn multipart_abort(&self, key: &Key, upload: &MultipartId) -> Result<(), BucketError> {
        self.plain(Operation::MultipartAbort, key, self.inner.multipart_abort(key, upload)).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Memory, get_small};
    use super::*;
    use futures::FutureExt;

    async fn bucket() -> (Faulty, Faults, Key) {
        let (memory, key) = (Arc::new(Memory::default()), Key::new("docker/blobs/data"));
        memory.put(&key, PutBody::Bytes(Bytes::from_static(b"0123456789")), PutMode::Overwrite).await.unwrap();
        let faults = Faults::default();
        (Faulty::new(memory, &faults), faults, key)
    }

    /// The bytes before the end or failure of the body, and the failure.
    async fn read(bucket: &Faulty, key: &Key) -> (Vec<u8>, Option<BucketErrorKind>) {
        let Get::Found(mut object) = bucket.get(key, GetOptions::default()).await.unwrap() else {
            panic!("the object exists")
        };
        let mut content = Vec::new();
        while let Some(piece) = object.body.next().await {
            match piece {
                Ok(piece) => content.extend_from_slice(&piece),
                Err(error) => return (content, Some(error.kind)),
            }
        }
        (content, None)
    }

    #[tokio::test]
    async fn a_fault_affects_its_operation_and_key_the_given_number_of_times() {
        let (bucket, faults, key) = bucket().await;
        let fault = faults.add(Fault::error(Operation::Head, BucketErrorKind::Server).on_key("/blobs/").times(2));
        assert!(bucket.head(&Key::new("docker/links/a")).await.is_ok());
        assert!(get_small(&bucket, &key, 10).await.is_ok());
        for _ in 0..2 {
            assert_eq!(bucket.head(&key).await.unwrap_err().kind, BucketErrorKind::Server);
        }
        assert!(bucket.head(&key).await.is_ok());
        assert_eq!(faults.hits(fault), 2);
    }

    #[tokio::test]
    async fn bodies_can_end_early_break_and_change() {
        let (bucket, faults, key) = bucket().await;
        for (effect, content, kind) in [
            (Effect::Truncate { after: 4 }, &b"0123"[..], Some(BucketErrorKind::Truncated)),
            (Effect::Reset { after: 0 }, b"", Some(BucketErrorKind::Connection)),
            (Effect::Corrupt { at: 3 }, b"012\xcc456789", None),
        ] {
            faults.add(Fault::new(Operation::Get, effect).times(1));
            assert_eq!(read(&bucket, &key).await, (content.to_vec(), kind), "{effect:?}");
        }
    }

    #[tokio::test]
    async fn a_request_that_hangs_continues_when_the_fault_is_cleared() {
        let (bucket, faults, key) = bucket().await;
        faults.add(Fault::new(Operation::Head, Effect::Hang));
        faults.add(Fault::new(Operation::Get, Effect::Stall { after: 4 }));
        let mut head = bucket.head(&key);
        assert!(head.as_mut().now_or_never().is_none());
        let mut body = read(&bucket, &key).boxed();
        assert!(body.as_mut().now_or_never().is_none());
        faults.clear();
        assert!(head.await.unwrap().is_some());
        assert_eq!(body.await, (b"0123456789".to_vec(), None));
    }

    #[test]
    fn a_fault_is_read_from_json() {
        let text = r#"{"operation":"get","key":"/data","times":1,"effect":{"truncate":{"after":4}}}"#;
        let fault = Fault::new(Operation::Get, Effect::Truncate { after: 4 }).on_key("/data").times(1);
        assert_eq!(serde_json::from_str::<Fault>(text).unwrap(), fault);
        let text = r#"{"operation":null,"effect":{"error":"slow_down"}}"#;
        assert_eq!(serde_json::from_str::<Fault>(text).unwrap().effect, Effect::Error(BucketErrorKind::SlowDown));
    }
}
