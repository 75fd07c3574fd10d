//! What every part of a node runs on: the clock, supervised tasks, low-priority thread pools,
//! retries, and crash points for tests.
//!
//! This crate is the bottom: it knows neither content nor buckets nor HTTP, and depends on no other
//! crate of the project.

pub mod background_blocking;
pub mod background_runtime;
pub mod clock;
pub mod crash;
pub mod metrics;
mod pool;
pub mod retry;
pub mod share;
pub mod tasks;
#[cfg(any(test, feature = "test-support"))]
pub mod testing;

pub use background_blocking::BackgroundBlocking;
pub use background_runtime::BackgroundRuntime;
pub use clock::Clock;
pub use tasks::Tasks;
