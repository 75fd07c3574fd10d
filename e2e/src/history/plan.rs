//! What is to happen, all of it from the seed. Only how long each thing takes is not in it.

use crate::proxy::Fault;
use entrepot_config::ReplicationMode;
use http::Method;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// What keeps the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum BucketKind {
    /// versitygw behind the proxy that fails.
    S3,
    /// A folder.
    Folder,
}

impl BucketKind {
    /// As it is named on the command line.
    pub fn name(self) -> &'static str {
        match self {
            BucketKind::S3 => "s3",
            BucketKind::Folder => "folder",
        }
    }
}

/// Nodes of a run.
pub const NODES: usize = 3;
/// The node whose clock can be set back.
pub const WITH_CLOCK: usize = 2;

/// Something that happens to a node. `node` is its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessFault {
    /// `kill -9`; it starts again after a while.
    Kill { node: usize, pause: Duration },
    /// SIGSTOP, and SIGCONT after a while.
    Stop { node: usize, pause: Duration },
    /// Killed, its store deleted, started again.
    Wipe { node: usize },
    /// One stored file is changed while the node runs. `choice` says which and how.
    Damage { node: usize, choice: u64 },
    /// Killed, one file of its store or of an upload is changed, started again.
    KillAndDamage { node: usize, choice: u64 },
    /// Killed, an entry of its journal is cut short, started again.
    CutJournal { node: usize },
    /// The clock of one node is set back.
    ClockBack,
    /// It is right again.
    ClockRight,
}

impl ProcessFault {
    pub fn name(self) -> &'static str {
        match self {
            ProcessFault::Kill { .. } => "kill -9",
            ProcessFault::Stop { .. } => "stopped for a while",
            ProcessFault::Wipe { .. } => "store deleted",
            ProcessFault::Damage { .. } => "stored file damaged",
            ProcessFault::KillAndDamage { .. } => "file damaged after kill -9",
            ProcessFault::CutJournal { .. } => "journal entry cut short",
            ProcessFault::ClockBack => "clock set back",
            ProcessFault::ClockRight => "clock set right",
        }
    }
}

