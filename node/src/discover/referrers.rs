//! Referrers of a subject. There are two sources: descriptors that this registry wrote when
//! manifests were pushed, and indexes under a tag that clients maintain in registries without the
//! referrers API (distribution-spec, "Referrers Tag Schema").
//!
//! An entry in either source can outlive its manifest: CNCF Distribution does not know the first,
//! and the second is a manifest that a client wrote. So an entry is listed only while the
//! repository links its manifest. The bucket is asked for that link each time, so that the next
//! list no longer has what another node or program deleted.
//!
//! A page also ends when a certain number of entries or of bytes was checked, listed or not.

use super::{LIST_MAX, Referrers};
use crate::repository::Layout;
use crate::repository::layout::{LinkKind, read_link};
use crate::repository::links::MAX_LINK_BYTES;
use entrepot_bucket::Key;
use entrepot_bucket::{Bucket, BucketError, ListOptions, get_small};
use entrepot_oci::manifest::{Referrer, fallback_referrers, fallback_tag};
use entrepot_oci::{Digest, MAX_MANIFEST_BYTES, Repository, Tag};
use futures::{StreamExt, TryStreamExt, stream};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Number of entries checked in parallel.
const PARALLEL: usize = 16;
/// Maximum number of entries that one request checks. Each costs a request for its link, and the
/// first time one for its descriptor. Images have a few referrers; one that is scanned every night
/// has some hundred after a year.
const MAX_LOOKS: usize = 256;
/// Maximum size of the descriptors that one request checks, in bytes of their JSON, apart from those
/// that are read ahead. This is the maximum size of a list, too.
const MAX_BYTES: usize = MAX_MANIFEST_BYTES;
/// Memory for cached descriptors, in bytes of their JSON. Most have a few hundred bytes.
const CACHE_BYTES: u64 = 16 << 20;
/// Estimated number of descriptors in that memory.
const CACHE_ITEMS: usize = 32 << 10;

/// Cached descriptors by key. The content of a key never changes, so it is read only once.
pub(super) struct Descriptors {
    /// Each with the size of its JSON.
    cache: Cache<Key, Arc<(Referrer, usize)>, BytesOfJson>,
}

#[derive(Clone)]
struct BytesOfJson;

impl Weighter<Key, Arc<(Referrer, usize)>> for BytesOfJson {
    fn weight(&self, _: &Key, descriptor: &Arc<(Referrer, usize)>) -> u64 {
        descriptor.1.max(1) as u64
    }
}

impl Descriptors {
    pub(super) fn new() -> Descriptors {
        Descriptors { cache: Cache::with_weighter(CACHE_ITEMS, CACHE_BYTES, BytesOfJson) }
    }

    /// The descriptor and the number of bytes that were read. The first is `None` if it was deleted
    /// since it was listed, or is invalid.
    async fn read(&self, bucket: &dyn Bucket, key: &Key) -> Result<(Option<Referrer>, usize), BucketError> {
        if let Some(known) = self.cache.get(key) {
            return Ok((Some(known.0.clone()), known.1));
        }
        let Some((content, _)) = get_small(bucket, key, MAX_MANIFEST_BYTES).await? else { return Ok((None, 0)) };
        let referrer = match serde_json::from_slice::<Referrer>(&content) {
            Ok(referrer) => referrer.limited(),
            Err(error) => {
                tracing::warn!(%key, %error, "ignoring an invalid referrer descriptor in the bucket");
                None
            }
        };
        if let Some(referrer) = &referrer {
            self.cache.insert(key.clone(), Arc::new((referrer.clone(), size(referrer))));
        }
        Ok((referrer, content.len()))
    }
}

/// The size of an entry, in bytes of its JSON.
fn size(referrer: &Referrer) -> usize {
    serde_json::to_vec(referrer).map_or(0, |json| json.len())
}

/// The parameters of a request; see [`super::Discover::referrers`].
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

/// The source of an entry.
enum Entry {
    /// A descriptor at this key.
    Kept(Key),
    /// An entry of the fallback index.
    Fallback(Referrer),
}

