//! Remembers that the bucket just failed, so that requests which can do without it need not find out one by one.

use crate::run::Clock;
use crate::run::clock::Uptime;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// After a failure the bucket is let alone for this long; then one request tries it.
const REST: Duration = Duration::from_secs(1);

/// What a request that could do without the bucket is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// The bucket worked when it was last asked.
    Ask,
    /// It failed, and it is this request's turn to find out; it need not wait for the answer.
    Probe,
    /// It failed just now, or another request is finding out.
    DoWithout,
}

#[derive(Clone, Copy)]
enum State {
    Working,
    Failed { at: Uptime, probing: bool },
}

pub(super) struct Circuit {
    clock: Clock,
    state: Mutex<State>,
}

impl Circuit {
    pub(super) fn new(clock: Clock) -> Circuit {
        Circuit { clock, state: Mutex::new(State::Working) }
    }

    /// What to do; who is advised to probe must, and then say how it went.
    pub(super) fn advice(&self) -> Advice {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            State::Working => Advice::Ask,
            State::Failed { probing: true, .. } => Advice::DoWithout,
            State::Failed { at, .. } if self.clock.uptime().since(*at) < REST => Advice::DoWithout,
            State::Failed { probing, .. } => {
                *probing = true;
                Advice::Probe
            }
        }
    }

    /// Says how a request went.
    pub(super) fn report(&self, worked: bool) {
        let state = if worked { State::Working } else { State::Failed { at: self.clock.uptime(), probing: false } };
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::clock::Timestamp;

    #[test]
    fn after_a_failure_one_request_a_second_tries_until_it_works() {
        let clock = Clock::manual(Timestamp(1));
        let circuit = Circuit::new(clock.clone());
        assert_eq!(circuit.advice(), Advice::Ask);
        circuit.report(false);
        assert_eq!(circuit.advice(), Advice::DoWithout);
        clock.advance(REST);
        assert_eq!((circuit.advice(), circuit.advice()), (Advice::Probe, Advice::DoWithout));
        circuit.report(false);
        assert_eq!(circuit.advice(), Advice::DoWithout);
        clock.advance(REST);
        assert_eq!(circuit.advice(), Advice::Probe);
        circuit.report(true);
        assert_eq!(circuit.advice(), Advice::Ask);
    }
}
