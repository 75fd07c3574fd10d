//! The state of the bucket, for `/status`. The bucket is asked only when a client asks this node,
//! so an idle node sends no requests.

use crate::repository::layout::Layout;
use entrepot_bucket::Bucket;
use entrepot_bucket::Key;
use entrepot_bucket::{BucketError, BucketErrorKind, GetOptions};
use entrepot_config::{BucketState, BucketStatus};
use entrepot_runtime::clock::Stopwatch;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// How long a result is reused.
const FRESH: Duration = Duration::from_secs(5);

/// The bucket counts as unreachable if it has not responded within this time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the bucket, one request at a time.
pub struct BucketHealth {
    bucket: Arc<dyn Bucket>,
    key: Key,
    last: Mutex<Option<(Stopwatch, BucketStatus)>>,
}

impl BucketHealth {
    /// Checks this bucket when it is asked.
    pub fn new(bucket: Arc<dyn Bucket>, layout: &Layout) -> BucketHealth {
        // No object has this key. A GET of it is the cheapest request, and its response explains an
        // error, which the response to a HEAD cannot.
        let key = Key::new(format!("{}_entrepot/probe", layout.repositories()));
        BucketHealth { bucket, key, last: Mutex::new(None) }
    }

    /// The state of the bucket, at most a few seconds old.
    pub async fn ask(&self) -> BucketStatus {
        let mut last = self.last.lock().await;
        if let Some((asked, status)) = &*last
            && asked.elapsed() < FRESH
        {
            return status.clone();
        }
        let status = match tokio::time::timeout(PATIENCE, self.bucket.get(&self.key, GetOptions::default())).await {
            Ok(Ok(_)) => BucketStatus { state: BucketState::Reachable, message: String::new() },
            Ok(Err(error)) => told(&error),
            Err(_) => BucketStatus { state: BucketState::Unreachable, message: "request timed out".into() },
        };
        *last = Some((Stopwatch::start(), status.clone()));
        status
    }
}

fn told(error: &BucketError) -> BucketStatus {
    let state = match error.kind {
        BucketErrorKind::WrongRegion => BucketState::WrongRegion,
        BucketErrorKind::NoCredentials => BucketState::NoCredentials,
        BucketErrorKind::Denied => BucketState::Denied,
        BucketErrorKind::NoBucket => BucketState::Missing,
        BucketErrorKind::Timeout | BucketErrorKind::Connection => BucketState::Unreachable,
        BucketErrorKind::SlowDown
        | BucketErrorKind::Server
        | BucketErrorKind::Truncated
        | BucketErrorKind::Full
        | BucketErrorKind::WrongContent
        | BucketErrorKind::Refused
        | BucketErrorKind::LocalFile => BucketState::Failing,
    };
    let cause = error.source.as_ref().map(ToString::to_string).unwrap_or_default();
    BucketStatus { state, message: format!("{}; {cause}", error.kind) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use entrepot_bucket::fault::{Effect, Fault, Faults, Faulty};
    use entrepot_bucket::{Memory, Operation};

    #[test]
    fn every_failure_has_a_state_by_its_kind() {
        for (kind, state) in [
            (BucketErrorKind::Timeout, BucketState::Unreachable),
            (BucketErrorKind::Connection, BucketState::Unreachable),
            (BucketErrorKind::Denied, BucketState::Denied),
            (BucketErrorKind::NoCredentials, BucketState::NoCredentials),
            (BucketErrorKind::NoBucket, BucketState::Missing),
            (BucketErrorKind::WrongRegion, BucketState::WrongRegion),
            (BucketErrorKind::Server, BucketState::Failing),
        ] {
            // The state does not depend on the text of the cause, which is for people.
            let error = BucketError::new(Operation::Get, "probe", kind).because("code PermanentRedirect: no");
            let told = told(&error);
            assert!(told.state == state && told.message.contains("PermanentRedirect"), "{told:?}");
        }
    }

    #[tokio::test]
    async fn concurrent_callers_share_one_request_to_the_bucket() {
        let faults = Faults::default();
        let bucket = Arc::new(Faulty::new(Arc::new(Memory::default()), &faults));
        faults.add(Fault::new(Operation::Get, Effect::Error(BucketErrorKind::NoBucket)).times(1));
        let health = BucketHealth::new(bucket, &Layout::new(""));
        let (one, other) = tokio::join!(health.ask(), health.ask());
        assert_eq!((one.state, other.state), (BucketState::Missing, BucketState::Missing));
        *health.last.lock().await = None;
        assert_eq!(health.ask().await.state, BucketState::Reachable);
    }
}
