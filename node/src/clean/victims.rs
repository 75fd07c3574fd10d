//! Chooses the content to evict.

use crate::store::{Frequency, Record};
use entrepot_config::EvictionPolicy;
use entrepot_oci::Digest;
use entrepot_runtime::clock::Timestamp;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The rank of content; the smallest is evicted first. The digest makes the order total, so that
/// the same statistics always lead to the same choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    LeastRecentlyUsed(Timestamp, Digest),
    /// Of content with the same frequency, the least recently used is evicted first.
    LeastFrequentlyUsed(Frequency, Timestamp, Digest),
}

impl Rank {
    fn of(policy: EvictionPolicy, record: &Record) -> Rank {
        match policy {
            EvictionPolicy::LeastRecentlyUsed => Rank::LeastRecentlyUsed(record.used, record.digest),
            EvictionPolicy::LeastFrequentlyUsed => {
                Rank::LeastFrequentlyUsed(record.frequency, record.used, record.digest)
            }
        }
    }

    fn digest(&self) -> Digest {
        match self {
            Rank::LeastRecentlyUsed(_, digest) | Rank::LeastFrequentlyUsed(_, _, digest) => *digest,
        }
    }
}

/// Chooses the content to evict so that at least `need` bytes are freed, in the order of eviction.
/// Evicts no more than that order requires; if everything is not enough, everything that may be
/// evicted. Never includes pinned content, nor empty content, because evicting that frees nothing.
pub fn victims(policy: EvictionPolicy, records: impl IntoIterator<Item = Record>, need: u64) -> Vec<Digest> {
    let removable = records.into_iter().filter(|record| !record.pinned && record.size > 0);
    // A heap instead of a sorted list, because a run evicts a few of very many items.
    let mut order: BinaryHeap<_> =
        removable.map(|record| Reverse((Rank::of(policy, &record), record.size))).collect::<Vec<_>>().into();
    let mut chosen = Vec::new();
    let mut freed: u64 = 0;
    while freed < need {
        let Some(Reverse((rank, size))) = order.pop() else { break };
        freed = freed.saturating_add(size);
        chosen.push(rank.digest());
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::RequestClock;
    use entrepot_oci::Algorithm;
    use proptest::prelude::*;

    /// A use: the index of an item, and the time since the previous use.
    type Use = (usize, u64);

    /// The statistics of the items after some uses at increasing times, one request each.
    fn records(contents: &[(u64, bool)], uses: &[Use]) -> Vec<Record> {
        let mut records: Vec<Record> = contents
            .iter()
            .enumerate()
            .map(|(number, (size, pinned))| Record {
                digest: digest(number),
                size: *size,
                used: Timestamp(0),
                frequency: Frequency::NEVER,
                pinned: *pinned,
            })
            .collect();
        let mut now = 1_770_000_000_000;
        let requests = RequestClock::default();
        for (number, later) in uses {
            now += later;
            let count = records.len();
            let record = &mut records[number % count];
            record.used = Timestamp(now);
            record.frequency = record.frequency.used(requests.tick(count));
        }
        records
    }

    fn digest(number: usize) -> Digest {
        Digest::of(Algorithm::Sha256, &number.to_be_bytes())
    }

    /// The reference model: replays the uses on a plain list and evicts from its front.
    fn least_recently_used(contents: &[(u64, bool)], uses: &[Use], need: u64) -> Vec<Digest> {
        let mut list: Vec<usize> = (0..contents.len()).collect();
        list.sort_by_key(|number| digest(*number));
        for (number, _) in uses {
            let number = number % contents.len();
            list.retain(|other| *other != number);
            list.push(number);
        }
        take(contents, list, need)
    }

    /// The reference model: a plain count per item, which halves with every eight requests per
    /// item.
    fn least_frequently_used(contents: &[(u64, bool)], uses: &[Use], need: u64) -> Vec<Digest> {
        let mut counts = vec![(0.0f64, 0u64); contents.len()];
        let mut now = 0;
        let aged = 0.5f64.powf(1.0 / (8.0 * contents.len() as f64));
        for (number, later) in uses {
            now += later;
            counts.iter_mut().for_each(|(count, _)| *count *= aged);
            let number = number % contents.len();
            counts[number] = (counts[number].0 + 1.0, now);
        }
        let mut list: Vec<usize> = (0..contents.len()).collect();
        list.sort_by(|a, b| {
            counts[*a]
                .0
                .total_cmp(&counts[*b].0)
                .then(counts[*a].1.cmp(&counts[*b].1))
                .then(digest(*a).cmp(&digest(*b)))
        });
        take(contents, list, need)
    }

    fn take(contents: &[(u64, bool)], list: Vec<usize>, need: u64) -> Vec<Digest> {
        let mut freed = 0;
        let mut taken = Vec::new();
        for number in list {
            let (size, pinned) = contents[number];
            if freed < need && !pinned && size > 0 {
                freed += size;
                taken.push(digest(number));
            }
        }
        taken
    }

    fn contents() -> impl Strategy<Value = Vec<(u64, bool)>> {
        proptest::collection::vec((0u64..1000, prop::bool::weighted(0.2)), 1..40)
    }

    /// Uses with up to a few hours in between, never at the same time.
    fn uses() -> impl Strategy<Value = Vec<Use>> {
        proptest::collection::vec((0usize..40, 1u64..10_000_000), 0..200)
    }

    #[test]
    fn nothing_is_chosen_if_no_space_is_needed() {
        let records = records(&[(10, false)], &[]);
        assert_eq!(victims(EvictionPolicy::LeastRecentlyUsed, records, 0), []);
    }

    proptest! {
        #[test]
        fn least_recently_used_matches_the_reference_model(
            contents in contents(), uses in uses(), need in 0u64..20_000,
        ) {
            let chosen = victims(EvictionPolicy::LeastRecentlyUsed, records(&contents, &uses), need);
            prop_assert_eq!(chosen, least_recently_used(&contents, &uses, need));
        }

        #[test]
        fn least_frequently_used_matches_the_reference_model(
            contents in contents(), uses in uses(), need in 0u64..20_000,
        ) {
            let chosen = victims(EvictionPolicy::LeastFrequentlyUsed, records(&contents, &uses), need);
            prop_assert_eq!(chosen, least_frequently_used(&contents, &uses, need));
        }

        #[test]
        fn the_choice_is_sufficient_minimal_and_never_pinned(
            contents in contents(), uses in uses(), need in 0u64..20_000, frequently in any::<bool>(),
        ) {
            let policy = if frequently { EvictionPolicy::LeastFrequentlyUsed } else { EvictionPolicy::LeastRecentlyUsed };
            let records = records(&contents, &uses);
            let chosen = victims(policy, records.iter().copied(), need);
            let record = |digest: &Digest| *records.iter().find(|record| record.digest == *digest).unwrap();
            let sizes: Vec<u64> = chosen.iter().map(|digest| record(digest).size).collect();
            let removable: u64 = records.iter().filter(|record| !record.pinned).map(|record| record.size).sum();
            prop_assert!(chosen.iter().all(|digest| !record(digest).pinned));
            prop_assert!(sizes.iter().sum::<u64>() >= need.min(removable));
            if let Some((_, before)) = sizes.split_last() {
                prop_assert!(before.iter().sum::<u64>() < need);
            }
        }
    }
}
