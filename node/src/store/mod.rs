//! Content and its places: the bucket that all nodes share, this node's disk, and the layout of
//! keys and links that makes content reachable through a repository.
//!
//! This module owns the keys of the bucket, links, tags, and the store's files. It knows nothing of
//! HTTP, and never decides what to replicate or evict: the flows above it do.

pub mod bucket;
pub mod damaged;
pub mod disk;
pub mod fallback;
pub mod layout;
pub mod links;
pub mod pending_here;
pub mod recent_puts;
pub mod replicator;
pub mod tags;

pub use bucket::{Bucket, BucketError};
pub use damaged::Damaged;
pub use disk::Store;
pub use fallback::Fallback;
pub use layout::{Key, Layout};
pub use links::Links;
pub use pending_here::PendingHere;
pub use recent_puts::RecentPuts;
pub use replicator::Replicator;
pub use tags::Tags;