/// Something that happens between nodes and an S3 server.
#[derive(Clone, Debug)]
pub enum BucketFault {
    /// Nobody gets an answer for so long.
    Away(Duration),
    /// The next requests of a method, to paths with that part.
    Requests { fault: Fault, method: Option<Method>, path: &'static str, times: u32 },
}

/// When, since the epoch began.
#[derive(Clone, Debug)]
pub struct Planned<F> {
    pub at: Duration,
    pub fault: F,
}

/// A time of activity with its faults. After it everything is healed and checked.
#[derive(Clone, Debug)]
pub struct Epoch {
    pub number: u64,
    pub mode: ReplicationMode,
    pub process: Vec<Planned<ProcessFault>>,
    pub bucket: Vec<Planned<BucketFault>>,
    /// Whether the checks are repeated after all stores were deleted.
    pub wipe_all: bool,
    /// Whether Distribution collects garbage before the next epoch.
    pub collect: bool,
    /// What the clients' choices come from.
    pub clients: u64,
}

/// The seed of one part of a run. Parts do not share random numbers, so that a change of one part
/// changes no other part.
fn part(seed: u64, epoch: u64, name: u64) -> SmallRng {
    // Odd constants spread neighbours: seeds, epochs and parts count from 0.
    let mixed = seed ^ epoch.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ name.wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
    SmallRng::seed_from_u64(mixed)
}

/// The epoch of that number.
pub fn epoch(seed: u64, number: u64, length: Duration, kind: BucketKind, move_back: bool) -> Epoch {
    let mut random = part(seed, number, 0);
    // The second is the first one with WriteBack, so that a short run has both.
    let write_back = number == 1 || (number > 2 && random.random_bool(0.25));
    let mode = if write_back { ReplicationMode::WriteBack } else { ReplicationMode::WriteThrough };
    let (wipe_all, collect) = (number == 0 || random.random_bool(0.4), number == 0 || random.random_bool(0.4));
    // In half of the WriteBack epochs no disk is lost, so that the check can require every
    // acknowledged blob.
    let keeps_disks = write_back && (number == 1 || random.random_bool(0.5));
    let process = times(part(seed, number, 1), length, 2.5, |random| process_fault(random, mode, keeps_disks));
    let bucket = match kind {
        BucketKind::Folder => Vec::new(),
        BucketKind::S3 => times(part(seed, number, 2), length, 0.8, |random| bucket_fault(random, move_back)),
    };
    Epoch { number, mode, process, bucket, wipe_all, collect, clients: part(seed, number, 3).random() }
}

/// Faults at random times, so many seconds apart on average.
fn times<F>(
    mut random: SmallRng,
    length: Duration,
    apart: f64,
    mut choose: impl FnMut(&mut SmallRng) -> F,
) -> Vec<Planned<F>> {
    let mut planned = Vec::new();
    let mut at = 0.0;
    loop {
        at += -apart * (1.0 - random.random::<f64>()).ln();
        if at >= length.as_secs_f64() {
            return planned;
        }
        planned.push(Planned { at: Duration::from_secs_f64(at), fault: choose(&mut random) });
    }
}

fn process_fault(random: &mut SmallRng, mode: ReplicationMode, keeps_disks: bool) -> ProcessFault {
    let node = random.random_range(0..NODES);
    let choice = random.random();
    let write_back = mode == ReplicationMode::WriteBack;
    match random.random_range(0..100) {
        0..30 => ProcessFault::Kill { node, pause: Duration::from_millis(random.random_range(0..1000)) },
        30..50 => ProcessFault::Stop { node, pause: Duration::from_millis(random.random_range(500..4000)) },
        50..90 if keeps_disks => ProcessFault::Kill { node, pause: Duration::ZERO },
        50..60 => ProcessFault::Wipe { node },
        // Content that only this disk has cannot be repaired: WriteBack guarantees it after a crash,
        // not after damage.
        60..90 if write_back => ProcessFault::CutJournal { node },
        60..75 => ProcessFault::Damage { node, choice },
        75..90 => ProcessFault::KillAndDamage { node, choice },
        90..96 => ProcessFault::ClockBack,
        _ => ProcessFault::ClockRight,
    }
}

fn bucket_fault(random: &mut SmallRng, move_back: bool) -> BucketFault {
    let writing = [Method::PUT, Method::PUT, Method::DELETE][random.random_range(0..3)].clone();
    let path = ["/tags/", "/tags/", "/_manifests/", "/_layers/", "/blobs/", ""][random.random_range(0..6)];
    let times = random.random_range(1..=3);
    let of = |fault, method, path, times| BucketFault::Requests { fault, method, path, times };
    match random.random_range(0..100) {
        0..8 => BucketFault::Away(Duration::from_millis(random.random_range(200..3000))),
        8..30 => of(Fault::LoseAnswer, Some(writing), path, times),
        30..52 if !move_back => {
            // Longer than a node waits for an answer, so that it has tried again or given up.
            let delay = Duration::from_millis(random.random_range(2500..5000));
            let path =
                ["/tags/", "/tags/", "/tags/", "/_manifests/", "/_layers/", "/blobs/"][random.random_range(0..6)];
            of(Fault::Late(delay), Some(writing), path, times.min(2))
        }
        52..60 => of(Fault::Delay(Duration::from_millis(random.random_range(50..800))), None, path, 20),
        60..68 => of(Fault::Status(503, "SlowDown"), None, path, times),
        68..74 => of(Fault::Status(500, "InternalError"), None, path, times),
        74..78 => of(Fault::Drop, None, path, times),
        78..82 => of(Fault::ErrorPage([404, 502][random.random_range(0..2)]), Some(Method::GET), path, 1),
        82..88 => of(Fault::ResetUpload(random.random_range(0..2000)), Some(Method::PUT), "/blobs/", 1),
        88..92 => of(Fault::Reset(random.random_range(0..20_000)), Some(Method::GET), "/blobs/", times),
        92..96 => of(Fault::Corrupt(random.random_range(0..500)), Some(Method::GET), "/blobs/", 1),
        _ => of(Fault::Hang, None, path, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(seed: u64) -> String {
        format!("{:?}", epoch(seed, 3, Duration::from_secs(20), BucketKind::S3, false))
    }

    #[test]
    fn the_same_seed_is_the_same_plan_and_another_seed_another() {
        assert_eq!(shown(7), shown(7));
        assert_ne!(shown(7), shown(8));
    }

    #[test]
    fn without_late_requests_tags_may_move_back() {
        let planned = epoch(7, 0, Duration::from_secs(1000), BucketKind::S3, true);
        let late = |planned: &Planned<BucketFault>| {
            matches!(&planned.fault, BucketFault::Requests { fault: Fault::Late(_), .. })
        };
        assert!(!planned.bucket.iter().any(late));
        assert!(epoch(7, 0, Duration::from_secs(1000), BucketKind::S3, false).bucket.iter().any(late));
    }
}
