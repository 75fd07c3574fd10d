//! The accounting of the store: its capacity, its content, and the reservations that wait for
//! space.
//!
//! Every byte is either used (stored content) or reserved (being written), and the sum never
//! exceeds the capacity: space is reserved before a byte is written. All of it is one small state
//! behind one lock, which is held for a few instructions.

mod reservation;

pub use reservation::Reservation;

use super::StoreError;
use super::usage::Usage;
use crate::observe::Metrics;
use entrepot_config::Threshold;
use entrepot_runtime::clock::Stopwatch;
use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// How long the free space reported by the file system is used. In between, this node counts what
/// it writes and removes. Only the writes of other programs on the same file system are unseen for
/// that long.
const SAMPLE_AGE: Duration = Duration::from_secs(1);

/// The accounting of a store.
pub(super) struct Capacity {
    folder: File,
    state: Mutex<State>,
    short: Notify,
    metrics: Arc<Metrics>,
}

struct State {
    /// The configured capacity in bytes.
    configured: Option<u64>,
    low: Threshold,
    target: Threshold,
    used: u64,
    reserved: u64,
    /// The part of `reserved` that the file system does not count as used yet.
    unwritten: u64,
    disk: Disk,
    waiting: VecDeque<Waiting>,
    /// Whether a cleaner runs that can free space. Without one, no reservation waits.
    cleaner: bool,
}

/// The free space of the file system, as last reported and as counted since.
struct Disk {
    available: u64,
    asked: Stopwatch,
}

/// A reservation that waits for space.
struct Waiting {
    bytes: u64,
    answer: oneshot::Sender<Result<Reservation, StoreError>>,
}

/// Results that are sent after the lock is released.
type Answers = Vec<(Waiting, bool)>;

impl State {
    /// The capacity in bytes: as configured, or else the stored bytes plus the free space of the
    /// file system. The size of the file system is not used, because other programs may store data
    /// on it and it may grow while the node runs.
    fn total(&self) -> u64 {
        let written = self.used.saturating_add(self.reserved.saturating_sub(self.unwritten));
        self.configured.unwrap_or_else(|| written.saturating_add(self.disk.available))
    }

    /// The free space in bytes, limited by both the capacity and the file system.
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

    /// The waiting reservations whose callers still exist.
    fn waiting(&self) -> impl Iterator<Item = &Waiting> {
        self.waiting.iter().filter(|waiting| !waiting.answer.is_closed())
    }

    fn is_short(&self) -> bool {
        self.waiting().next().is_some() || self.free() < self.low_free()
    }

    /// Bytes to remove until all waiting reservations fit and the target stays free in addition.
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

