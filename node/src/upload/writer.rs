//! Writing what is received, in order, on a blocking thread that is kept as long as there is
//! something to write.
//!
//! A thread that was woken for every MiB, and that woke the receiver afterwards, was idle for a
//! quarter of the time on two cores. Therefore the receiver continues while this thread writes, and
//! the thread takes the next batch as soon as it is done with one. A slow client holds no thread.

use super::UploadError;
use super::session::{Session, Writing};
use super::space::Space;
use crate::store::StoreError;
use bytes::Bytes;
use entrepot_runtime::crash;
use entrepot_runtime::tasks::begin_blocking;
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Batches handed over and not yet written: the one being written, and the next one.
const HANDED_OVER: u32 = 2;

/// Consecutive bytes, and the space for them.
pub(super) struct Batch {
    pub pieces: Vec<Bytes>,
    pub space: Space,
}

/// Why a batch was not accepted.
pub(super) enum Failure {
    /// A write failed. The bytes written before it are in the session.
    Write(StoreError),
    /// A sync failed. The bytes written before it may not reach the disk, and the system does not
    /// report that again.
    Sync(io::Error),
}

/// Writes batches to a session. When it is dropped, it still writes the batches that it has, and
/// then releases the session.
pub(super) struct Writer {
    shared: Arc<Shared>,
    turns: Arc<Semaphore>,
}

struct Shared {
    session: Arc<Session>,
    /// Written bytes are synced in the background.
    synced: bool,
    state: Mutex<State>,
}

struct State {
    waiting: VecDeque<(Batch, OwnedSemaphorePermit)>,
    /// The right to write, while no thread has it.
    idle: Option<Writing>,
    failure: Option<Failure>,
}

impl Writer {
    pub fn new(session: Arc<Session>, writing: Writing, synced: bool) -> Writer {
        let state = Mutex::new(State { waiting: VecDeque::new(), idle: Some(writing), failure: None });
        let turns = Arc::new(Semaphore::new(HANDED_OVER as usize));
        Writer { shared: Arc::new(Shared { session, synced, state }), turns }
    }

    /// Hands a batch over, as soon as fewer than [`HANDED_OVER`] wait. `false`: an earlier one
    /// failed, and [`Writer::finish`] returns the reason.
    pub async fn write(&self, batch: Batch) -> bool {
        let Ok(turn) = self.turns.clone().acquire_owned().await else { return false };
        let mut state = self.shared.state();
        if state.failure.is_some() {
            return false;
        }
        state.waiting.push_back((batch, turn));
        if let Some(writing) = state.idle.take() {
            let shared = self.shared.clone();
            begin_blocking(move || shared.drain(writing));
        }
        true
    }

    /// Waits until everything is written, or a write failed.
    ///
    /// # Errors
    /// If the thread was lost.
    pub async fn finish(self) -> Result<(Writing, Option<Failure>), UploadError> {
        let _all = self.turns.acquire_many(HANDED_OVER).await;
        let mut state = self.shared.state();
        let lost =
            || UploadError::from(self.shared.session.failed("write")(io::Error::other("the writing thread was lost")));
        Ok((state.idle.take().ok_or_else(lost)?, state.failure.take()))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Writes the waiting batches, until none is left. Blocking.
    fn drain(self: Arc<Self>, mut writing: Writing) {
        // The permit of a batch is released only when the next batch is taken. A holder of all
        // permits therefore finds the right to write in `idle`.
        let mut turn = None;
        loop {
            let mut state = self.state();
            let Some((batch, next)) = state.waiting.pop_front() else {
                state.idle = Some(writing);
                drop(state);
                // Released before the permit, so a holder of all permits has the session and its
                // reservation to itself.
                drop(self);
                drop(turn);
                return;
            };
            drop(state);
            drop(turn.replace(next));
            if let Err(failure) = self.write(&mut writing, batch) {
                let mut state = self.state();
                state.failure = Some(failure);
                state.waiting.clear();
            }
            crash::point("upload.bytes-appended");
        }
    }

    fn write(&self, writing: &mut Writing, batch: Batch) -> Result<(), Failure> {
        writing.space.absorb(batch.space);
        self.session.append(writing, &batch.pieces).map_err(Failure::Write)?;
        if self.synced { writing.sync_behind().map_err(Failure::Sync) } else { Ok(()) }
    }
}
