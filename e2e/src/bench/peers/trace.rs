//! Traces of pulls, and what the best of all policies would make of them.

use rand::distr::Distribution;
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::SmallRng};
use rand_distr::Zipf;
use std::collections::{BTreeSet, HashMap};

/// Contents that are asked for, all of one size.
pub const CONTENTS: usize = 2_000;
/// Requests of a trace.
pub const REQUESTS: usize = 20_000;

/// Who asks for what, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// Some are asked for far more often than others, and stay so.
    Zipf,
    /// The same, and now and then someone asks for a tenth of all, one after the other: a scanner, a backup.
    ZipfWithScans,
    /// The same, and which they are is another every quarter: what was deployed last is pulled most.
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

    /// The numbers of the contents, the same each time.
    pub fn requests(self) -> Vec<usize> {
        let mut random = SmallRng::seed_from_u64(7);
        // The exponent is that of image pulls in published traces: between 0.8 and 1.
        let zipf = Zipf::new(CONTENTS as f64, 0.9).expect("an exponent above 0");
        let mut ranks: Vec<usize> = (0..CONTENTS).collect();
        let mut requests = Vec::with_capacity(REQUESTS);
        while requests.len() < REQUESTS {
            let at = requests.len();
            if self == Trace::Shifting && at.is_multiple_of(REQUESTS / 4) {
                ranks.shuffle(&mut random);
            }
            if self == Trace::ZipfWithScans && at > 0 && at % 2_000 < 200 {
                // A scan of 200, each time the next.
                let first = at / 2_000 * 200;
                requests.extend((first..first + 200).map(|number| number % CONTENTS));
                continue;
            }
            // Ranks begin at 1.
            requests.push(ranks[zipf.sample(&mut random) as usize - 1]);
        }
        requests.truncate(REQUESTS);
        requests
    }
}

/// Hits of a store of so many contents that knows the future: it gives up what is wanted latest (Belady).
pub fn most_hits(requests: &[usize], room: usize) -> usize {
    let mut next_use = vec![usize::MAX; requests.len()];
    let mut seen = HashMap::new();
    for (at, content) in requests.iter().enumerate().rev() {
        next_use[at] = seen.insert(content, at).unwrap_or(usize::MAX);
    }
    // By when each is wanted next; never is told apart by the content.
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

/// Hits of a store of so many contents by how often each was asked for since it was stored, which never ages: when
/// less than a tenth is free, it is cleaned until a fifth is, as a node's.
pub fn hits_by_count(requests: &[usize], room: usize) -> usize {
    // How often and when at last.
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
    fn the_best_policy_keeps_what_is_wanted_next() {
        assert_eq!(most_hits(&[1, 2, 3, 1, 2, 3], 2), 2);
        assert_eq!(most_hits(&[1, 2, 3, 1, 2, 3], 3), 3);
        assert_eq!(most_hits(&[1, 1, 1], 1), 2);
    }

    #[test]
    fn by_count_what_was_asked_for_rarely_goes_first() {
        // Ten contents have room; the tenth makes it clean two of those asked for once, the oldest first.
        let requests: Vec<usize> = [0, 0].into_iter().chain(1..10).chain([0, 3, 1]).collect();
        assert_eq!(hits_by_count(&requests, 10), 3);
    }

    #[test]
    fn traces_are_the_same_each_time_and_as_they_are_named() {
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
