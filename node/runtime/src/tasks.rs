//! Supervised background tasks. Each has a name; at shutdown all are told to stop and are waited
//! for.
#![allow(clippy::disallowed_methods)]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// The background tasks of a node. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Tasks {
        Tasks::default()
    }

    /// Runs a task in the background. A panic is logged with the task's name and ends only that
    /// task.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let span = tracing::debug_span!("task", name);
        self.tracker.spawn(async move {
            let inner = tokio::spawn(task.instrument(span));
            if let Err(error) = inner.await
                && error.is_panic()
            {
                tracing::error!(task = name, %error, "a background task panicked");
            }
        });
    }

    /// Repeats blocking work in the background, with a pause before each time, until the tasks should
    /// stop. A panic is logged, and the work is repeated nevertheless.
    pub fn repeat(&self, name: &'static str, pause: Duration, work: impl Fn() + Send + Sync + 'static) {
        let (work, stopping) = (Arc::new(work), self.clone());
        self.spawn(name, async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stopping.stopping() => return,
                }
                let work = Arc::clone(&work);
                if let Err(error) = blocking(move || work()).await {
                    tracing::error!(task = name, %error, "repeated work failed; it continues after a pause");
                }
            }
        });
    }

    /// Runs work in the background, and waits for its result. The work continues if the returned
    /// future is dropped. `None`: the work panicked, or the runtime has stopped.
    pub async fn complete<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (done, result) = oneshot::channel();
        self.spawn(name, async move {
            // Nobody waits any more if the future was dropped.
            let _ = done.send(work.await);
        });
        result.await.ok()
    }

    /// Resolves when the tasks should stop. Long-lived tasks wait for it in addition to their work.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

    /// Whether the node is stopping.
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Tells all tasks to stop and waits for them. Returns whether all ended in time.
    pub async fn stop(&self, patience: Duration) -> bool {
        self.stopping.cancel();
        self.tracker.close();
        tokio::time::timeout(patience, self.tracker.wait()).await.is_ok()
    }
}

/// Runs unsupervised work that ends by itself, or after `limit`.
pub fn brief(limit: Duration, work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(tokio::time::timeout(limit, work));
}

/// Starts blocking work immediately. The caller may wait for its end later or not at all.
pub fn begin_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Begun<T> {
    Begun(tokio::task::spawn_blocking(work))
}

/// Blocking work in progress.
#[derive(Debug)]
pub struct Begun<T>(tokio::task::JoinHandle<T>);

impl<T> Begun<T> {
    /// Waits for the end.
    ///
    /// # Errors
    /// If the work panicked or the runtime is shutting down, as an I/O error.
    pub async fn result(self) -> std::io::Result<T> {
        self.0.await.map_err(std::io::Error::other)
    }
}

/// Runs blocking work (disk, hashing) off the async threads.
///
/// # Errors
/// If the work panicked or the runtime is shutting down, as an I/O error.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
    begin_blocking(work).result().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn repeated_work_continues_after_a_panic_and_ends_with_the_tasks() {
        let (tasks, times) = (Tasks::new(), Arc::new(AtomicUsize::new(0)));
        let (counted, (done, third)) = (times.clone(), oneshot::channel());
        let done = std::sync::Mutex::new(Some(done));
        tasks.repeat("test", Duration::from_secs(2), move || match counted.fetch_add(1, Ordering::SeqCst) {
            0 => panic!("the first time fails"),
            2 => done.lock().unwrap().take().unwrap().send(()).unwrap(),
            _ => {}
        });
        assert_eq!(times.load(Ordering::SeqCst), 0, "the work begins after a pause");
        tokio::time::timeout(Duration::from_secs(600), third).await.unwrap().unwrap();
        assert!(tasks.stop(Duration::from_secs(60)).await);
        let before = times.load(Ordering::SeqCst);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(times.load(Ordering::SeqCst), before);
    }
}
