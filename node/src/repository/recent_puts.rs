//! Data that this node put into the bucket a moment ago. An acknowledgement need not check it
//! again, because whatever removes data from the bucket leaves recent data alone (CNCF
//! Distribution's `garbage-collect` runs while nothing writes).

use entrepot_oci::Digest;
use entrepot_runtime::Clock;
use entrepot_runtime::clock::Uptime;
use quick_cache::sync::Cache;
use std::sync::Arc;
use std::time::Duration;

/// How long a put counts as recent. The manifest of an image usually follows its last layer within
/// seconds. For a longer push, one more request per layer is cheap.
const RECENT: Duration = Duration::from_secs(60);

/// Number of puts remembered. Forgetting one costs one request.
const REMEMBERED: usize = 10_000;

/// The data that was put recently. Clones share the state.
#[derive(Clone)]
pub struct RecentPuts {
    clock: Clock,
    puts: Arc<Cache<Digest, Uptime>>,
}

impl RecentPuts {
    pub fn new(clock: Clock) -> RecentPuts {
        RecentPuts { clock, puts: Arc::new(Cache::new(REMEMBERED)) }
    }

    /// The time to pass to [`RecentPuts::put`], taken before the put starts.
    pub fn begin(&self) -> Uptime {
        self.clock.uptime()
    }

    /// Remembers that the bucket has acknowledged a put of the data, which started at `began`.
    pub fn put(&self, digest: &Digest, began: Uptime) {
        self.puts.insert(*digest, began);
    }

    /// Whether this node put the data within the last minute.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.puts.get(digest).is_some_and(|began| self.clock.uptime().since(began) < RECENT)
    }

    /// Forgets data that was found to be missing or damaged.
    pub fn forget(&self, digest: &Digest) {
        self.puts.remove(digest);
    }
}
