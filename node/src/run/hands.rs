//! Threads that write and hash what arrives in bulk: one for each core, and with less of a right to it than those that
//! answer requests.
//!
//! More would get no further, for a core is all that they need. And they would stand before the async threads, which have
//! a little to do for each of many that wait. On two busy cores, the first byte of a missed blob took 42 ms with a thread
//! for whatever there was to write and 15 with two; and later 27 ms with two of the priority of all and 8 to 10 with these.
#![allow(clippy::disallowed_methods)]

use super::pool::{Pool, threads};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::Builder;

/// The threads. Clones share them.
#[derive(Clone, Debug)]
pub struct Hands {
    /// Of which only the blocking threads are used.
    pool: Arc<Pool>,
    threads: usize,
    /// What is being done or waits for a thread.
    begun: Arc<AtomicUsize>,
}

/// Counts work until its end, also when it panics.
struct Begun(Arc<AtomicUsize>);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Hands {
    /// One for each core.
    ///
    /// # Errors
    /// When the system gives no runtime.
    pub fn new() -> io::Result<Hands> {
        let threads = threads();
        let pool = Pool::build(Builder::new_current_thread().max_blocking_threads(threads))?;
        Ok(Hands { pool: Arc::new(pool), threads, begun: Arc::default() })
    }

    /// Whether more work would begin at once.
    pub fn are_free(&self) -> bool {
        self.begun.load(Ordering::Relaxed) < self.threads
    }

    /// How much waits for a thread.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.begun.load(Ordering::Relaxed).saturating_sub(self.threads)
    }

    /// Runs blocking work when its turn comes. It goes on to its end when the caller goes away.
    ///
    /// # Errors
    /// When the work panicked, as an I/O error.
    pub async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
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
    async fn as_many_as_cores_work_at_once_and_give_way_to_others() {
        let hands = Hands::new().unwrap();
        let here = rustix::process::getpriority_process(None).unwrap();
        let work = || {
            thread::yield_now();
            (thread::current().id(), rustix::process::getpriority_process(None).unwrap())
        };
        let done = join_all((0..1000).map(|_| hands.work(work))).await;
        let threads: HashSet<_> = done.iter().map(|done| done.as_ref().unwrap().0).collect();
        assert!(threads.len() <= hands.threads && !threads.contains(&thread::current().id()));
        assert!(done.iter().all(|done| done.as_ref().unwrap().1 > here));
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), here, "of those threads alone");
    }

    #[tokio::test]
    async fn they_are_free_until_each_has_work_and_again_when_one_panics() {
        let hands = Hands::new().unwrap();
        let (release, released): (Vec<_>, Vec<_>) = (0..hands.threads).map(|_| mpsc::channel::<()>()).unzip();
        let mut busy = Vec::new();
        for wait in released {
            assert!(hands.are_free());
            let mut work = Box::pin(hands.work(move || wait.recv().expect("told to end")));
            assert!(futures::poll!(work.as_mut()).is_pending());
            busy.push(work);
        }
        assert!(!hands.are_free());
        // Without a word, each of them panics.
        drop(release);
        assert!(join_all(busy).await.iter().all(Result::is_err));
        assert!(hands.are_free());
    }
}
