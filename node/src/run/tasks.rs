//! Supervised background tasks: each has a name, none is forgotten, all are told to stop and waited for.
#![allow(clippy::disallowed_methods)]

use std::future::Future;
use std::time::Duration;
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
    pub fn new() -> Tasks {
        Tasks::default()
    }

    /// Runs a task in the background. A panic in it is logged with its name and ends that task only.
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

    /// Resolves when the tasks are to stop; long-lived tasks wait for it beside their work.
    pub async fn stopping(&self) {
        self.stopping.cancelled().await;
    }

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

/// Runs work that nobody waits for and that ends by itself: at the latest when `limit` is over.
pub fn brief(limit: Duration, work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(tokio::time::timeout(limit, work));
}

/// Begins blocking work at once; its end may be waited for later or not at all.
pub fn begin_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Begun<T> {
    Begun(tokio::task::spawn_blocking(work))
}

/// Blocking work under way.
#[derive(Debug)]
pub struct Begun<T>(tokio::task::JoinHandle<T>);

impl<T> Begun<T> {
    /// Waits for the end.
    ///
    /// # Errors
    /// When the work panicked or the runtime is going down, as an I/O error.
    pub async fn result(self) -> std::io::Result<T> {
        self.0.await.map_err(std::io::Error::other)
    }
}

/// Runs blocking work (disk, hashing) off the async threads.
///
/// # Errors
/// When the work panicked or the runtime is going down, as an I/O error.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> std::io::Result<T> {
    begin_blocking(work).result().await
}
