//! A low-priority pool of blocking threads that write and hash downloads, one thread per core.
//!
//! More threads would not help, because the work is CPU-bound, and they would delay the request
//! threads, which do little work for each of many clients. On two busy cores, the first byte of a
//! missed blob took 42 ms with unlimited threads and 15 ms with two. In a later measurement it took
//! 27 ms with two threads of normal priority, and 8 to 10 ms with two of low priority.
#![allow(clippy::disallowed_methods)]

use super::pool::{Pool, threads};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::Builder;

/// The threads. Clones share them.
#[derive(Clone, Debug)]
pub struct BackgroundBlocking {
    /// Only the blocking threads of this runtime are used.
    pool: Arc<Pool>,
    threads: usize,
    /// Number of jobs that run or wait for a thread.
    begun: Arc<AtomicUsize>,
}

/// Counts a job until it ends, also if it panics.
struct Begun(Arc<AtomicUsize>);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl BackgroundBlocking {
    /// One thread per core.
    ///
    /// # Errors
    /// If the system cannot start the runtime.
    pub fn new() -> io::Result<BackgroundBlocking> {
        let threads = threads();
        let pool = Pool::build(Builder::new_current_thread().max_blocking_threads(threads))?;
        Ok(BackgroundBlocking { pool: Arc::new(pool), threads, begun: Arc::default() })
    }

    /// Whether another job would start at once.
    pub fn has_idle_thread(&self) -> bool {
        self.begun.load(Ordering::Relaxed) < self.threads
    }

    /// Number of jobs that wait for a thread.
    #[cfg(any(test, feature = "test-support"))]
    pub fn waiting(&self) -> usize {
        self.begun.load(Ordering::Relaxed).saturating_sub(self.threads)
    }

    /// Runs blocking work as soon as a thread is free. The work runs to its end even if the caller
    /// is dropped.
    ///
    /// # Errors
    /// If the work panicked, as an I/O error.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let begun = Begun(Arc::clone(&self.begun));
        let work = self.pool.handle().spawn_blocking(move || {
            let _begun = begun;
            work()
        });
        work.await.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::join_all;
    use std::collections::HashSet;
    use std::sync::mpsc;
    use std::thread;

    #[tokio::test]
    async fn there_is_one_low_priority_thread_per_core() {
        let background = BackgroundBlocking::new().unwrap();
        let here = rustix::process::getpriority_process(None).unwrap();
        let work = || {
            thread::yield_now();
            (thread::current().id(), rustix::process::getpriority_process(None).unwrap())
        };
        let done = join_all((0..1000).map(|_| background.run(work))).await;
        let threads: HashSet<_> = done.iter().map(|done| done.as_ref().unwrap().0).collect();
        assert!(threads.len() <= background.threads && !threads.contains(&thread::current().id()));
        assert!(done.iter().all(|done| done.as_ref().unwrap().1 > here));
        assert_eq!(
            rustix::process::getpriority_process(None).unwrap(),
            here,
            "only those threads have a lower priority"
        );
    }

    #[tokio::test]
    async fn the_pool_is_free_until_each_thread_is_busy_and_again_after_a_panic() {
        let background = BackgroundBlocking::new().unwrap();
        let (release, released): (Vec<_>, Vec<_>) = (0..background.threads).map(|_| mpsc::channel::<()>()).unzip();
        let mut busy = Vec::new();
        for wait in released {
            assert!(background.has_idle_thread());
            let mut work = Box::pin(background.run(move || wait.recv().expect("the sender was dropped")));
            assert!(futures::poll!(work.as_mut()).is_pending());
            busy.push(work);
        }
        assert!(!background.has_idle_thread());
        // Without a message, each job panics.
        drop(release);
        assert!(join_all(busy).await.iter().all(Result::is_err));
        assert!(background.has_idle_thread());
    }
}
