//! Traces of pulls, and the hits of computed eviction policies.

use rand::distr::Distribution;
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::SmallRng};
use rand_distr::Zipf;
use std::collections::{BTreeSet, HashMap};

/// Number of different blobs, all of one size.
pub const CONTENTS: usize = 2_000;
/// Number of requests of a trace.
pub const REQUESTS: usize = 20_000;

/// A sequence of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// Some blobs are requested far more often than others, and stay popular.
    Zipf,
    /// Like `Zipf`, with regular scans: a scanner or a backup requests a tenth of all blobs one
    /// after the other.
    ZipfWithScans,
    /// Like `Zipf`, with other popular blobs after every quarter of the requests, as after a
    /// deployment.
    Shifting,
}

impl Trace {
    pub const ALL: [Trace; 3] = [Trace::Zipf, Trace::ZipfWithScans, Trace::Shifting];

    pub fn name(self) -> &'static str {
        match self {
            Trace::Zipf => "Zipf",
            Trace::ZipfWithScans => "Zipf with scans",
            Trace::Shifting => "shifting Zipf",
        }
    }

    /// The numbers of the requested blobs. Each call returns the same numbers.
    pub fn requests(self) -> Vec<usize> {
        let mut random = SmallRng::seed_from_u64(7);
        // Published traces of image pulls have exponents between 0.8 and 1.
        let zipf = Zipf::new(CONTENTS as f64, 0.9).expect("the exponent is above 0");
        let mut ranks: Vec<usize> = (0..CONTENTS).collect();
        let mut requests = Vec::with_capacity(REQUESTS);
        while requests.len() < REQUESTS {
            let at = requests.len();
            if self == Trace::Shifting && at.is_multiple_of(REQUESTS / 4) {
                ranks.shuffle(&mut random);
            }
            if self == Trace::ZipfWithScans && at > 0 && at % 2_000 < 200 {
                // A scan of 200 blobs. Each scan continues where the last one ended.
                let first = at / 2_000 * 200;
                requests.extend((first..first + 200).map(|number| number % CONTENTS));
                continue;
            }
            // Ranks start at 1.
            requests.push(ranks[zipf.sample(&mut random) as usize - 1]);
        }
        requests.truncate(REQUESTS);
        requests
    }
}

/// Hits of a store for `room` blobs with the optimal policy (Belady): it knows the future and
/// evicts the blob whose next request is the latest.
pub fn most_hits(requests: &[usize], room: usize) -> usize {
    let mut next_use = vec![usize::MAX; requests.len()];
    let mut seen = HashMap::new();
    for (at, content) in requests.iter().enumerate().rev() {
        next_use[at] = seen.insert(content, at).unwrap_or(usize::MAX);
    }
    // Sorted by the next request. The number of the blob keeps apart those that are never requested
    // again.
    let mut stored: BTreeSet<(usize, usize)> = BTreeSet::new();
    let mut hits = 0;
    for (at, content) in requests.iter().enumerate() {
        if stored.remove(&(at, *content)) {
            hits += 1;
        }
        stored.insert((next_use[at], *content));
        if stored.len() > room {
            stored.pop_last();
        }
    }
    hits
}

/// Hits of a store for `room` blobs that evicts by the number of requests since a blob was stored,
/// without ageing. The thresholds are those of a node: eviction starts when less than a tenth is
/// free and stops when a fifth is free.
pub fn hits_by_count(requests: &[usize], room: usize) -> usize {
    // The number of requests and the position of the last one.
    let mut stored: HashMap<usize, (usize, usize)> = HashMap::new();
    let mut hits = 0;
    for (at, content) in requests.iter().enumerate() {
        let used = stored.entry(*content).or_insert((0, at));
        hits += usize::from(used.0 > 0);
        *used = (used.0 + 1, at);
        if (room - stored.len()) * 10 < room {
            let mut order: Vec<_> = stored.iter().map(|(content, used)| (*used, *content)).collect();
            order.sort_unstable();
            for (_, victim) in order {
                if (room - stored.len()) * 5 >= room {
                    break;
                }
                stored.remove(&victim);
            }
        }
    }
    hits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_optimal_policy_keeps_the_next_requested_blob() {
        assert_eq!(most_hits(&[1, 2, 3, 1, 2, 3], 2), 2);
        assert_eq!(most_hits(&[1, 2, 3, 1, 2, 3], 3), 3);
        assert_eq!(most_hits(&[1, 1, 1], 1), 2);
    }

    #[test]
    fn by_count_the_least_requested_blob_is_evicted_first() {
        // There is room for ten blobs. Storing the tenth evicts two of those with one request, the
        // oldest first.
        let requests: Vec<usize> = [0, 0].into_iter().chain(1..10).chain([0, 3, 1]).collect();
        assert_eq!(hits_by_count(&requests, 10), 3);
    }

    #[test]
    fn traces_are_reproducible_and_match_their_names() {
        for trace in Trace::ALL {
            let requests = trace.requests();
            assert_eq!((requests.len(), &requests), (REQUESTS, &trace.requests()));
            assert!(requests.iter().all(|number| *number < CONTENTS));
        }
        let scans = Trace::ZipfWithScans.requests();
        assert!(scans.windows(100).any(|some| some.windows(2).all(|two| two[1] == two[0] + 1)));
        assert!(most_hits(&Trace::Zipf.requests(), 200) > REQUESTS / 2);
    }
}
