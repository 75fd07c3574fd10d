//! A circuit breaker: remembers that the bucket just failed, so that requests that do not depend on
//! it need not each wait for it.

use entrepot_runtime::Clock;
use entrepot_runtime::clock::Uptime;
use parking_lot::Mutex;
use std::time::Duration;

/// How long no request tries the bucket after a failure. Then one request does.
const REST: Duration = Duration::from_secs(1);

/// What a request that does not depend on the bucket should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// Ask the bucket: the last request succeeded.
    Ask,
    /// Find out whether the bucket works again. The request need not wait for the result.
    Probe,
    /// Continue without the bucket: it failed recently, or another request is probing.
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

    /// What to do. A caller that gets `Probe` must send a request and then call
    /// [`Circuit::report`].
    pub(super) fn advice(&self) -> Advice {
        let mut state = self.state.lock();
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

    /// Reports the result of a request.
    pub(super) fn report(&self, worked: bool) {
        let state = if worked { State::Working } else { State::Failed { at: self.clock.uptime(), probing: false } };
        *self.state.lock() = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use entrepot_runtime::clock::Timestamp;

    #[test]
    fn after_a_failure_one_request_per_second_probes_until_the_bucket_works() {
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
