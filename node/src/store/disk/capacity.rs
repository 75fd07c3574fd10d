//! How much may be stored, how much is, and who waits for room.
//!
//! Every byte is either used (stored content) or reserved (being written), and both together never pass the capacity:
//! room is set aside before a byte is written. All of it is one small state behind one lock that is held for a few
//! instructions.

use super::StoreError;
use super::reservation::Reservation;
use super::usage::Usage;
use crate::observe::Metrics;
use crate::run::clock::Stopwatch;
use entrepot_config::Threshold;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// For how long the file system's word on its free blocks is relied on. In between, what this node writes and removes
/// is counted; only others that use the same file system go unseen for that long.
const SAMPLE_AGE: Duration = Duration::from_secs(1);

/// The accounts of a store.
pub(super) struct Capacity {
    folder: File,
    state: Mutex<State>,
    short: Notify,
    metrics: Arc<Metrics>,
}

struct State {
    /// As configured, in bytes.
    configured: Option<u64>,
    low: Threshold,
    target: Threshold,
    used: u64,
    reserved: u64,
    /// The part of `reserved` that is not in the file system's count yet.
    unwritten: u64,
    disk: Disk,
    waiting: VecDeque<Waiting>,
    /// Whether somebody is there to make room; without, nobody is kept waiting.
    cleaner: bool,
}

/// What the file system has left, as last asked and as counted since.
struct Disk {
    available: u64,
    asked: Stopwatch,
}

/// A reservation that waits for room.
struct Waiting {
    bytes: u64,
    answer: oneshot::Sender<Result<Reservation, StoreError>>,
}

/// Answers that are sent once the lock is released.
type Answers = Vec<(Waiting, bool)>;

impl State {
    /// As configured, or else what is here and what the file system has left for more, in bytes. Not the size of the
    /// file system: what others keep on it is no room of this store, and it may grow under a running node.
    fn total(&self) -> u64 {
        let written = self.used.saturating_add(self.reserved.saturating_sub(self.unwritten));
        self.configured.unwrap_or_else(|| written.saturating_add(self.disk.available))
    }

    /// What the capacity and the file system leave, in bytes.
    fn free(&self) -> u64 {
        let by_capacity = self.total().saturating_sub(self.used).saturating_sub(self.reserved);
        by_capacity.min(self.disk.available.saturating_sub(self.unwritten))
    }

    fn low_free(&self) -> u64 {
        self.low.of(self.total())
    }

    fn target_free(&self) -> u64 {
        self.target.of(self.total())
    }

    /// Those who wait still: who has gone away leaves a place that nobody stands in.
    fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter().filter(|waiting| !waiting.answer.is_closed())
    }

    fn is_short(&self) -> bool {
        self.waiting().next().is_some() || self.free() < self.low_free()
    }

    /// Bytes to remove until everybody who waits has room and the target is free beside it.
    fn wanted(&self) -> u64 {
        let goal = self.waiting().fold(self.target_free(), |sum, waiting| sum.saturating_add(waiting.bytes));
        let by_capacity = self.used.saturating_add(self.reserved).saturating_add(goal).saturating_sub(self.total());
        let by_disk = self.unwritten.saturating_add(goal).saturating_sub(self.disk.available);
        by_capacity.max(by_disk)
    }

    fn take(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_add(bytes);
        self.unwritten = self.unwritten.saturating_add(bytes);
    }

    /// Gives room to those who wait, the first first; none passes another.
    fn grant(&mut self) -> Answers {
        let mut answers = Answers::new();
        self.waiting.retain(|waiting| !waiting.answer.is_closed());
        while self.waiting.front().is_some_and(|first| first.bytes <= self.free()) {
            let Some(first) = self.waiting.pop_front() else { break };
            self.take(first.bytes);
            answers.push((first, true));
        }
        answers
    }
}

