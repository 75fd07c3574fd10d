//! Referrers of a subject: the descriptors that manifests left when they were pushed, and those that clients of
//! registries without this list keep in an index under a tag (distribution-spec, "Referrers Tag Schema").

use super::{LIST_MAX, Listed};
use crate::oci::manifest::{Referrer, fallback_referrers, fallback_tag};
use crate::oci::{Digest, MAX_MANIFEST_BYTES, Repository, Tag};
use crate::store::Layout;
use crate::store::bucket::{Bucket, BucketError, ListOptions, get_small};
use crate::store::layout::{Key, read_link};
use crate::store::links::MAX_LINK_BYTES;
use futures::{StreamExt, TryStreamExt, stream};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Descriptors read at once.
const PARALLEL: usize = 16;
/// Memory for descriptors, in bytes of their JSON; most have a few hundred.
const CACHE_BYTES: u64 = 16 << 20;
/// About how many that are.
const CACHE_ITEMS: usize = 32 << 10;

/// Descriptors by key. What a key names never changes, so that one that was read need not be read again.
pub(super) struct Descriptors {
    cache: Cache<Key, Arc<(Referrer, u64)>, BytesOfJson>,
}

#[derive(Clone)]
struct BytesOfJson;

impl Weighter<Key, Arc<(Referrer, u64)>> for BytesOfJson {
    fn weight(&self, _: &Key, descriptor: &Arc<(Referrer, u64)>) -> u64 {
        descriptor.1.max(1)
    }
}

impl Descriptors {
    pub(super) fn new() -> Descriptors {
        Descriptors { cache: Cache::with_weighter(CACHE_ITEMS, CACHE_BYTES, BytesOfJson) }
    }

    /// `None`: it is gone since it was listed, or not readable.
    async fn read(&self, bucket: &dyn Bucket, key: &Key) -> Result<Option<Referrer>, BucketError> {
        if let Some(known) = self.cache.get(key) {
            return Ok(Some(known.0.clone()));
        }
        let Some((content, _)) = get_small(bucket, key, MAX_MANIFEST_BYTES).await? else { return Ok(None) };
        match serde_json::from_slice::<Referrer>(&content) {
            Ok(referrer) => {
                self.cache.insert(key.clone(), Arc::new((referrer.clone(), content.len() as u64)));
                Ok(Some(referrer))
            }
            Err(error) => {
                tracing::warn!(%key, %error, "a referrer's descriptor in the bucket is damaged");
                Ok(None)
            }
        }
    }
}

/// What is asked for; see [`super::Discover::referrers`].
pub(super) struct Query<'a> {
    pub(super) repository: &'a Repository,
    pub(super) subject: &'a Digest,
    pub(super) artifact_type: Option<&'a str>,
    pub(super) last: Option<&'a Digest>,
    pub(super) max: usize,
}

impl Query<'_> {
    fn wants(&self, referrer: &Referrer) -> bool {
        self.artifact_type.is_none_or(|wanted| referrer.artifact_type.as_deref() == Some(wanted))
    }
}

/// One page. Both sources are merged in the order of digests, so that no referrer is on two pages.
pub(super) async fn page(
    bucket: &dyn Bucket,
    layout: &Layout,
    descriptors: &Descriptors,
    query: Query<'_>,
) -> Result<Listed<Referrer>, BucketError> {
    let mut found = from_fallback(bucket, layout, &query).await?;
    let prefix = layout.referrers(query.repository, query.subject);
    let mut after = query.last.map(|last| layout.referrer(query.repository, query.subject, last).as_str().to_owned());
    loop {
        let at_once = LIST_MAX.min(query.max.saturating_add(1));
        let options = ListOptions { prefix: prefix.clone(), delimiter: false, after, max: at_once };
        let listing = bucket.list(options).await?;
        // Collected, for a lazy iterator over borrowed keys would make the future not Send.
        let keys: Vec<(Key, Digest)> =
            listing.keys.into_iter().filter_map(|key| digest_of(&key, &prefix).map(|digest| (key, digest))).collect();
        let read =
            keys.into_iter().map(|(key, digest)| async move { Ok((digest, descriptors.read(bucket, &key).await?)) });
        let read: Vec<(Digest, Option<Referrer>)> = stream::iter(read).buffered(PARALLEL).try_collect().await?;
        let reached = read.last().map(|(digest, _)| *digest);
        for (digest, referrer) in read {
            if let Some(referrer) = referrer.filter(|referrer| query.wants(referrer)) {
                found.insert(digest, referrer);
            }
        }
        after = listing.next;
        // Up to where the listing is, nothing can come between any more.
        let certain = reached.map_or(0, |reached| found.range(..=reached).count());
        if after.is_none() || certain > query.max {
            return Ok(Listed::first(query.max, found.into_values().collect()));
        }
    }
}

/// `…/<alg>-<hex>`
fn digest_of(key: &Key, prefix: &str) -> Option<Digest> {
    let (algorithm, hex) = key.as_str().strip_prefix(prefix)?.split_once('-')?;
    Digest::parse(&format!("{algorithm}:{hex}")).ok()
}

/// The entries of the index under the fallback tag. One that is not there or not readable has none.
async fn from_fallback(
    bucket: &dyn Bucket,
    layout: &Layout,
    query: &Query<'_>,
) -> Result<BTreeMap<Digest, Referrer>, BucketError> {
    let Ok(tag) = Tag::parse(&fallback_tag(query.subject)) else { return Ok(BTreeMap::new()) };
    let link = get_small(bucket, &layout.tag_current(query.repository, &tag), MAX_LINK_BYTES).await?;
    let Some(index) = link.and_then(|(content, _)| read_link(&content)) else { return Ok(BTreeMap::new()) };
    let content = get_small(bucket, &layout.data(&index), MAX_MANIFEST_BYTES).await?;
    let Some((content, _)) = content.filter(|(bytes, _)| Digest::of(index.algorithm(), bytes) == index) else {
        return Ok(BTreeMap::new());
    };
    let entries = fallback_referrers(&content).unwrap_or_default().into_iter();
    Ok(entries
        .filter(|referrer| query.wants(referrer))
        .filter_map(|referrer| Some((Digest::parse(&referrer.digest).ok()?, referrer)))
        .filter(|(digest, _)| query.last.is_none_or(|last| digest > last))
        .collect())
}