    /// Grants space to waiting reservations in order of arrival. None overtakes another.
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
    /// The accounting of a store in `folder`. `capacity` is in bytes; without it, the store may use
    /// all the free space of the file system.
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
        self.state.lock()
    }

    /// Changes the state, then grants waiting reservations that now fit, wakes the cleaner if space
    /// is short, and updates the gauges.
    fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut State) -> T) -> T {
        let (result, short) = self.update(change, State::is_short);
        if short {
            self.short.notify_one();
        }
        result
    }

    /// Reads the state with the current free space of the file system. Space that other programs
    /// have freed goes to waiting reservations at once, because nothing else would notice it. This
    /// does not wake the cleaner, which also calls it.
    fn look<T>(self: &Arc<Self>, anyway: bool, look: impl FnOnce(&State) -> T) -> T {
        self.update(|state| self.refresh(state, anyway), look).1
    }

    /// Changes the state, grants waiting reservations that now fit, and reads the result.
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

    /// Called without the lock: a reservation that no caller receives is dropped, which takes the
    /// lock.
    fn answer(self: &Arc<Self>, answers: Answers) {
        for (Waiting { bytes, answer }, granted) in answers {
            let result =
                if granted { Ok(Reservation::new(Arc::clone(self), bytes)) } else { Err(StoreError::NoRoom(bytes)) };
            drop(answer.send(result));
        }
    }

    /// Reads the free space of the file system again if the last value is old. This system call
    /// takes a microsecond and does not wait for the disk.
    fn refresh(&self, state: &mut State, anyway: bool) {
        if (anyway || state.disk.asked.elapsed() >= SAMPLE_AGE)
            && let Ok(available) = ask(&self.folder)
        {
            state.disk = Disk { available, asked: Stopwatch::start() };
        }
    }

    /// Reserves space. Waits for the cleaner if there is not enough.
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

    /// Reserves bytes that are on disk already. Never fails.
    pub(super) fn account_existing(self: &Arc<Self>, bytes: u64) -> Reservation {
        self.change(|state| state.reserved = state.reserved.saturating_add(bytes));
        Reservation::existing(Arc::clone(self), bytes)
    }

    /// Records that reserved bytes were written, so the file system counts them from now on.
    pub(super) fn wrote(self: &Arc<Self>, bytes: u64) {
        self.change(|state| {
            state.unwritten = state.unwritten.saturating_sub(bytes);
            state.disk.available = state.disk.available.saturating_sub(bytes);
        });
    }

    /// Ends a reservation, of which `written` bytes were written and `stored` of those remain as
    /// content.
    pub(super) fn settle(self: &Arc<Self>, bytes: u64, written: u64, stored: u64) {
        self.change(|state| {
            state.reserved = state.reserved.saturating_sub(bytes);
            state.unwritten = state.unwritten.saturating_sub(bytes.saturating_sub(written));
            state.used = state.used.saturating_add(stored);
            state.disk.available = state.disk.available.saturating_add(written).saturating_sub(stored);
        });
    }

    /// Records content that was found at the start.
    pub(super) fn found(self: &Arc<Self>, bytes: u64) {
        self.change(|state| state.used = state.used.saturating_add(bytes));
    }

    /// Records that stored content was removed.
    pub(super) fn removed(self: &Arc<Self>, bytes: u64) {
        self.change(|state| {
            state.used = state.used.saturating_sub(bytes);
            state.disk.available = state.disk.available.saturating_add(bytes);
        });
    }

    pub(super) fn set_thresholds(self: &Arc<Self>, low: Threshold, target: Threshold) {
        self.change(|state| (state.low, state.target) = (low, target));
    }

    /// Called when content that was pinned may be removed; wakes the cleaner if space is short.
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

    /// `true`: from now on reservations wait for space. `false`: all waiting and later ones fail at
    /// once if they do not fit.
    pub(super) fn set_cleaner(self: &Arc<Self>, there: bool) {
        self.change(|state| state.cleaner = there);
        if !there {
            self.refuse_waiting();
        }
    }

    /// Resolves when space is short; at once if that happened since the last call.
    pub(super) async fn until_short(&self) {
        self.short.notified().await;
    }

    /// Whether eviction is due, according to the current free space of the file system.
    pub(super) fn is_short(self: &Arc<Self>) -> bool {
        self.look(true, State::is_short)
    }

    /// Pretends that the file system last reported a full disk.
    #[cfg(test)]
    pub(super) fn saw_a_full_disk(&self) {
        self.lock().disk = Disk { available: 0, asked: Stopwatch::start() };
    }

    /// Bytes to remove until all waiting reservations fit and the target stays free in addition.
    pub(super) fn wanted(&self) -> u64 {
        self.lock().wanted()
    }

    /// Called when nothing more can be removed: waiting reservations that fit are granted, and the
    /// others fail with `NoRoom`.
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
        self.metrics.store.capacity.set(gauge(state.total()));
        self.metrics.store.used.set(gauge(state.used.saturating_add(state.reserved)));
        self.metrics.store.free.set(gauge(state.free()));
        self.metrics.store.low_free.set(gauge(state.low_free()));
        self.metrics.store.target_free.set(gauge(state.target_free()));
    }
}

/// The free space of the file system for this process, in bytes.
fn ask(folder: &File) -> io::Result<u64> {
    let answer = rustix::fs::fstatvfs(folder)?;
    Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
}
