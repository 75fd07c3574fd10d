//! The part of the store that unfinished uploads may use, and what each client has of it.
//!
//! Without such a limit, uploads that nobody finishes evict all cached content. A client may have
//! as many bytes as [`WEIGHT`] times what is then still free, by the rule of
//! [`entrepot_runtime::share`]. So others always find space for small uploads.

use crate::store::Reservation;
use entrepot_runtime::share::Holder;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Unfinished uploads may use this fraction of the capacity of the store: one half.
const PART: u64 = 2;
/// A client that is alone gets 7/8 of the part; two get 7/15 each, and 1/15 is free.
const WEIGHT: u64 = 7;

/// The bytes of unfinished uploads. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Part(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    bytes: u64,
    /// Bytes of each client; `None`: of sessions of an earlier run of the node.
    by_holder: HashMap<Option<Holder>, u64>,
}

/// Why bytes do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The client has used its share.
    Share,
    /// Nothing is free.
    Part,
}

/// Bytes of one client. Dropping it frees them.
pub(super) struct Charge {
    part: Part,
    holder: Option<Holder>,
    bytes: u64,
}

impl Part {
    /// Charges bytes to a client. `capacity` is that of the whole store, in bytes.
    pub fn charge(&self, holder: &Option<Holder>, bytes: u64, capacity: u64) -> Result<Charge, Full> {
        let mut state = self.0.lock();
        let free =
            (capacity / PART).checked_sub(state.bytes).and_then(|free| free.checked_sub(bytes)).ok_or(Full::Part)?;
        let held = state.by_holder.get(holder).copied().unwrap_or_default();
        if held.saturating_add(bytes) > free.saturating_mul(WEIGHT) {
            return Err(Full::Share);
        }
        state.add(holder, bytes);
        Ok(Charge { part: self.clone(), holder: holder.clone(), bytes })
    }

    /// Charges bytes that are on disk already. Never fails.
    pub fn charge_existing(&self, holder: &Option<Holder>, bytes: u64) -> Charge {
        self.0.lock().add(holder, bytes);
        Charge { part: self.clone(), holder: holder.clone(), bytes }
    }
}

impl State {
    fn add(&mut self, holder: &Option<Holder>, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        let held = self.by_holder.entry(holder.clone()).or_default();
        *held = held.saturating_add(bytes);
    }

    fn remove(&mut self, holder: &Option<Holder>, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(held) = self.by_holder.get_mut(holder) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                self.by_holder.remove(holder);
            }
        }
    }
}

impl Charge {
    /// Frees the bytes, which have become stored content.
    pub fn release(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes > 0 {
            self.part.0.lock().remove(&self.holder, bytes);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.release();
    }
}

/// The space of the bytes in a spool file.
pub(super) struct Space {
    /// In the store.
    pub room: Reservation,
    /// In the part for uploads.
    pub charge: Charge,
}

impl Space {
    /// Takes over other space of the same client.
    pub fn absorb(&mut self, mut other: Space) {
        self.room.absorb(other.room);
        self.charge.bytes = self.charge.bytes.saturating_add(std::mem::take(&mut other.charge.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_most_of_one_half_and_others_still_find_space() {
        let part = Part::default();
        let holder = |name: &str| Some(Holder::of_identity(name));
        let take_all = |holder: &Option<Holder>| -> Vec<Charge> {
            std::iter::from_fn(|| part.charge(holder, 1, 2000).ok()).collect()
        };
        let alice = take_all(&holder("alice"));
        assert_eq!(alice.len(), 875);
        assert_eq!(part.charge(&holder("alice"), 1, 2000).err(), Some(Full::Share));
        let bob = take_all(&holder("bob"));
        assert_eq!(bob.len(), 109);
        assert!(part.charge(&holder("carol"), 5, 2000).is_ok());
        let _earlier = part.charge_existing(&None, 100);
        assert_eq!(part.charge(&holder("carol"), 1, 2000).err(), Some(Full::Part));
        drop((alice, bob));
        assert_eq!(part.0.lock().by_holder.len(), 1);
        assert!(part.charge(&holder("carol"), 700, 2000).is_ok());
    }
}
