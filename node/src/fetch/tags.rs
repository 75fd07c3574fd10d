//! The current value of a tag. The bucket is asked with a conditional GET, so that every node
//! serves the latest push. While the bucket is unreachable, the last known value is served.

use super::circuit::Advice;
use super::{FetchError, Resolved, Shared};
use crate::repository::layout::read_link;
use crate::repository::links::MAX_LINK_BYTES;
use crate::store::KnownTag;
use entrepot_bucket::{BucketError, ETag, Get, GetOptions, collect_small};
use entrepot_oci::{Digest, Repository, Tag};
use entrepot_runtime::retry;
use std::sync::Arc;
use std::time::Duration;

/// How long a tag with a usable last value waits for a bucket that does not respond, for example
/// because of a broken network. Otherwise its requests would use up their whole timeout, and so
/// would the pull.
const PATIENCE: Duration = Duration::from_secs(5);

/// See [`super::Fetch::resolve`].
pub(super) async fn resolve(shared: &Arc<Shared>, repository: &Repository, tag: &Tag) -> Result<Resolved, FetchError> {
    let parts = &shared.parts;
    let known = parts.env.store.tags.get(repository, tag);
    let age = known.as_ref().map(|known| parts.env.clock.uptime().since(known.seen));
    if let Some(known) = &known
        && age.is_some_and(|age| age < parts.env.config.tags.fresh_for.get())
    {
        return Ok(Resolved { digest: known.digest, stale: false });
    }
    let fallback = known.as_ref().filter(|_| age.is_some_and(|age| age <= parts.env.config.links.stale_if_error.get()));
    if let Some(fallback) = fallback {
        match shared.circuit.advice() {
            Advice::Ask => {}
            Advice::Probe => {
                probe(shared, repository, tag, fallback.clone());
                return Ok(stale(shared, fallback));
            }
            Advice::DoWithout => return Ok(stale(shared, fallback)),
        }
    }
    let asking = ask(shared, repository, tag, known.as_ref());
    let answer = match fallback {
        None => asking.await,
        Some(fallback) => match tokio::time::timeout(PATIENCE, asking).await {
            Ok(answer) => answer,
            Err(_) => {
                shared.circuit.report(false);
                tracing::warn!(%repository, %tag, "the bucket does not respond; serving the tag's last known value");
                return Ok(stale(shared, fallback));
            }
        },
    };
    match (answer, fallback) {
        (Ok(Some(digest)), _) => Ok(Resolved { digest, stale: false }),
        (Ok(None), _) => Err(FetchError::NotFound),
        (Err(error), Some(fallback)) => {
            tracing::warn!(%repository, %tag, %error, "the bucket failed; serving the tag's last known value");
            Ok(stale(shared, fallback))
        }
        (Err(error), None) => Err(error.into()),
    }
}

fn stale(shared: &Shared, known: &KnownTag) -> Resolved {
    shared.parts.env.metrics.stale_tags.inc();
    Resolved { digest: known.digest, stale: true }
}

/// Checks in the background whether the bucket works again.
fn probe(shared: &Arc<Shared>, repository: &Repository, tag: &Tag, known: KnownTag) {
    let (shared, repository, tag) = (shared.clone(), repository.clone(), tag.clone());
    shared.parts.env.tasks.clone().spawn("probe bucket", async move {
        if let Err(error) = ask(&shared, &repository, &tag, Some(&known)).await {
            tracing::debug!(%error, "the bucket still fails");
        }
    });
}

/// Asks the bucket and remembers the result. `None` if there is no such tag, or its link contains
/// no digest.
async fn ask(
    shared: &Shared,
    repository: &Repository,
    tag: &Tag,
    known: Option<&KnownTag>,
) -> Result<Option<Digest>, BucketError> {
    let parts = &shared.parts;
    let look = parts.env.store.tags.look(repository, tag);
    let answer = retry::within(parts.env.config.bucket.retry_budget.get(), BucketError::is_transient, || {
        get(shared, repository, tag, known)
    });
    let answer = answer.await;
    shared.circuit.report(answer.is_ok());
    let found = match (answer?, known) {
        (Answer::Same, Some(known)) => Some((known.digest, known.etag.clone())),
        (Answer::Link(content, etag), _) => {
            let digest = read_link(&content);
            if digest.is_none() {
                tracing::warn!(%repository, %tag, "the tag's link in the bucket is damaged: it contains no digest");
            }
            digest.map(|digest| (digest, etag))
        }
        (Answer::Missing | Answer::Same, _) => None,
    };
    match found {
        Some((digest, etag)) => {
            parts.env.store.tags.remember(&look, repository, tag, digest, etag);
            Ok(Some(digest))
        }
        None => {
            parts.env.store.tags.forget(repository, tag);
            Ok(None)
        }
    }
}

enum Answer {
    /// The known link is current.
    Same,
    Link(bytes::Bytes, ETag),
    Missing,
}

async fn get(
    shared: &Shared,
    repository: &Repository,
    tag: &Tag,
    known: Option<&KnownTag>,
) -> Result<Answer, BucketError> {
    let key = shared.parts.env.layout.tag_current(repository, tag);
    let if_none_match = known.map(|known| known.etag.clone());
    Ok(match shared.parts.env.bucket.get(&key, GetOptions { if_none_match, ..GetOptions::default() }).await? {
        Get::Found(object) => {
            let (content, etag) = collect_small(&key, object, MAX_LINK_BYTES).await?;
            Answer::Link(content, etag)
        }
        Get::NotModified => Answer::Same,
        Get::Missing => Answer::Missing,
    })
}
