//! What the flows of a node share. Each flow takes all of it, so a new dependency of a flow is one line
//! here and not one in every list between the configuration and the flow.

use super::{Damaged, Fallback, Layout, Links, PendingHere, RecentPuts, Tags};
use crate::observe::Metrics;
use crate::store::Store;
use entrepot_bucket::{Bucket, Handles};
use entrepot_config::NodeConfig;
use entrepot_runtime::{Clock, Tasks};
use std::sync::Arc;

/// The parts of a node below its flows. Cheap to clone.
#[derive(Clone)]
pub struct Environment {
    /// The configuration at the start; see `app::live` for what changes later.
    pub config: Arc<NodeConfig>,
    /// The bucket.
    pub bucket: Arc<dyn Bucket>,
    /// The same bucket, for requests from the background runtime.
    pub background_bucket: Arc<dyn Bucket>,
    /// The keys of the bucket.
    pub layout: Layout,
    /// The local disk store.
    pub store: Store,
    /// The links of repositories to content.
    pub links: Links,
    /// The tags by version.
    pub tags: Tags,
    /// The fallback tags of referrers.
    pub fallback: Fallback,
    /// Objects in the bucket that are known to be damaged. The next push of the same content
    /// replaces them.
    pub damaged: Arc<Damaged>,
    /// Blobs that this node has acknowledged and not yet made durable.
    pub pending_here: PendingHere,
    /// What this node has put in the last minute.
    pub recent_puts: RecentPuts,
    /// The only clock of the node.
    pub clock: Clock,
    /// Supervises all background work.
    pub tasks: Tasks,
    /// The metrics of the node.
    pub metrics: Arc<Metrics>,
}

impl Environment {
    /// The environment of a node with this configuration, over an open bucket and store.
    pub fn new(
        config: Arc<NodeConfig>,
        bucket: impl Into<Handles>,
        store: Store,
        clock: Clock,
        tasks: Tasks,
        metrics: Arc<Metrics>,
    ) -> Environment {
        let Handles { bucket, background: background_bucket } = bucket.into();
        let layout = Layout::new(&config.bucket.prefix);
        let pending_here = PendingHere::default();
        let links = Links::new(
            bucket.clone(),
            layout.clone(),
            store.clone(),
            pending_here.clone(),
            config.links.fresh_for.get(),
            config.links.stale_if_error.get(),
        );
        let immutable = config.tags.immutable.clone();
        let retry_budget = config.bucket.retry_budget.get();
        let tags = Tags::new(bucket.clone(), layout.clone(), store.clone(), immutable, retry_budget);
        let fallback = Fallback {
            bucket: bucket.clone(),
            layout: layout.clone(),
            store: store.clone(),
            links: links.clone(),
            tags: tags.clone(),
            enabled: config.upload.referrers_tag,
        };
        let (damaged, recent_puts) = (Arc::new(Damaged::new(clock.clone())), RecentPuts::new(clock.clone()));
        Environment {
            config,
            bucket,
            background_bucket,
            layout,
            store,
            links,
            tags,
            fallback,
            damaged,
            pending_here,
            recent_puts,
            clock,
            tasks,
            metrics,
        }
    }
}
