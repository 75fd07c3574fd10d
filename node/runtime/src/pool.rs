//! Thread pools with a lower priority than the node's main runtime.

use std::io;
use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use tokio::runtime::{Builder, Handle, Runtime};

/// Nice value of the threads: on a contended core, a thread of the main runtime gets about 90 % of
/// the time.
const NICE: i32 = 10;

/// A runtime that can be dropped from async code: it shuts down in the background instead of
/// blocking.
#[derive(Debug)]
pub(super) struct Pool {
    handle: Handle,
    /// `Some` until it is dropped.
    runtime: Option<Runtime>,
}

/// Number of threads: one per core. More would not help, because the work is CPU-bound.
pub(super) fn threads() -> usize {
    available_parallelism().map_or(1, NonZeroUsize::get)
}

impl Pool {
    /// # Errors
    /// If the system cannot start the threads.
    pub(super) fn build(builder: &mut Builder) -> io::Result<Pool> {
        let runtime = builder.on_thread_start(give_way).build()?;
        Ok(Pool { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lowers the priority of this thread only; on Linux the call applies to a single thread.
fn give_way() {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "cannot lower the priority of a thread");
    }
}
