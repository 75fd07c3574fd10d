//! How the node runs: the clock, supervised tasks, retries, crash points for tests, the wiring and the way down.

pub mod app;
pub mod bucket_health;
pub mod bulk;
pub mod clock;
pub mod crash;
pub mod hands;
pub mod live;
mod pool;
pub mod retry;
pub mod shutdown;
pub mod status;
pub mod store_health;
pub mod tasks;

pub use bulk::Bulk;
pub use clock::Clock;
pub use hands::Hands;
pub use tasks::Tasks;
