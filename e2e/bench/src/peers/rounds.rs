//! How much is measured, and in which order.

/// Number of rounds of each measurement. The systems alternate within each round.
pub const ROUNDS: usize = 3;

/// The order of the systems in a round. The first system is another one in each round.
pub fn turns(round: usize, systems: usize) -> impl Iterator<Item = usize> {
    (0..systems).map(move |turn| (turn + round) % systems)
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All measurements.
    Whole,
    /// Only what the recorded ratios need. Takes minutes.
    Short,
}