impl Capacity {
    /// Accounts for a store in `folder`. `capacity` is in bytes; without it, all that the file system has
    /// for this store.
    pub(super) fn new(
        folder: File,
        capacity: Option<u64>,
        low: Threshold,
        target: Threshold,
        metrics: Arc<Metrics>,
    ) -> io::Result<Capacity> {
        let available = ask(&folder)?;
        let state = State {
            configured: capacity,
            low,
            target,
            used: 0,
            reserved: 0,
            unwritten: 0,
            disk: Disk { available, asked: Stopwatch::start() },
            waiting: VecDeque::new(),
            cleaner: false,
        };
        Ok(Capacity { folder, state: Mutex::new(state), short: Notify::new(), metrics })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the accounts, and does what follows from it: those for whom there is room now get it, the cleaner is
    /// woken when room is short, the gauges say how it is.
    fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut State) -> T) -> T {
        let (result, short) = self.update(change, State::is_short);
        if short {
            self.short.notify_one();
        }
        result
    }

    /// Looks at the accounts with what the file system says. Room that others have made there goes to those who wait at
    /// once: nothing else would tell them of it. The cleaner, which looks too, is not woken by its own look.
    fn look<T>(self: &Arc<Self>, anyway: bool, look: impl FnOnce(&State) -> T) -> T {
        self.update(|state| self.refresh(state, anyway), look).1
    }

    /// Changes the accounts and looks at what they have become, once those for whom there is room have got it.
    fn update<T, U>(self: &Arc<Self>, change: impl FnOnce(&mut State) -> T, look: impl FnOnce(&State) -> U) -> (T, U) {
        let mut state = self.lock();
        let result = change(&mut state);
        let answers = state.grant();
        let seen = look(&state);
        self.publish(&state);
        drop(state);
        self.answer(answers);
        (result, seen)
    }

    /// Not under the lock: an answer that nobody takes gives its room back, and that locks.
    fn answer(self: &Arc<Self>, answers: Answers) {
        for (Waiting { bytes, answer }, granted) in answers {
            let result =
                if granted { Ok(Reservation::new(Arc::clone(self), bytes)) } else { Err(StoreError::NoRoom(bytes)) };
            drop(answer.send(result));
        }
    }

    /// Asks the file system again when its word is old. A system call of a microsecond that does not wait for the
    /// disk.
    fn refresh(&self, state: &mut State, anyway: bool) {
        if (anyway || state.disk.asked.elapsed() >= SAMPLE_AGE)
            && let Ok(available) = ask(&self.folder)
        {
            state.disk = Disk { available, asked: Stopwatch::start() };
        }
    }

    /// Sets room aside; waits for the cleaner when there is not enough.
    pub(super) async fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, StoreError> {
        let waiting = self.change(|state| {
            self.refresh(state, false);
            if state.waiting.is_empty() && bytes <= state.free() {
                state.take(bytes);
                return Ok(None);
            }
            if bytes > state.total() || !state.cleaner {
                return Err(StoreError::NoRoom(bytes));
            }
            let (answer, answered) = oneshot::channel();
            state.waiting.push_back(Waiting { bytes, answer });
            Ok(Some(answered))
        })?;
        match waiting {
            None => Ok(Reservation::new(Arc::clone(self), bytes)),
            Some(answered) => answered.await.unwrap_or(Err(StoreError::NoRoom(bytes))),
        }
    }

    /// Accounts for bytes that are on disk already; never refused.
    pub(super) fn readmit(self: &Arc<Self>, bytes: u64) -> Reservation {
        self.change(|state| state.reserved = state.reserved.saturating_add(bytes));
        Reservation::readmitted(Arc::clone(self), bytes)
    }

    /// Reserved bytes were written: the file system counts them from now on.
    pub(super) fn wrote(self: &Arc<Self>, bytes: u64) {
        self.change(|state| {
            state.unwritten = state.unwritten.saturating_sub(bytes);
            state.disk.available = state.disk.available.saturating_sub(bytes);
        });
    }

    /// A reservation ends, of which `written` bytes were written and `stored` of those stay as content.
    pub(super) fn settle(self: &Arc<Self>, bytes: u64, written: u64, stored: u64) {
        self.change(|state| {
            state.reserved = state.reserved.saturating_sub(bytes);
            state.unwritten = state.unwritten.saturating_sub(bytes.saturating_sub(written));
            state.used = state.used.saturating_add(stored);
            state.disk.available = state.disk.available.saturating_add(written).saturating_sub(stored);
        });
    }

    /// Content was found at the start.
    pub(super) fn found(self: &Arc<Self>, bytes: u64) {
        self.change(|state| state.used = state.used.saturating_add(bytes));
    }

    /// Stored content was removed.
    pub(super) fn removed(self: &Arc<Self>, bytes: u64) {
        self.change(|state| {
            state.used = state.used.saturating_sub(bytes);
            state.disk.available = state.disk.available.saturating_add(bytes);
        });
    }

    pub(super) fn set_thresholds(self: &Arc<Self>, low: Threshold, target: Threshold) {
        self.change(|state| (state.low, state.target) = (low, target));
    }

    /// Something may be removed now that could not be before.
    pub(super) fn unpinned(&self) {
        if self.lock().is_short() {
            self.short.notify_one();
        }
    }

    pub(super) fn usage(self: &Arc<Self>) -> Usage {
        self.look(false, |state| Usage {
            capacity: state.total(),
            used: state.used,
            reserved: state.reserved,
            free: state.free(),
            low_free: state.low_free(),
            target_free: state.target_free(),
        })
    }

    /// From now on reservations wait for room (`true`), or those that wait and all later ones are refused at once.
    pub(super) fn set_cleaner(self: &Arc<Self>, there: bool) {
        self.change(|state| state.cleaner = there);
        if !there {
            self.refuse_waiting();
        }
    }

    /// Resolves when room is short: at once when it has become so since the last call.
    pub(super) async fn until_short(&self) {
        self.short.notified().await;
    }

    /// Whether cleaning is due, by what the file system says now.
    pub(super) fn is_short(self: &Arc<Self>) -> bool {
        self.look(true, State::is_short)
    }

    /// What the file system said last is that it is full.
    #[cfg(test)]
    pub(super) fn saw_a_full_disk(&self) {
        self.lock().disk = Disk { available: 0, asked: Stopwatch::start() };
    }

    /// Bytes to remove until everybody who waits has room and the target is free beside it.
    pub(super) fn wanted(&self) -> u64 {
        self.lock().wanted()
    }

    /// Nothing more can be removed: those who wait get what there is room for, and `NoRoom` else.
    pub(super) fn refuse_waiting(self: &Arc<Self>) {
        let mut state = self.lock();
        let mut answers = state.grant();
        while let Some(refused) = state.waiting.pop_front() {
            answers.push((refused, false));
            answers.extend(state.grant());
        }
        self.publish(&state);
        drop(state);
        self.answer(answers);
    }

    fn publish(&self, state: &State) {
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.store_capacity.set(gauge(state.total()));
        self.metrics.store_used.set(gauge(state.used.saturating_add(state.reserved)));
        self.metrics.store_free.set(gauge(state.free()));
        self.metrics.store_low_free.set(gauge(state.low_free()));
        self.metrics.store_target_free.set(gauge(state.target_free()));
    }
}

/// What the file system has left for this process, in bytes.
fn ask(folder: &File) -> io::Result<u64> {
    let answer = rustix::fs::fstatvfs(folder)?;
    Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
}
