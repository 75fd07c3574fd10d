//! Writing what is received, in turn, on a blocking thread that is kept as long as there is something to write.
//!
//! A thread that is woken for every MiB, and wakes the receiver after it, was idle for a quarter of the time on two
//! cores. So the receiver goes on while this writes, and this finds the next batch when it is done with one; and a
//! client that is slow holds no thread.

use super::UploadError;
use super::session::{Session, Writing};
use crate::run::crash;
use crate::run::tasks::begin_blocking;
use crate::store::disk::{Reservation, StoreError};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Batches handed over and not yet written: the one being written, and the one that is next.
const HANDED_OVER: u32 = 2;

/// Bytes that follow one another, and the room that was set aside for them.
pub(super) struct Batch {
    pub pieces: Vec<Bytes>,
    pub room: Reservation,
}

/// Why a batch was not taken.
pub(super) enum Failure {
    /// What came before it is in the session.
    Write(StoreError),
    /// What came before it may not reach the disk, and nobody will learn of it again.
    Sync(io::Error),
}

/// Writes batches to a session. Dropped, it goes on with what it has, and then lets go of the session.
pub(super) struct Writer {
    shared: Arc<Shared>,
    turns: Arc<Semaphore>,
}

struct Shared {
    session: Arc<Session>,
    /// Written bytes are put on disk behind the writing.
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

    /// Hands a batch over, when there is room for it. `false`: an earlier one failed, and [`Writer::finish`] says how.
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

    /// Waits until all is written, or failed.
    ///
    /// # Errors
    /// When the thread was lost.
    pub async fn finish(self) -> Result<(Writing, Option<Failure>), UploadError> {
        let _all = self.turns.acquire_many(HANDED_OVER).await;
        let mut state = self.shared.state();
        let lost = || UploadError::from(self.shared.session.failed("write")(io::Error::other("cut off")));
        Ok((state.idle.take().ok_or_else(lost)?, state.failure.take()))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what waits, until nothing does. Blocking.
    fn drain(self: Arc<Self>, mut writing: Writing) {
        // A batch's turn ends with the next look at what waits: who has all turns finds the right to write in place.
        let mut turn = None;
        loop {
            let mut state = self.state();
            let Some((batch, next)) = state.waiting.pop_front() else {
                state.idle = Some(writing);
                drop(state);
                // Before the turn: who has all turns has the session, and the room that it holds, to itself.
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
        writing.reservation.absorb(batch.room);
        self.session.append(writing, &batch.pieces).map_err(Failure::Write)?;
        if self.synced { writing.sync_behind().map_err(Failure::Sync) } else { Ok(()) }
    }
}
