//! The body of a pushed manifest, which is gathered in memory, within a budget for all requests.

use super::body::RequestBody;
use crate::http::error::ApiError;
use bytes::{Bytes, BytesMut};
use entrepot_oci::MAX_MANIFEST_BYTES;
use entrepot_runtime::share::{Holder, Share, Shares};
use futures::TryStreamExt;
use http_body::Body as _;
use std::io;
use std::time::Duration;

/// The bytes of manifests in memory, of all requests together: 16 of the maximum size, and thousands
/// of the usual size of a few KiB. One client alone may have half of it.
const BUDGET: usize = 64 << 20;

/// How long a manifest waits for its part of the budget. An honest client needs its part for
/// milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// The part of the budget with which a manifest of unknown length starts. Most are smaller.
const FIRST: usize = 64 << 10;

/// The memory for manifests that clients are sending.
pub struct ManifestMemory(Shares);

/// A manifest and its part of the budget, to be kept until the push ends.
#[derive(Debug)]
pub struct Gathered {
    pub content: Bytes,
    pub memory: Share,
}

impl Default for ManifestMemory {
    fn default() -> ManifestMemory {
        ManifestMemory(Shares::new(BUDGET))
    }
}

impl ManifestMemory {
    /// Reads the whole manifest. One that is too large is refused before a byte is read if its
    /// `Content-Length` exceeds the limit, otherwise as soon as it exceeds the limit. Its memory is
    /// counted before it is allocated.
    ///
    /// # Errors
    /// `ManifestMemory` if there is no memory for it in time, or why the body cannot be read.
    pub async fn collect(&self, mut body: RequestBody, client: &Holder) -> Result<Gathered, ApiError> {
        let hint = body.size_hint();
        let length = usize::try_from(hint.lower()).unwrap_or(usize::MAX);
        if length > MAX_MANIFEST_BYTES {
            return Err(ApiError::ManifestTooLarge);
        }
        let mut room = hint.exact().map_or(FIRST, |_| length);
        let taken = self.0.take_within(client, room, PATIENCE).await;
        let mut memory = taken.ok_or(ApiError::ManifestMemory)?;
        let mut content = BytesMut::with_capacity(room);
        while let Some(piece) = body.try_next().await.map_err(ApiError::Body)? {
            let needed = content.len() + piece.len();
            if needed > MAX_MANIFEST_BYTES {
                return Err(ApiError::ManifestTooLarge);
            }
            if needed > room {
                // It does not wait: it already has memory that others may wait for.
                let more = needed.max(2 * room).min(MAX_MANIFEST_BYTES) - room;
                if !memory.grow(more) {
                    return Err(ApiError::ManifestMemory);
                }
                room += more;
                content.reserve(room - content.len());
            }
            content.extend_from_slice(&piece);
        }
        if content.len() < length {
            return Err(ApiError::Body(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(Gathered { content: content.freeze(), memory })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::pace::PaceLimit;
    use axum::body::Body;
    use futures::{FutureExt, StreamExt, stream};

    const STALL: Duration = Duration::from_secs(60);

    fn holder(name: &str) -> Holder {
        Holder::of_identity(name)
    }

    fn whole(content: Vec<u8>) -> RequestBody {
        RequestBody::new(Body::from(content), PaceLimit::new(STALL, 0))
    }

    /// A body of unknown length that sends these bytes and then nothing.
    fn unfinished(bytes: usize) -> RequestBody {
        let sent = stream::iter([Ok::<_, io::Error>(Bytes::from(vec![0; bytes]))]);
        RequestBody::new(Body::from_stream(sent.chain(stream::pending())), PaceLimit::new(STALL, 0))
    }

    #[tokio::test(start_paused = true)]
    async fn unfinished_manifests_of_one_client_take_half_of_the_budget() {
        let (memory, greedy, other) = (ManifestMemory::default(), holder("greedy"), holder("other"));
        let mut reading: Vec<_> =
            (0..60).map(|_| Box::pin(memory.collect(unfinished(MAX_MANIFEST_BYTES - 1), &greedy))).collect();
        assert!(reading.iter_mut().all(|push| push.now_or_never().is_none()));
        assert!(memory.0.free() >= BUDGET / 2);
        assert!(memory.collect(whole(vec![0; MAX_MANIFEST_BYTES]), &other).await.is_ok());
        assert!(matches!(memory.collect(whole(vec![0; BUDGET / 16]), &greedy).await, Err(ApiError::ManifestMemory)));
        drop(reading);
        assert_eq!(memory.0.free(), BUDGET);
    }

    #[tokio::test]
    async fn a_manifest_keeps_its_memory_until_the_push_ends() {
        let memory = ManifestMemory::default();
        let gathered = memory.collect(whole(vec![7; 1000]), &holder("a")).await.unwrap();
        assert_eq!((gathered.content.len(), memory.0.free()), (1000, BUDGET - 1000));
        drop(gathered);
        assert_eq!(memory.0.free(), BUDGET);
    }

    #[tokio::test]
    async fn a_manifest_that_is_too_large_is_refused() {
        let memory = ManifestMemory::default();
        for body in [whole(vec![0; MAX_MANIFEST_BYTES + 1]), unfinished(MAX_MANIFEST_BYTES + 1)] {
            let refused = memory.collect(body, &holder("a")).await;
            assert!(matches!(refused, Err(ApiError::ManifestTooLarge)));
        }
        assert_eq!(memory.0.free(), BUDGET);
    }
}
