//! Violations that the checks found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Broken {
    /// The operations on a tag have no order that explains them.
    Tag,
    /// An acknowledged image is not complete at a node.
    Image,
    /// A node responds that something acknowledged does not exist.
    Absent,
    /// The manifest of acknowledged blobs is refused.
    RefusedBlobs,
    /// A complete response has bytes that do not match its digest.
    Bytes,
    /// A response contradicts itself: a digest or length in a header is not that of the body.
    Header,
    /// A tag is listed, and its response is 404.
    GhostTag,
    /// The response to a tag is 200, and the tag is not listed.
    UnlistedTag,
    /// A referrer that was acknowledged is not listed.
    Referrer,
    /// A store is larger than its capacity.
    Bound,
    /// Something is left over: uploads, temporary files, sessions, file descriptors, memory,
    /// pending blobs.
    Leak,
    /// A node does not start, or does not respond although nothing fails.
    Unavailable,
}

/// The violations of a run. Repeated ones count once.
pub struct Violations {
    start: Instant,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    seen: BTreeSet<(Broken, String)>,
    counts: BTreeMap<Broken, u64>,
    told: Vec<String>,
}

/// Maximum number of printed violations per kind; all are counted.
const PRINTED: u64 = 8;

impl Default for Violations {
    fn default() -> Violations {
        Violations { start: Instant::now(), found: Mutex::default() }
    }
}

impl Violations {
    /// Adds a violation. `subject` identifies it: a second one with the same subject does not
    /// count.
    pub fn add(&self, broken: Broken, subject: &str, explanation: &str) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if !found.seen.insert((broken, subject.to_owned())) {
            return;
        }
        let count = found.counts.entry(broken).or_default();
        *count += 1;
        let is_printed = *count <= PRINTED;
        let mut told = format!("VIOLATION after {:.1} s: {broken:?}: {subject}\n", self.start.elapsed().as_secs_f64());
        explanation.lines().for_each(|line| told.push_str(&format!("    {line}\n")));
        if is_printed {
            print!("{told}");
        }
        found.told.push(told);
    }

    /// All violations with their explanations.
    pub fn told(&self) -> String {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).told.concat()
    }

    pub fn counts(&self) -> BTreeMap<Broken, u64> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).counts.clone()
    }

    pub fn total(&self) -> u64 {
        self.counts().values().sum()
    }
}
