//! How the node runs: the clock, supervised tasks, thread pools, retries, crash points for tests,
//! health checks, the wiring and the shutdown. It owns the start and stop of every flow, and never
//! handles content itself.

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
