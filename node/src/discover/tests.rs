use super::*;
use crate::observe::Metrics;
use crate::repository::layout::{LinkKind, link_content};
use entrepot_bucket::Counted;
use entrepot_bucket::Key;
use entrepot_bucket::memory::Memory;
use entrepot_bucket::{PutBody, PutMode};
use entrepot_oci::Algorithm;
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
        assert_eq!(page.next, None);
        let page = discover.tags(&name, Some("v1"), 2).await.unwrap().unwrap();
        assert_eq!((names(&page.items), page.next), (vec!["v1-a".into(), "v1.2".into()], Some("v1.2".into())));
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
        let empty = Some(Listed { items: vec![], next: None });
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
        let limits = tags::Limits { max: 3, lists: 10, at_once: 10 };
        let page = tags::list(&*bucket, &layout, &name, None, limits).await.unwrap().unwrap();
        let expected = vec!["b".into(), "b-000".into(), "b-001".into()];
        assert_eq!((names(&page.items), page.next), (expected, Some("b-001".into())));
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn pages_of_tags_are_the_sorted_set_in_pieces(
        tags in proptest::collection::btree_set("[ab_][ab.-]{0,4}", 0..40),
        max in 1usize..6,
        at_once in 1usize..6,
        lists in 1usize..6,
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
                let limits = tags::Limits { max, lists, at_once };
                let page = tags::list(&*bucket, &layout, &name, last.as_deref(), limits).await.unwrap().unwrap();
                prop_assert!(page.items.len() <= max);
                found.extend(names(&page.items));
                prop_assert!(page.next.is_none() || page.next > last, "the next page is after this one");
                last = page.next;
                if last.is_none() { break }
            }
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected);
            Ok(())
        })?;
    }

    #[test]
    fn the_walk_finds_every_repository_once_and_resumes_anywhere(
        all in proptest::collection::btree_set("[a0]([-.]?[a0]){0,1}(/[a0]([-.]?[a0]){0,1}){0,2}", 0..25),
        at_once in 1usize..5,
        lists in 1usize..4,
        max in 1usize..6,
        prefixes in prop_oneof![
            Just(BTreeSet::from([String::new()])),
            proptest::collection::btree_set("[a0][-.]?(/[a0]?)?", 0..4),
        ],
        denied in 0usize..5,
    ) {
        run(async {
            let (bucket, layout, _) = discover();
            for name in &all {
                let name = repository(name);
                put(&*bucket, &layout.link(&name, LinkKind::Layer, &digest("x")), link_content(&digest("x"))).await;
                put(&*bucket, &layout.link(&name, LinkKind::Revision, &digest("x")), link_content(&digest("x"))).await;
            }
            // What a client, a crash or another program left, which is not a repository.
            for path in ["a/_uploads/x/data", "a0/_entrepot/x/1", "a0/_entrepot/x/2", "a0/_entrepot/y", "A/x", "b/_layers"] {
                put(&*bucket, &Key::new(format!("{}{path}", layout.repositories())), "x").await;
            }
            let prefixes: Vec<String> = prefixes.into_iter().collect();
            let allows = |name: &Repository| name.as_str().len() % 3 != denied;
            let scope = Scope { prefixes: prefixes.clone(), allows: &allows };
            let mut expected: Vec<String> = all.iter().cloned().collect();
            expected.retain(|name| prefixes.iter().any(|prefix| format!("{name}/").starts_with(prefix)));
            expected.retain(|name| allows(&repository(name)));
            expected.sort_by_key(|name| format!("{name}/_"));
            let limits = repositories::Limits { max, lists, at_once };
            let starts = expected.iter().enumerate().map(|(index, name)| (Some(name.clone()), index + 1));
            for (start, from) in std::iter::once((None, 0)).chain(starts.clone()) {
                let (mut found, mut last, mut pages) = (Vec::new(), start, 0);
                loop {
                    let page = repositories::page(&*bucket, &layout, &scope, last.as_deref(), limits).await.unwrap();
                    prop_assert!(page.items.len() <= max);
                    found.extend(names(&page.items));
                    last = page.next;
                    if last.is_none() { break }
                    pages += 1;
                    prop_assert!(pages < 1000, "there is no progress after {last:?}");
                }
                prop_assert_eq!(found, expected[from..].to_vec());
            }
            Ok(())
        })?;
    }
}

#[test]
fn deep_repositories_cost_no_list_request_each() {
    run(async {
        let (memory, layout, _) = discover();
        for number in 0..300 {
            let name = repository(&format!("n{number:03}/deep/er"));
            put(&*memory, &layout.link(&name, LinkKind::Layer, &digest("x")), link_content(&digest("x"))).await;
        }
        let (discover, lists) = counted(memory, layout);
        let page = discover.repositories(&Scope::all(), None, 10_000).await.unwrap();
        assert_eq!((page.items.len(), page.next, lists()), (300, None, 1));
    });
}

