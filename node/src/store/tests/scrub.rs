//! Reading stored content only to check that it is sound.

use crate::store::Store;
use crate::store::testing::{Fixture, content, corrupt, read, store_content, touch};
use crate::store::{Scrubbed, Step};
use entrepot_oci::Digest;

fn scrub(store: &Store, digest: &Digest) -> (Scrubbed, u64) {
    let mut scrubbing = store.scrub.begin(digest).unwrap();
    let mut total = 0;
    loop {
        match scrubbing.step().unwrap() {
            Step::More(next, read) => {
                total += read;
                scrubbing = next;
            }
            Step::Done(scrubbed) => return (scrubbed, total),
        }
    }
}

#[tokio::test]
async fn sound_content_is_read_whole_kept_and_not_counted_as_used() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    for length in [0, 1, 512 << 10, 1_500_000] {
        let (digest, bytes) = content(1, length);
        store_content(&store, &digest, &bytes).await.unwrap();
        let before = store.contents.records();
        assert_eq!(scrub(&store, &digest), (Scrubbed::Kept, length as u64));
        assert_eq!(store.contents.records(), before);
    }
    assert!(store.scrub.begin(&content(9, 9).0).is_none());
}

#[tokio::test]
async fn damage_is_found_and_removed_also_of_what_is_pinned() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, bytes) = content(1, 1_500_000);
    for pinned in [false, true] {
        store_content(&store, &digest, &bytes).await.unwrap();
        let _pin = pinned.then(|| store.contents.pin(&digest));
        corrupt(&fixture.file_of(&digest));
        assert_eq!(scrub(&store, &digest).0, Scrubbed::Removed);
        assert!(!store.contents.contains(&digest) && !fixture.file_of(&digest).exists());
    }
    assert_eq!(fixture.metrics.mismatches.with_label_values(&["store"]).get(), 2);
    assert_eq!(fixture.metrics.pending.damaged.get(), 1);
}

#[tokio::test]
async fn scrubbed_content_needs_no_verification_at_its_next_use() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, bytes) = content(1, 1000);
    store_content(&store, &digest, &bytes).await.unwrap();
    drop(store);
    let store = fixture.open();
    assert_eq!(store.contents.size(&digest), None);
    assert_eq!(scrub(&store, &digest).0, Scrubbed::Kept);
    assert_eq!(store.contents.size(&digest), Some(1000));
    touch(&fixture.file_of(&digest));
    assert_eq!(scrub(&store, &digest).0, Scrubbed::Kept);
    store.close().unwrap();
    drop(store);
    assert_eq!(fixture.open().contents.size(&digest), Some(1000));
}

#[tokio::test]
async fn content_removed_or_replaced_during_a_scrub_is_not_a_finding() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let (digest, bytes) = content(1, 1000);
    store_content(&store, &digest, &bytes).await.unwrap();
    corrupt(&fixture.file_of(&digest));
    let (first, second) = (store.scrub.begin(&digest).unwrap(), store.scrub.begin(&digest).unwrap());
    store_content(&store, &digest, &bytes).await.unwrap();
    let mut step = first.step().unwrap();
    while let Step::More(next, _) = step {
        step = next.step().unwrap();
    }
    assert!(matches!(step, Step::Done(Scrubbed::Kept)), "the damaged file was replaced");
    assert!(read(&store, &digest).await.unwrap() == bytes);
    store.contents.remove(&digest).await.unwrap();
    let mut step = second.step().unwrap();
    while let Step::More(next, _) = step {
        step = next.step().unwrap();
    }
    assert!(matches!(step, Step::Done(Scrubbed::Kept)), "evicted content is not downloaded again");
}

#[tokio::test]
async fn a_round_covers_everything_in_order_and_continues_after_a_clean_stop() {
    let fixture = Fixture::roomy();
    let store = fixture.open();
    let mut digests = Vec::new();
    for seed in 0..20 {
        let (digest, bytes) = content(seed, 10);
        store_content(&store, &digest, &bytes).await.unwrap();
        digests.push(digest);
    }
    digests.sort();
    // The round starts at a random digest, because no clean shutdown came before.
    assert!(!store.scrub.end_round());
    assert_eq!(store.scrub.next(7), digests[..7]);
    store.scrub.done(&digests[6]);
    assert_eq!(store.scrub.next(100), digests[7..]);
    store.close().unwrap();
    drop(store);
    let store = fixture.open();
    assert_eq!(store.scrub.next(100), digests[7..]);
    store.scrub.done(&digests[19]);
    assert!(store.scrub.next(100).is_empty() && store.scrub.end_round());
    assert_eq!(store.scrub.next(100), digests);
}
