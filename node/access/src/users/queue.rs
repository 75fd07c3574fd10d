//! The order in which passwords are hashed, so that guessing does not take all processors.

use entrepot_runtime::tasks;
use std::io;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most passwords that wait. At a quarter of a second each, the last one waits for 8 s on two
/// cores.
const MAX_WAITING: usize = 64;

/// Runs one hash for each core at once.
pub(super) struct Queue {
    /// Those that wait or run.
    places: Arc<Semaphore>,
    cores: Arc<Semaphore>,
}

/// A place in the queue.
pub(super) struct Place {
    place: OwnedSemaphorePermit,
    cores: Arc<Semaphore>,
}

impl Queue {
    pub(super) fn new(cores: usize) -> Queue {
        let places = Arc::new(Semaphore::new(cores + MAX_WAITING));
        Queue { places, cores: Arc::new(Semaphore::new(cores)) }
    }

    /// A place, or `None` if too many wait.
    pub(super) fn enter(&self) -> Option<Place> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Place { place, cores: Arc::clone(&self.cores) })
    }
}

impl Place {
    /// Waits for a core, and runs the work off the async threads. Work that has begun runs to its
    /// end, and holds its core, also when the caller no longer waits.
    ///
    /// # Errors
    /// If the work panicked or the runtime is shutting down.
    pub(super) async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let core = self.cores.acquire_owned().await.map_err(io::Error::other)?;
        let place = self.place;
        tasks::blocking(move || {
            let result = work();
            drop((core, place));
            result
        })
        .await
    }
}
