use super::repositories::Walk;
use super::*;
use crate::observe::Metrics;
use crate::repository::layout::{LinkKind, link_content};
use entrepot_bucket::Counted;
use entrepot_bucket::Key;
use entrepot_bucket::memory::Memory;
use entrepot_bucket::{PutBody, PutMode};
use entrepot_oci::Algorithm;
use futures::TryStreamExt;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn repository(name: &str) -> Repository {
    Repository::parse(name).unwrap()
}

fn digest(text: &str) -> Digest {
    Digest::of(Algorithm::Sha256, text.as_bytes())
}

async fn put(bucket: &dyn Bucket, key: &Key, content: impl Into<bytes::Bytes>) {
    bucket.put(key, PutBody::Bytes(content.into()), PutMode::Overwrite).await.unwrap();
}

async fn put_tag(bucket: &dyn Bucket, layout: &Layout, name: &Repository, tag: &str, of: &Digest) {
    let tag = Tag::parse(tag).unwrap();
    put(bucket, &layout.tag_index(name, &tag, of), link_content(of)).await;
    put(bucket, &layout.tag_current(name, &tag), link_content(of)).await;
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

fn discover() -> (Arc<Memory>, Layout, Discover) {
    let (bucket, layout) = (Arc::new(Memory::default()), Layout::new("team/"));
    let discover = Discover::new(bucket.clone(), layout.clone());
    (bucket, layout, discover)
}

fn names<T: std::fmt::Display>(items: &[T]) -> Vec<String> {
    items.iter().map(T::to_string).collect()
}

#[test]
fn tags_are_in_the_order_of_their_bytes() {
    run(async {
        let (bucket, layout, discover) = discover();
        let name = repository("a/b");
        for tag in ["v1.2", "v1", "v10", "v1-a", "V"] {
            put_tag(&*bucket, &layout, &name, tag, &digest("x")).await;
        }
        let page = discover.tags(&name, None, 100).await.unwrap().unwrap();
        assert_eq!(names(&page.items), ["V", "v1", "v1-a", "v1.2", "v10"]);
        assert!(!page.more);
        let page = discover.tags(&name, Some("v1"), 2).await.unwrap().unwrap();
        assert_eq!((names(&page.items), page.more), (vec!["v1-a".into(), "v1.2".into()], true));
    });
}

#[test]
fn an_unknown_repository_has_no_list_and_one_without_tags_has_an_empty_list() {
    run(async {
        let (bucket, layout, discover) = discover();
        let below = repository("library/alpine");
        put(&*bucket, &layout.link(&below, LinkKind::Layer, &digest("x")), link_content(&digest("x"))).await;
        assert_eq!(discover.tags(&repository("library"), None, 10).await.unwrap(), None);
        assert_eq!(discover.tags(&repository("other"), None, 10).await.unwrap(), None);
        let empty = Some(Listed { items: vec![], more: false });
        assert_eq!(discover.tags(&below, None, 10).await.unwrap(), empty);
        assert_eq!(discover.tags(&below, Some("z"), 10).await.unwrap(), empty);
    });
}

#[test]
fn a_page_does_not_wait_for_a_shorter_tag_at_the_end_of_a_long_listing() {
    run(async {
        let (bucket, layout, _) = discover();
        let name = repository("a");
        for number in 0..60 {
            put_tag(&*bucket, &layout, &name, &format!("b-{number:03}"), &digest("x")).await;
        }
        put_tag(&*bucket, &layout, &name, "b", &digest("x")).await;
        let page = tags::list(&*bucket, &layout, &name, None, 3, 10).await.unwrap().unwrap();
        assert_eq!((names(&page.items), page.more), (vec!["b".into(), "b-000".into(), "b-001".into()], true));
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn pages_of_tags_are_the_sorted_set_in_pieces(
        tags in proptest::collection::btree_set("[ab_][ab.-]{0,4}", 0..40),
        max in 1usize..6,
        at_once in 1usize..6,
        start in "[ab.-]{0,3}",
    ) {
        run(async {
            let (bucket, layout, _) = discover();
            let name = repository("a");
            put(&*bucket, &layout.link(&name, LinkKind::Layer, &digest("x")), link_content(&digest("x"))).await;
            for tag in &tags {
                put_tag(&*bucket, &layout, &name, tag, &digest("x")).await;
            }
            let expected: Vec<&String> = tags.iter().filter(|tag| **tag > start).collect();
            let mut found = Vec::new();
            let mut last = (!start.is_empty()).then(|| start.clone());
            loop {
                let page = tags::list(&*bucket, &layout, &name, last.as_deref(), max, at_once).await.unwrap().unwrap();
                prop_assert!(page.items.len() == max || !page.more, "a short page is the last one");
                found.extend(names(&page.items));
                last = found.last().cloned();
                if !page.more { break }
            }
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected);
            Ok(())
        })?;
    }

    #[test]
    fn the_walk_finds_every_repository_once_and_resumes_anywhere(
        all in proptest::collection::btree_set("[a0]([-.]?[a0]){0,1}(/[a0]([-.]?[a0]){0,1}){0,2}", 0..25),
        at_once in 1usize..5,
        max in 1usize..6,
    ) {
        run(async {
            let (bucket, layout, discover) = discover();
            for name in &all {
                let name = repository(name);
                put(&*bucket, &layout.link(&name, LinkKind::Layer, &digest("x")), link_content(&digest("x"))).await;
                put(&*bucket, &layout.link(&name, LinkKind::Revision, &digest("x")), link_content(&digest("x"))).await;
            }
            let mut expected: Vec<String> = all.iter().cloned().collect();
            expected.sort_by_key(|name| format!("{name}/"));
            let walk = Walk { bucket: &*bucket, root: layout.repositories(), at_once };
            let found: Vec<Repository> = walk.after(None).try_collect().await.unwrap();
            prop_assert_eq!(names(&found), expected.clone());
            for start in &all {
                let found: Vec<Repository> = walk.after(Some(&repository(start))).try_collect().await.unwrap();
                let rest = expected.iter().skip_while(|name| *name != start).skip(1).cloned();
                prop_assert_eq!(names(&found), rest.collect::<Vec<_>>());
            }
            let page = discover.repositories(None, max).await.unwrap();
            prop_assert_eq!((page.items.len(), page.more), (max.min(all.len()), all.len() > max));
            Ok(())
        })?;
    }
}

/// The list requests for a page of ten repositories and one of ten tags, from the middle, in a
/// bucket with this many of each.
async fn lists_of_a_page(count: usize) -> (u64, u64) {
    let (memory, layout, _) = discover();
    let many = repository("many");
    for number in 0..count {
        put_tag(&*memory, &layout, &repository(&format!("r{number:05}")), "latest", &digest("x")).await;
        put_tag(&*memory, &layout, &many, &format!("v{number:05}"), &digest("x")).await;
    }
    let metrics = Arc::new(Metrics::new().unwrap());
    let lists = || metrics.bucket.requests.with_label_values(&["list", "ok"]).get();
    let discover = Discover::new(Arc::new(Counted::new(memory, metrics.bucket.clone())), layout);
    let middle = count / 2;
    let page = discover.repositories(Some(&repository(&format!("r{middle:05}"))), 10).await.unwrap();
    assert_eq!((page.items.len(), page.more), (10, true));
    let of_repositories = lists();
    let page = discover.tags(&many, Some(&format!("v{middle:05}")), 10).await.unwrap().unwrap();
    assert_eq!((page.items.len(), page.more), (10, true));
    (of_repositories, lists() - of_repositories)
}

#[test]
fn the_cost_of_a_page_does_not_depend_on_the_size_of_the_bucket() {
    run(async {
        // More of each than one list request returns.
        let few = lists_of_a_page(3000).await;
        assert_eq!(lists_of_a_page(9000).await, few);
        assert_eq!(few, (13, 1), "list requests");
    });
}

fn referrer(text: &str, artifact_type: &str) -> Referrer {
    Referrer {
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        digest: digest(text),
        size: 10,
        artifact_type: Some(artifact_type.into()),
        annotations: Default::default(),
    }
}

/// Writes the descriptor that a push writes.
async fn put_entry(bucket: &dyn Bucket, layout: &Layout, name: &Repository, subject: &Digest, of: &Referrer) {
    let key = layout.referrer(name, subject, &of.digest);
    put(bucket, &key, serde_json::to_vec(of).unwrap()).await;
}

/// Writes the link of the manifest of a referrer.
async fn put_link(bucket: &dyn Bucket, layout: &Layout, name: &Repository, of: &Referrer) {
    put(bucket, &layout.link(name, LinkKind::Revision, &of.digest), link_content(&of.digest)).await;
}

async fn put_fallback(bucket: &dyn Bucket, layout: &Layout, name: &Repository, subject: &Digest, index: &str) {
    put(bucket, &layout.data(&digest(index)), index.to_owned()).await;
    put_tag(bucket, layout, name, &entrepot_oci::manifest::fallback_tag(subject), &digest(index)).await;
}

/// The digests of all pages of at most `max` entries.
async fn walked(
    discover: &Discover,
    name: &Repository,
    subject: &Digest,
    filter: Option<&str>,
    max: usize,
) -> Vec<Digest> {
    let (mut found, mut last) = (Vec::new(), None);
    loop {
        let page = discover.referrers(name, subject, filter, last.as_ref(), max).await.unwrap();
        assert!(page.items.len() <= max);
        found.extend(page.items.into_iter().map(|referrer| referrer.digest));
        assert!(page.next.is_none() || page.next > last, "the next page is after this one");
        last = page.next;
        if last.is_none() {
            return found;
        }
    }
}

#[test]
fn linked_referrers_are_paged_filtered_and_merged_with_the_fallback_tag() {
    run(async {
        let (bucket, layout, discover) = discover();
        let (name, subject) = (repository("a"), digest("subject"));
        let kind = |number: i32| if number % 3 == 0 { "sbom" } else { "signature" };
        let of = |number: i32| referrer(&format!("{number}"), kind(number));
        let is_linked = |number: i32| number % 4 != 0;
        for number in 0..60 {
            if number % 5 != 0 {
                put_entry(&*bucket, &layout, &name, &subject, &of(number)).await;
            }
            if is_linked(number) {
                put_link(&*bucket, &layout, &name, &of(number)).await;
            }
        }
        // The fallback index lists the referrers that have no descriptor, and some that have one.
        let listed: Vec<Referrer> = (0..60).filter(|number| number % 5 == 0 || number % 7 == 0).map(of).collect();
        let index = serde_json::json!({"schemaVersion": 2, "manifests": listed}).to_string();
        put_fallback(&*bucket, &layout, &name, &subject, &index).await;

        for filter in [None, Some("sbom")] {
            let wanted =
                (0..60).filter(|number| is_linked(*number) && filter.is_none_or(|filter| filter == kind(*number)));
            let expected: BTreeSet<Digest> = wanted.map(|number| digest(&format!("{number}"))).collect();
            let expected: Vec<Digest> = expected.into_iter().collect();
            for max in [1, 4, 7, 100] {
                assert_eq!(walked(&discover, &name, &subject, filter, max).await, expected, "{filter:?} {max}");
            }
        }
    });
}

#[test]
fn a_referrer_is_listed_while_the_repository_links_it() {
    run(async {
        let (bucket, layout, discover) = discover();
        let (name, subject) = (repository("a"), digest("subject"));
        let (kept, fallback, elsewhere) =
            (referrer("kept", "x"), referrer("fallback", "x"), referrer("elsewhere", "x"));
        put_entry(&*bucket, &layout, &name, &subject, &kept).await;
        put_entry(&*bucket, &layout, &name, &subject, &elsewhere).await;
        let index = serde_json::json!({"manifests": [fallback, elsewhere]}).to_string();
        put_fallback(&*bucket, &layout, &name, &subject, &index).await;
        for of in [&kept, &fallback] {
            put_link(&*bucket, &layout, &name, of).await;
        }
        put_link(&*bucket, &layout, &repository("other"), &elsewhere).await;
        // A damaged link contains no digest.
        let link = layout.link(&name, LinkKind::Revision, &digest("elsewhere"));
        put(&*bucket, &link, link_content(&digest("other"))).await;
        assert_eq!(walked(&discover, &name, &subject, None, 10).await.len(), 2);
        // Descriptors are cached, but a manifest that another node or CNCF Distribution deleted is
        // not listed.
        for (of, left) in [("kept", 1), ("fallback", 0)] {
            bucket.delete(&layout.link(&name, LinkKind::Revision, &digest(of))).await.unwrap();
            assert_eq!(walked(&discover, &name, &subject, None, 10).await.len(), left, "{of}");
        }
        put_link(&*bucket, &layout, &name, &kept).await;
        assert_eq!(walked(&discover, &name, &subject, None, 10).await, [kept.digest]);
    });
}

#[test]
fn one_request_checks_a_limited_number_of_entries_and_links_to_the_next_page() {
    run(async {
        let (memory, layout, _) = discover();
        let (name, subject) = (repository("a"), digest("subject"));
        // Only the last one is linked.
        let mut all: Vec<Referrer> = (0..2500).map(|number| referrer(&format!("{number}"), "x")).collect();
        all.sort_by_key(|referrer| referrer.digest);
        let (fallback, kept) = all.split_at(1200);
        for of in kept {
            put_entry(&*memory, &layout, &name, &subject, of).await;
        }
        let index = serde_json::json!({"manifests": fallback}).to_string();
        put_fallback(&*memory, &layout, &name, &subject, &index).await;
        put_link(&*memory, &layout, &name, &all[2499]).await;
        let metrics = Arc::new(Metrics::new().unwrap());
        let gets =
            || ["ok", "not_found"].map(|result| metrics.bucket.requests.with_label_values(&["get", result]).get());
        let discover = Discover::new(Arc::new(Counted::new(memory, metrics.bucket.clone())), layout);
        let (mut last, mut found, mut before) = (None, Vec::new(), 0);
        for page in 0.. {
            let listed = discover.referrers(&name, &subject, None, last.as_ref(), 10).await.unwrap();
            found.extend(listed.items.into_iter().map(|referrer| referrer.digest));
            let now = gets().iter().sum::<u64>();
            // A link and a descriptor each, the fallback tag and its index, and the checks that ran
            // ahead of the last one.
            assert!(now - before <= 2 * (1000 + 16) + 2, "page {page}: {}", now - before);
            (last, before) = (listed.next, now);
            if last.is_none() {
                break;
            }
        }
        assert_eq!(found, [all[2499].digest]);
    });
}

#[test]
fn an_unknown_subject_has_no_referrers() {
    run(async {
        let (_, _, discover) = discover();
        let page = discover.referrers(&repository("a"), &digest("none"), None, None, 10).await.unwrap();
        assert_eq!(page, Referrers { items: vec![], next: None });
    });
}

#[test]
fn an_invalid_descriptor_or_entry_is_left_out_and_hides_no_other() {
    run(async {
        let (bucket, layout, discover) = discover();
        let (name, subject) = (repository("a"), digest("subject"));
        let (good, listed) = (referrer("good", "sbom"), referrer("listed", "sbom"));
        put(&*bucket, &layout.referrer(&name, &subject, &digest("bad")), "{").await;
        // A descriptor with another digest than its key.
        let key = layout.referrer(&name, &subject, &digest("wrong"));
        put(&*bucket, &key, serde_json::to_vec(&good).unwrap()).await;
        put_entry(&*bucket, &layout, &name, &subject, &good).await;
        let odd = serde_json::json!({"mediaType": "a/b", "digest": "sha256:0", "size": -1});
        let index = serde_json::json!({"manifests": [odd, null, {"digest": "x", "size": 1, "mediaType": ""}, listed]});
        put_fallback(&*bucket, &layout, &name, &subject, &index.to_string()).await;
        for of in [&good, &listed, &referrer("bad", ""), &referrer("wrong", "")] {
            put_link(&*bucket, &layout, &name, of).await;
        }
        let mut expected = [good.digest, listed.digest];
        expected.sort();
        assert_eq!(walked(&discover, &name, &subject, None, 10).await, expected);
    });
}