/// One page. Both sources are merged in the order of digests, so that no referrer is on two pages.
pub(super) async fn page(
    bucket: &dyn Bucket,
    layout: &Layout,
    descriptors: &Descriptors,
    query: Query<'_>,
) -> Result<Referrers, BucketError> {
    let looking = Looking { bucket, layout, descriptors, query: &query };
    let mut fallback = from_fallback(bucket, layout, &query).await?;
    let prefix = layout.referrers(query.repository, query.subject);
    let mut after = query.last.map(|last| layout.referrer(query.repository, query.subject, last).as_str().to_owned());
    let (mut items, mut looks, mut bytes, mut reached) = (Vec::new(), 0, 0, None);
    // The first list request gets as many entries as a full page needs. If some of them are not
    // listed, many more may not be either, so later requests get the maximum.
    let mut at_once = LIST_MAX.min(query.max.saturating_add(1));
    loop {
        let options = ListOptions { prefix: prefix.clone(), delimiter: false, after, max: at_once };
        let listing = bucket.list(options).await?;
        let mut entries: BTreeMap<Digest, Entry> =
            listing.keys.into_iter().filter_map(|key| Some((digest_of(&key, &prefix)?, Entry::Kept(key)))).collect();
        // Entries up to the last listed key are complete: no later list request can return one in
        // between.
        let listed = entries.last_key_value().map(|(digest, _)| *digest);
        let later = if listing.next.is_some() { later_than(&mut fallback, listed) } else { BTreeMap::new() };
        for (digest, referrer) in std::mem::replace(&mut fallback, later) {
            entries.entry(digest).or_insert(Entry::Fallback(referrer));
        }
        let mut looked = stream::iter(entries).map(|(digest, entry)| looking.at(digest, entry)).buffered(PARALLEL);
        while let Some((digest, referrer, size)) = looked.try_next().await? {
            if looks == MAX_LOOKS || bytes >= MAX_BYTES || (items.len() == query.max && referrer.is_some()) {
                return Ok(Referrers { items, next: reached });
            }
            items.extend(referrer);
            (looks, bytes, reached) = (looks + 1, bytes + size, Some(digest));
        }
        after = listing.next;
        if after.is_none() {
            return Ok(Referrers { items, next: None });
        }
        at_once = LIST_MAX;
    }
}

/// Removes and returns the entries after a digest; all of them if there is no digest.
fn later_than(entries: &mut BTreeMap<Digest, Referrer>, digest: Option<Digest>) -> BTreeMap<Digest, Referrer> {
    let Some(digest) = digest else { return std::mem::take(entries) };
    let mut later = entries.split_off(&digest);
    if let Some(same) = later.remove(&digest) {
        entries.insert(digest, same);
    }
    later
}

/// Checks entries.
struct Looking<'a> {
    bucket: &'a dyn Bucket,
    layout: &'a Layout,
    descriptors: &'a Descriptors,
    query: &'a Query<'a>,
}

impl Looking<'_> {
    /// The referrer, if it is requested and the repository links its manifest, and the size of its
    /// entry.
    async fn at(&self, digest: Digest, entry: Entry) -> Result<(Digest, Option<Referrer>, usize), BucketError> {
        let (referrer, size) = match entry {
            Entry::Kept(key) => self.descriptors.read(self.bucket, &key).await?,
            Entry::Fallback(referrer) => {
                let size = size(&referrer);
                (Some(referrer), size)
            }
        };
        let named = |referrer: &Referrer| self.query.wants(referrer) && referrer.digest == digest;
        let referrer = referrer.filter(named);
        let is_listed = referrer.is_some() && self.is_linked(&digest).await?;
        Ok((digest, referrer.filter(|_| is_listed), size))
    }

    async fn is_linked(&self, digest: &Digest) -> Result<bool, BucketError> {
        let key = self.layout.link(self.query.repository, LinkKind::Revision, digest);
        let link = get_small(self.bucket, &key, MAX_LINK_BYTES).await?;
        Ok(link.is_some_and(|(content, _)| read_link(&content) == Some(*digest)))
    }
}

/// `…/<alg>-<hex>`
fn digest_of(key: &Key, prefix: &str) -> Option<Digest> {
    let (algorithm, hex) = key.as_str().strip_prefix(prefix)?.split_once('-')?;
    Digest::parse(&format!("{algorithm}:{hex}")).ok()
}

/// The entries of the index under the fallback tag. A missing or invalid index has none.
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
        .map(|referrer| (referrer.digest, referrer))
        .filter(|(digest, _)| query.last.is_none_or(|last| digest > last))
        .collect())
}