#[test]
fn a_page_of_large_repositories_ends_at_the_limit_of_list_requests() {
    run(async {
        let (memory, layout, _) = discover();
        for number in 0..70 {
            let name = repository(&format!("n{number:03}"));
            for layer in 0..1100 {
                let digest = digest(&layer.to_string());
                put(&*memory, &layout.link(&name, LinkKind::Layer, &digest), link_content(&digest)).await;
            }
        }
        let (discover, lists) = counted(memory, layout);
        let page = discover.repositories(&Scope::all(), None, 10_000).await.unwrap();
        assert_eq!((page.items.len(), page.next.as_deref(), lists()), (64, Some("n063"), 64));
        let page = discover.repositories(&Scope::all(), page.next.as_deref(), 10_000).await.unwrap();
        assert_eq!((page.items.len(), page.next), (6, None));
        let all_but_these = |name: &Repository| name.as_str() >= "n065";
        let scope = Scope { prefixes: vec!["n".into()], allows: &all_but_these };
        let page = discover.repositories(&scope, None, 10_000).await.unwrap();
        assert_eq!(page.items, []);
        let shown = page.next.as_deref();
        assert_eq!(shown, Some("n!"), "the position shows no name that the client must not see");
        let scope = Scope { prefixes: vec!["n068/".into(), "other/".into()], allows: &|_| true };
        let before = lists();
        let page = discover.repositories(&scope, shown, 10_000).await.unwrap();
        assert_eq!((names(&page.items), page.next, lists() - before), (vec!["n068".to_owned()], None, 3));
    });
}

#[test]
fn a_page_of_tags_with_many_possible_shorter_tags_costs_a_limited_number_of_list_requests() {
    run(async {
        let (memory, layout, _) = discover();
        let name = repository("a");
        for number in 0..1200 {
            let tag = format!("a{}{number:04}", "-.".repeat(50));
            put(&*memory, &layout.tag_current(&name, &Tag::parse(&tag).unwrap()), "").await;
        }
        let (discover, lists) = counted(memory, layout);
        let page = discover.tags(&name, None, 1).await.unwrap().unwrap();
        assert_eq!((page.items.len(), lists()), (1, 10));
    });
}

/// The same bucket, and the number of list requests to it.
fn counted(bucket: Arc<Memory>, layout: Layout) -> (Discover, impl Fn() -> u64) {
    let metrics = Arc::new(Metrics::new().unwrap());
    let counted = Counted::new(bucket, metrics.bucket.clone());
    let lists = move || metrics.bucket.requests.with_label_values(&["list", "ok"]).get();
    (Discover::new(Arc::new(counted), layout), lists)
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
    let (discover, lists) = counted(memory, layout);
    let middle = count / 2;
    let page = discover.repositories(&Scope::all(), Some(&format!("r{middle:05}")), 10).await.unwrap();
    assert_eq!((page.items.len(), page.next.is_some()), (10, true));
    let of_repositories = lists();
    let page = discover.tags(&many, Some(&format!("v{middle:05}")), 10).await.unwrap().unwrap();
    assert_eq!((page.items.len(), page.next.is_some()), (10, true));
    (of_repositories, lists() - of_repositories)
}

#[test]
fn the_cost_of_a_page_does_not_depend_on_the_size_of_the_bucket() {
    run(async {
        // More of each than one list request returns.
        let few = lists_of_a_page(3000).await;
        assert_eq!(lists_of_a_page(9000).await, few);
        assert_eq!(few, (1, 1), "list requests");
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
            assert!(now - before <= 2 * (256 + 16) + 2, "page {page}: {}", now - before);
            (last, before) = (listed.next, now);
            if last.is_none() {
                break;
            }
        }
        assert_eq!(found, [all[2499].digest]);
    });
}

#[test]
fn one_request_reads_a_limited_number_of_bytes_even_if_no_referrer_has_the_requested_type() {
    run(async {
        let (memory, layout, _) = discover();
        let (name, subject) = (repository("a"), digest("subject"));
        // Descriptors as another program may write them.
        let large = |number: usize| {
            let annotations = [("a".to_owned(), "x".repeat(1 << 20))].into();
            Referrer { annotations, ..referrer(&number.to_string(), "x") }
        };
        for number in 0..60 {
            put_entry(&*memory, &layout, &name, &subject, &large(number)).await;
            put_link(&*memory, &layout, &name, &large(number)).await;
        }
        let metrics = Arc::new(Metrics::new().unwrap());
        let counted = Counted::new(memory, metrics.bucket.clone());
        let discover = Discover::new(Arc::new(counted), layout);
        let read = || metrics.bucket.received_bytes.get();
        let page = discover.referrers(&name, &subject, Some("none"), None, 1).await.unwrap();
        assert!(page.items.is_empty() && page.next.is_some());
        assert!(read() <= (4 + 1 + 16) << 20, "{}", read());
        // Each is read once. What is cached and listed has no large annotations.
        assert_eq!(walked(&discover, &name, &subject, Some("none"), 1).await, []);
        let all = read();
        let page = discover.referrers(&name, &subject, None, None, 100).await.unwrap();
        assert_eq!((page.items.len(), page.next), (60, None));
        assert!(page.items.iter().all(|referrer| referrer.annotations.is_empty()));
        assert!(read() - all < 100_000, "{}", read() - all);
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
