//! Repositories in the bucket: the layout of keys, the links that make content visible, tags, and
//! what a node remembers of them.
//!
//! It owns every key below `repositories/` and the rules by which links and tags change. It never
//! receives or sends content, and never decides what to replicate or evict: the flows do.

pub mod damaged;
pub mod environment;
pub mod fallback;
pub mod layout;
pub mod links;
pub mod pending_here;
pub mod recent_puts;
pub mod replicator;
pub mod tags;

pub use damaged::Damaged;
pub use environment::Environment;
pub use fallback::Fallback;
pub use layout::Layout;
pub use links::Links;
pub use pending_here::PendingHere;
pub use recent_puts::RecentPuts;
pub use replicator::Replicator;
pub use tags::Tags;
