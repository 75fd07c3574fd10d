//! Threads beside those of the node's own runtime, which give way to them.

use std::io;
use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use tokio::runtime::{Builder, Handle, Runtime};

/// Nice value of the threads: of a core that both want, an async thread of the node's runtime has nine parts of ten.
const NICE: i32 = 10;

/// A runtime that may be let go of where nothing may wait for it.
#[derive(Debug)]
pub(super) struct Pool {
    handle: Handle,
    /// There until the drop takes it.
    runtime: Option<Runtime>,
}

/// How many threads get all that there is to get: one for each core.
pub(super) fn threads() -> usize {
    available_parallelism().map_or(1, NonZeroUsize::get)
}

impl Pool {
    /// # Errors
    /// When the system gives no runtime.
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

/// Lowers the priority of this thread alone, as Linux has it.
fn give_way() {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "a thread keeps its priority");
    }
}
