//! Data that this node put into the bucket a moment ago, and its size. An acknowledgement need not check it
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
    puts: Arc<Cache<Digest, (Uptime, u64)>>,
}

impl RecentPuts {
    /// No put yet.
    pub fn new(clock: Clock) -> RecentPuts {
        RecentPuts { clock, puts: Arc::new(Cache::new(REMEMBERED)) }
    }

    /// The time to pass to [`RecentPuts::put`], taken before the put starts.
    pub fn begin(&self) -> Uptime {
        self.clock.uptime()
    }

    /// Remembers that the bucket has acknowledged a put of `size` bytes of data, which started at
    /// `began`.
    pub fn put(&self, digest: &Digest, began: Uptime, size: u64) {
        self.puts.insert(*digest, (began, size));
    }

    /// The size in bytes of data that this node put within the last minute. `None` for all other
    /// data.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        let (began, size) = self.puts.get(digest)?;
        (self.clock.uptime().since(began) < RECENT).then_some(size)
    }

    /// Forgets data that was found to be missing or damaged.
    pub fn forget(&self, digest: &Digest) {
        self.puts.remove(digest);
    }
}
