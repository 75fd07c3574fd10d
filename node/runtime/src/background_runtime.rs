//! A low-priority async runtime that receives downloads, separate from the one that serves
//! requests.
//!
//! A runtime polls ready tasks in the order in which they became ready. If a dozen downloads
//! receive data on several connections, a request that needs only some microseconds waits for a
//! hundred polls, each longer than its own. It waits twice, because it also asks the bucket. So
//! downloads run on threads of their own, with a lower priority. On two busy cores, with downloads
//! of many megabytes in parallel, the first byte of missed blobs of a few kilobytes took 6.0 to 6.6
//! ms instead of 8.3 ms, at the same total throughput.

use super::pool::{Pool, threads};
use std::io;
use std::sync::Arc;
use tokio::runtime::{Builder, Handle};
use tokio_util::task::AbortOnDropHandle;

/// The runtime. Clones share it.
#[derive(Clone, Debug)]
pub struct BackgroundRuntime {
    handle: Handle,
    /// Keeps the runtime of the handle alive, unless another owner does.
    _pool: Option<Arc<Pool>>,
}

impl BackgroundRuntime {
    /// One thread per core.
    ///
    /// # Errors
    /// If the system cannot start the runtime.
    pub fn new() -> io::Result<BackgroundRuntime> {
        let pool = Pool::build(Builder::new_multi_thread().worker_threads(threads()).enable_all())?;
        Ok(BackgroundRuntime { handle: pool.handle().clone(), _pool: Some(Arc::new(pool)) })
    }

    /// Uses an existing runtime: that of a test, whose clock may be paused.
    pub fn on(handle: Handle) -> BackgroundRuntime {
        BackgroundRuntime { handle, _pool: None }
    }

    /// Runs the work on this runtime. The work is cancelled if the caller is dropped.
    ///
    /// # Errors
    /// If the work panicked or the runtime has shut down, as an I/O error.
    pub async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
        AbortOnDropHandle::new(self.handle.spawn(work)).await.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::eventually;
    use std::thread;

    #[tokio::test]
    async fn work_runs_on_low_priority_threads_and_a_panic_is_an_error() {
        let background = BackgroundRuntime::new().unwrap();
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let (thread, there) = background.run(async move { (thread::current().id(), priority()) }).await.unwrap();
        assert_ne!(thread, thread::current().id());
        assert!(there > priority());
        assert!(background.run(async { panic!("a bug") }).await.is_err());
        assert_eq!(background.run(async { 7 }).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn work_ends_with_its_caller_and_with_the_runtime() {
        let background = BackgroundRuntime::new().unwrap();
        let held = Arc::new(());
        let mut work = Box::pin(background.run({
            let held = held.clone();
            async move {
                std::future::pending::<()>().await;
                drop(held);
            }
        }));
        assert!(futures::poll!(work.as_mut()).is_pending());
        drop(work);
        eventually("the work has ended", || Arc::strong_count(&held) == 1).await;

        let orphan = BackgroundRuntime::on(background.handle.clone());
        drop(background);
        assert!(orphan.run(async {}).await.is_err());
    }
}
