//! Data that this node put into the bucket itself, a moment ago. An acknowledgement need not look at it again, because
//! whatever removes data from the bucket leaves young data alone (CNCF Distribution's `garbage-collect` runs while
//! nobody writes).

use crate::oci::Digest;
use crate::run::Clock;
use crate::run::clock::Uptime;
use quick_cache::sync::Cache;
use std::sync::Arc;
use std::time::Duration;

/// How long a put is recent. An image's manifest usually follows its last layer within seconds; one look more for the
/// layers of a longer push is cheap.
const RECENT: Duration = Duration::from_secs(60);

/// Puts remembered; forgetting one costs one request.
const REMEMBERED: usize = 10_000;

/// The data put recently. Clones share it.
#[derive(Clone)]
pub struct RecentPuts {
    clock: Clock,
    puts: Arc<Cache<Digest, Uptime>>,
}

impl RecentPuts {
    pub fn new(clock: Clock) -> RecentPuts {
        RecentPuts { clock, puts: Arc::new(Cache::new(REMEMBERED)) }
    }

    /// The time to give to [`RecentPuts::put`], taken before the put begins.
    pub fn begin(&self) -> Uptime {
        self.clock.uptime()
    }

    /// The bucket has acknowledged a put of the data that began at `began`.
    pub fn put(&self, digest: &Digest, began: Uptime) {
        self.puts.insert(*digest, began);
    }

    /// Whether this node put the data within the last minute.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.puts.get(digest).is_some_and(|began| self.clock.uptime().since(began) < RECENT)
    }

    /// The data was seen to be missing or damaged.
    pub fn forget(&self, digest: &Digest) {
        self.puts.remove(digest);
    }
}
