//! Content whose object did not match its digest when it was last read. Nothing of it is served
//! unverified.

use super::failure::Failure;
use super::fill::Phase;
use super::{FetchError, Shared, pass_through};
use crate::repository::damaged::{Condition, Course};
use entrepot_bucket::Object;
use entrepot_oci::Digest;
use futures::TryStreamExt;
use tokio::sync::watch;

/// How to read content that is not stored. Sends one request to the bucket for content that was
/// damaged, at most every few seconds, and none for other content.
///
/// # Errors
/// `Mismatch` if it is still damaged. A bucket error if the bucket does not respond.
pub(super) async fn course(shared: &Shared, digest: &Digest) -> Result<Course, FetchError> {
    let damaged = &shared.parts.env.damaged;
    match damaged.condition(digest) {
        Condition::Sound => return Ok(Course::Read),
        Condition::Damaged => return Err(FetchError::Mismatch(*digest)),
        Condition::Unknown => {}
    }
    let now = match shared.origin(digest).head().await {
        Ok(now) => Some(now),
        Err(Failure::Missing) => None,
        Err(failure) => return Err(failure.into_error(digest)),
    };
    match damaged.look(digest, now.as_ref()) {
        Course::Refuse => Err(FetchError::Mismatch(*digest)),
        course => Ok(course),
    }
}

/// Waits until a download is verified.
///
/// # Errors
/// If it fails.
pub(super) async fn verified(digest: &Digest, phase: &mut watch::Receiver<Phase>) -> Result<(), FetchError> {
    let ended = phase.wait_for(|phase| !matches!(phase, Phase::Filling)).await.map(|phase| phase.clone());
    match ended {
        Ok(Phase::Verified) => Ok(()),
        Ok(Phase::Failed(failure)) => Err(failure.into_error(digest)),
        Ok(Phase::Filling) | Err(_) => Err(Failure::abandoned(digest).into_error(digest)),
    }
}

/// Verifies content for which there is no space: reads it to its end and serves nothing of it.
/// Content that is served afterwards is requested again.
///
/// # Errors
/// If it does not match, or cannot be read.
pub(super) async fn read_through(
    shared: &Shared,
    digest: &Digest,
    size: u64,
    opened: Option<Object>,
) -> Result<Option<Object>, FetchError> {
    let background = shared.parts.background.clone();
    let read = pass_through::whole(&shared.origin(digest), background, *digest, size, 0, opened);
    match read.try_for_each(|_| std::future::ready(Ok(()))).await {
        Ok(()) => {
            shared.parts.env.damaged.repaired(digest);
            Ok(None)
        }
        Err(failure) => {
            if let Failure::Mismatch(version) = &failure {
                shared.mismatch(digest, version.clone());
            }
            Err(failure.into_error(digest))
        }
    }
}

/// The size of content in the bucket, in bytes. One request.
///
/// # Errors
/// `Mismatch` if the object is damaged. Other errors if the bucket does not have it or does not
/// respond.
pub(super) async fn size(shared: &Shared, digest: &Digest) -> Result<u64, FetchError> {
    let damaged = &shared.parts.env.damaged;
    if damaged.condition(digest) == Condition::Damaged {
        return Err(FetchError::Mismatch(*digest));
    }
    let now = shared.origin(digest).head().await.map_err(|failure| failure.into_error(digest))?;
    match damaged.look(digest, Some(&now)) {
        Course::Read => Ok(now.size),
        Course::Verify | Course::Refuse => Err(FetchError::Mismatch(*digest)),
    }
}
