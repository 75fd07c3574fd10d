//! Threads beside those of the node's own runtime, which give way to them.

use tokio::runtime::{Builder, Handle, Runtime};

/// Nice value of the threads: of a core that both want, an async thread of the node's runtime has nine parts of ten.
const NICE: i32 = 10;

/// A runtime that may be let go of where nothing may wait for it.
#[derive(Debug)]
pub(super) struct Pool(Option<Runtime>);

impl Pool {
    /// # Errors
    /// When the system gives no runtime.
    pub(super) fn build(builder: &mut Builder) -> std::io::Result<Pool> {
        Ok(Pool(Some(builder.on_thread_start(give_way).build()?)))
    }

    /// `None` while it is being dropped.
    pub(super) fn handle(&self) -> Option<&Handle> {
        self.0.as_ref().map(Runtime::handle)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
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
