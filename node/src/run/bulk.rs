//! Async work on what arrives in bulk, apart from that which answers requests.
//!
//! A runtime polls what is ready in the order in which it became so. Where each of a dozen fills has something to receive
//! on a few connections, a request that needs no more than some microseconds waits for a hundred polls, each longer than
//! its own; twice, for it asks the bucket. So fills are received on threads of their own, which give way. Blobs of a few
//! kilobytes that were missed beside fills of many megabytes, on two busy cores, had their first byte after 6.0 to 6.6 ms
//! instead of 8.3, with as many bytes a second in all.

use super::pool::{Pool, threads};
use std::io;
use std::sync::Arc;
use tokio::runtime::{Builder, Handle};
use tokio_util::task::AbortOnDropHandle;

/// Where bulk is received. Clones share it.
#[derive(Clone, Debug)]
pub struct Bulk {
    handle: Handle,
    /// Keeps what is the handle's, unless that is somebody else's.
    _pool: Option<Arc<Pool>>,
}

impl Bulk {
    /// A thread for each core.
    ///
    /// # Errors
    /// When the system gives no runtime.
    pub fn new() -> io::Result<Bulk> {
        let pool = Pool::build(Builder::new_multi_thread().worker_threads(threads()).enable_all())?;
        Ok(Bulk { handle: pool.handle().clone(), _pool: Some(Arc::new(pool)) })
    }

    /// On a runtime that is there: that of a test, whose clock it may have stopped.
    pub fn on(handle: Handle) -> Bulk {
        Bulk { handle, _pool: None }
    }

    /// Does the work there. It ends when the caller goes away.
    ///
    /// # Errors
    /// When the work panicked or the threads have ended, as an I/O error.
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
    async fn work_is_done_on_threads_that_give_way_and_a_panic_is_an_error() {
        let bulk = Bulk::new().unwrap();
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let (thread, there) = bulk.run(async move { (thread::current().id(), priority()) }).await.unwrap();
        assert_ne!(thread, thread::current().id());
        assert!(there > priority());
        assert!(bulk.run(async { panic!("a bug") }).await.is_err());
        assert_eq!(bulk.run(async { 7 }).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn work_ends_with_its_caller_and_with_the_threads() {
        let bulk = Bulk::new().unwrap();
        let held = Arc::new(());
        let mut work = Box::pin(bulk.run({
            let held = held.clone();
            async move {
                std::future::pending::<()>().await;
                drop(held);
            }
        }));
        assert!(futures::poll!(work.as_mut()).is_pending());
        drop(work);
        eventually("the work has ended", || Arc::strong_count(&held) == 1).await;

        let orphan = Bulk::on(bulk.handle.clone());
        drop(bulk);
        assert!(orphan.run(async {}).await.is_err());
    }
}
