//! The operations of all clients with their times and outcomes: in memory for the checks, and in a
//! file for a person.

use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The request of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    PushBlob,
    MountBlob,
    HeadBlob,
    PullBlob,
    PullRange,
    PushManifest,
    PullManifest,
    ReadTag,
    ListTags,
    DeleteTag,
    DeleteManifest,
    DeleteBlob,
    CancelUpload,
}

/// The outcome of an operation, as far as the client can know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Acknowledged.
    Done,
    /// Refused for good: it had no effect.
    Refused,
    /// No response, or one that leaves it open: the operation may take effect at any time, or
    /// never.
    Unknown,
}

impl Outcome {
    /// The outcome by the status of a response; `None` if there was no complete response.
    pub fn of(status: Option<u16>) -> Outcome {
        match status {
            Some(200..=299) => Outcome::Done,
            Some(408) | None => Outcome::Unknown,
            Some(400..=499) => Outcome::Refused,
            Some(_) => Outcome::Unknown,
        }
    }
}

/// One operation.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    pub id: u64,
    pub client: String,
    /// The server that got the request: `node 21`, or `distribution`.
    pub at: String,
    pub kind: Kind,
    pub repository: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The digest that was sent, deleted or found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// When it was sent, in nanoseconds since the start of the run.
    pub call: u64,
    /// When the response was complete; `None` without one.
    pub returned: Option<u64>,
    pub status: Option<u16>,
    pub outcome: Outcome,
    /// Whether the response itself said that it may be outdated (`Warning`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
        let ended = self.returned.map_or_else(|| "   never".to_owned(), |end| format!("{:8.3}", seconds(end)));
        let target = self.tag.as_deref().unwrap_or_default();
        let digest = self.digest.as_deref().map_or("nothing", |digest| &digest[..digest.len().min(19)]);
        let status = self.status.map_or_else(|| "no response".to_owned(), |status| status.to_string());
        write!(
            f,
            "{:8.3} to {ended} s  {:<14} at {:<12} {:?} {}:{target} {digest} -> {status} ({:?})",
            seconds(self.call),
            self.client,
            self.at,
            self.kind,
            self.repository,
            self.outcome
        )
    }
}

/// Number of operations of a kind by outcome.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    pub done: u64,
    pub refused: u64,
    pub unknown: u64,
}

/// Collects the records of all clients.
pub struct Recorder {
    start: Instant,
    next: AtomicU64,
    kept: Mutex<Kept>,
}

struct Kept {
    file: BufWriter<File>,
    epoch: Vec<Record>,
    counts: BTreeMap<Kind, Count>,
}

impl Recorder {
    /// # Errors
    /// If the file cannot be created.
    pub fn new(file: &Path) -> Result<Recorder> {
        let file = BufWriter::new(File::create(file).with_context(|| file.display().to_string())?);
        let kept = Kept { file, epoch: Vec::new(), counts: BTreeMap::new() };
        Ok(Recorder { start: Instant::now(), next: AtomicU64::new(1), kept: Mutex::new(kept) })
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Adds a record and gives it an id.
    pub fn add(&self, mut record: Record) {
        record.id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let count = kept.counts.entry(record.kind).or_default();
        match record.outcome {
            Outcome::Done => count.done += 1,
            Outcome::Refused => count.refused += 1,
            Outcome::Unknown => count.unknown += 1,
        }
        // A history that cannot be written is still checked.
        let _ = serde_json::to_writer(&mut kept.file, &record);
        let _ = kept.file.write_all(b"\n");
        kept.epoch.push(record);
    }

    /// The records since the last call.
    pub fn take_epoch(&self) -> Vec<Record> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = kept.file.flush();
        std::mem::take(&mut kept.epoch)
    }

    pub fn counts(&self) -> BTreeMap<Kind, Count> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).counts.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_definite_response_has_a_known_outcome() {
        for (status, outcome) in [
            (Some(201), Outcome::Done),
            (Some(202), Outcome::Done),
            (Some(400), Outcome::Refused),
            (Some(404), Outcome::Refused),
            (Some(429), Outcome::Refused),
            (Some(408), Outcome::Unknown),
            (Some(500), Outcome::Unknown),
            (Some(503), Outcome::Unknown),
            (None, Outcome::Unknown),
        ] {
            assert_eq!(Outcome::of(status), outcome, "{status:?}");
        }
    }
}
