//! Lets the planned faults happen.

use super::clock::Clock;
use super::deployment::{files, remove_store, start_again};
use super::model::Model;
use super::plan::{BucketFault, Planned, ProcessFault};
use super::violations::Broken;
use crate::Node;
use crate::proxy::{Fault, Proxy, Rule, UNREACHABLE};
use anyhow::Result;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a kill that a client asks for may wait.
const BETWEEN_KILLS: Duration = Duration::from_millis(20);

/// How often each fault happened.
pub type Happened = BTreeMap<&'static str, u64>;

/// What happens to the nodes in an epoch of this length. Every node runs at the end.
///
/// # Errors
/// When a node does not start even without its store.
pub async fn to_nodes(
    nodes: &mut [Node],
    clock: &Clock,
    planned: &[Planned<ProcessFault>],
    length: Duration,
    model: &Model,
) -> Result<Happened> {
    let start = Instant::now();
    let mut happened = Happened::new();
    // A request of an earlier epoch concerns an upload that has ended.
    model.take_kills();
    let times = planned.iter().map(|one| (one.at, Some(one.fault))).chain([(length, None)]);
    for (at, fault) in times {
        while start.elapsed() < at {
            for node in model.take_kills() {
                to_node(nodes, clock, ProcessFault::Kill { node, pause: Duration::ZERO }, model).await?;
                *happened.entry("kill -9 after an open upload was damaged").or_default() += 1;
            }
            sleep_until(start, at.min(start.elapsed() + BETWEEN_KILLS)).await;
        }
        if let Some(fault) = fault
            && to_node(nodes, clock, fault, model).await?
        {
            *happened.entry(fault.name()).or_default() += 1;
        }
    }
    Ok(happened)
}

/// Whether it could happen.
async fn to_node(nodes: &mut [Node], clock: &Clock, fault: ProcessFault, model: &Model) -> Result<bool> {
    let mut started = |node: &Node, result: Result<()>| note_start(model, node, &result);
    let mut done = true;
    match fault {
        ProcessFault::Kill { node, pause } => {
            nodes[node].kill()?;
            tokio::time::sleep(pause).await;
            start_again(&mut nodes[node], &mut started).await?;
        }
        ProcessFault::Stop { node, pause } => {
            nodes[node].signal(Signal::STOP)?;
            tokio::time::sleep(pause).await;
            nodes[node].signal(Signal::CONT)?;
        }
        ProcessFault::Wipe { node } => {
            nodes[node].kill()?;
            remove_store(&nodes[node].store())?;
            start_again(&mut nodes[node], &mut started).await?;
        }
        ProcessFault::Damage { node, choice } => {
            done = damage(&nodes[node].store().join("blobs"), choice, model)?;
        }
        ProcessFault::KillAndDamage { node, choice } => {
            nodes[node].kill()?;
            let store = nodes[node].store();
            // The upload that was sent to last goes on after the start.
            done = match last_upload(&store.join("uploads")) {
                Some(upload) => damage_file(&upload, choice, model)?,
                None => damage(&store, choice, model)?,
            };
            start_again(&mut nodes[node], &mut started).await?;
        }
        ProcessFault::CutJournal { node } => {
            nodes[node].kill()?;
            let entries = files(&nodes[node].store().join("pending"));
            done = !entries.is_empty();
            for entry in entries.iter().take(1) {
                File::options().write(true).open(entry)?.set_len(5)?;
            }
            start_again(&mut nodes[node], &mut started).await?;
        }
        ProcessFault::ClockBack => clock.set_back()?,
        ProcessFault::ClockRight => clock.set_right()?,
    }
    Ok(done)
}

/// A node that does not start is a violation.
pub fn note_start(model: &Model, node: &Node, result: &Result<()>) {
    if let Err(error) = result {
        let name = format!("node {} does not start", node.plan.config.node.name);
        model.violations.add(Broken::Unavailable, &name, &format!("{error:#}"));
    }
}

/// Changes one file below the folder: a bit, or its length. Whether there was one.
fn damage(folder: &Path, choice: u64, model: &Model) -> Result<bool> {
    let sound = |path: &Path| {
        // A file that the bucket has too (by a hard link) is the bucket's, and a lock says nothing.
        fs::metadata(path).is_ok_and(|data| data.nlink() == 1 && data.len() > 0)
    };
    let files: Vec<_> = files(folder).into_iter().filter(|path| sound(path)).collect();
    if files.is_empty() {
        return Ok(false);
    }
    damage_file(&files[usize::try_from(choice % files.len() as u64)?], choice, model)
}

/// The received bytes of the upload that was sent to last.
fn last_upload(uploads: &Path) -> Option<PathBuf> {
    let files = files(uploads).into_iter().filter(|path| path.file_name().is_some_and(|name| name == "data"));
    let changed = files.filter_map(|path| {
        let data = fs::metadata(&path).ok().filter(|data| data.len() > 0 && data.nlink() == 1)?;
        Some((data.modified().ok()?, path))
    });
    changed.max().map(|(_, path)| path)
}

/// Changes one file. Whether it was still there.
fn damage_file(path: &Path, choice: u64, model: &Model) -> Result<bool> {
    // Noted before: an answer may be on its way.
    if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
        model.state().damage(name);
    }
    let Ok(file) = File::options().read(true).write(true).open(path) else { return Ok(false) };
    let length = file.metadata()?.len();
    let at = (choice >> 16) % length.max(1);
    if (choice >> 8).is_multiple_of(3) {
        file.set_len(at)?;
    } else {
        flip_a_bit(&file, at)?;
    }
    Ok(true)
}

/// Changes one bit at an offset, if the file has a byte there. Returns whether it has.
pub fn flip_a_bit(file: &File, at: u64) -> Result<bool> {
    let mut byte = [0];
    let found = file.read_at(&mut byte, at)? == 1;
    if found {
        file.write_at(&[byte[0] ^ 1], at)?;
    }
    Ok(found)
}

/// What happens between the nodes and S3 in an epoch.
///
/// Only what is no fault of single requests is counted here; [`count_requests`] counts those.
pub async fn to_bucket(proxy: &Proxy, planned: &[Planned<BucketFault>], model: &Model) -> Happened {
    let start = Instant::now();
    let mut happened = Happened::new();
    for one in planned {
        sleep_until(start, one.at).await;
        match &one.fault {
            BucketFault::Away(pause) => {
                proxy.make_unreachable();
                tokio::time::sleep(*pause).await;
                // Ends the other faults too; there are enough of them.
                proxy.clear_faults();
                *happened.entry("bucket away for a while").or_default() += 1;
            }
            BucketFault::Requests { fault, method, path, times } => {
                if matches!(fault, Fault::Corrupt(_)) {
                    model.corrupting.store(true, Ordering::SeqCst);
                }
                let rule = Rule::always(path, fault.clone()).times(*times);
                proxy.fail(match method {
                    Some(method) => rule.of(method.clone()),
                    None => rule,
                });
            }
        }
    }
    happened
}

/// Counts the requests to S3 that met a fault since the last call.
pub fn count_requests(proxy: &Proxy, happened: &mut Happened) -> u64 {
    let seen = proxy.take_requests();
    // While the bucket is away, every request fails by one fault.
    for fault in seen.iter().filter_map(|seen| seen.fault).filter(|fault| *fault != UNREACHABLE) {
        *happened.entry(fault).or_default() += 1;
    }
    seen.len() as u64
}

async fn sleep_until(start: Instant, at: Duration) {
    tokio::time::sleep(at.saturating_sub(start.elapsed())).await;
}
