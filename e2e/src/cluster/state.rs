//! The file that a cluster keeps on disk, so that another process can remove the cluster with no
//! other information.
//!
//! Processes are identified by id and start time, so that a process with the reused id of a dead
//! one is never killed.

use super::plan::Plan;
use crate::{tools, usage, wait};
use anyhow::{Context, Result};
use procfs::process::Process;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time limit for the kernel to end a machine. It takes a second or two for hundreds of processes.
const END: Duration = Duration::from_secs(60);

/// A process id with the start time of the process in clock ticks since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: u32,
    started: u64,
}

impl ProcessId {
    /// The process that has this id now.
    ///
    /// # Errors
    /// If there is none.
    pub fn of(pid: u32) -> Result<ProcessId> {
        Ok(ProcessId { pid, started: started(pid).with_context(|| format!("process {pid} does not exist"))? })
    }

    /// The only child of a process.
    ///
    /// # Errors
    /// If it has no child.
    pub fn child_of(pid: u32) -> Result<ProcessId> {
        ProcessId::of(*usage::children(pid)?.first().with_context(|| format!("process {pid} has no child"))?)
    }

    pub fn is_alive(self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// Kills the process, unless its id now belongs to another.
    pub fn kill(self) {
        if self.is_alive()
            && let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw)
        {
            // An error means that it has just exited.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// The start time of a running process; `None` for a zombie.
fn started(pid: u32) -> Option<u64> {
    let stat = Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
    if matches!(stat.state, 'Z' | 'X') { None } else { Some(stat.starttime) }
}

/// A cluster, as in its state file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub index: u8,
    /// The process with which the cluster ends; `None` for a cluster that is kept.
    pub owner: Option<ProcessId>,
    /// The first process of each machine.
    pub machines: Vec<ProcessId>,
    /// Whether `up` has completed.
    pub complete: bool,
}

impl State {
    /// The folder of all clusters' files.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn home() -> Result<PathBuf> {
        let home = tools::cache()?.join("clusters");
        fs::create_dir_all(&home)?;
        Ok(home)
    }

    fn folder_of(plan: Plan) -> Result<PathBuf> {
        Ok(State::home()?.join(plan.index.to_string()))
    }

    /// Claims the first unused network and folder.
    ///
    /// # Errors
    /// If all are in use.
    pub fn claim(owner: Option<ProcessId>) -> Result<(State, PathBuf)> {
        let _lock = lock()?;
        for plan in Plan::all() {
            let folder = State::folder_of(plan)?;
            if folder.exists() || !plan.is_free()? {
                continue;
            }
            let state = State { index: plan.index, owner, machines: Vec::new(), complete: false };
            fs::create_dir(&folder)?;
            state.write(&folder)?;
            return Ok((state, folder));
        }
        anyhow::bail!("no network is free for another cluster; run `cargo e2e down` to remove old clusters")
    }

    pub fn plan(&self) -> Plan {
        Plan { index: self.index }
    }

    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let unfinished = folder.join("state.unfinished");
        fs::write(&unfinished, serde_json::to_vec_pretty(self)?)?;
        Ok(fs::rename(unfinished, folder.join("state.json"))?)
    }

    /// All clusters of this user on this machine.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub fn all() -> Result<Vec<(State, PathBuf)>> {
        let _lock = lock()?;
        let mut found = Vec::new();
        for plan in Plan::all() {
            let folder = State::folder_of(plan)?;
            match fs::read(folder.join("state.json")) {
                Ok(bytes) => found.push((serde_json::from_slice(&bytes).context("cannot parse state.json")?, folder)),
                // The process was killed before it wrote the file, and has created only the folder.
                Err(error) if error.kind() == ErrorKind::NotFound && folder.exists() => fs::remove_dir_all(&folder)?,
                Err(error) if error.kind() == ErrorKind::NotFound => (),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }

    /// Whether the cluster is in use: its owner is alive, or it is kept and complete.
    pub fn is_wanted(&self) -> bool {
        match self.owner {
            Some(owner) => owner.is_alive(),
            None => self.complete && !self.machines.is_empty() && self.machines.iter().all(|init| init.is_alive()),
        }
    }

    /// Ends every machine and removes the rest: cgroups and files. Everything else disappears with
    /// the machines.
    ///
    /// # Errors
    /// If a machine does not end, or something cannot be removed.
    pub async fn remove(&self, folder: &Path) -> Result<()> {
        for init in &self.machines {
            init.kill();
        }
        let gone = || std::future::ready(self.machines.iter().all(|init| !init.is_alive()));
        wait::until("the machines have ended", END, gone).await?;
        let link = Path::new("/sys/class/net").join(self.plan().host_link());
        if link.exists() {
            // A network namespace can outlive its machine by minutes, as long as a connection in it
            // waits for a response of a peer that is gone (tcp(7): tcp_orphan_retries). So remove
            // the link explicitly. An error means that it has just disappeared.
            let mut delete = tokio::process::Command::new(tools::system("ip")?);
            let _ = crate::commands::run(delete.args(["link", "delete", &self.plan().host_link()])).await;
        }
        wait::until("the cluster's link to the host is removed", END, || std::future::ready(!link.exists())).await?;
        remove_cgroups(&cgroup_prefix(self.index)).await?;
        let folder = folder.to_owned();
        tokio::task::spawn_blocking(move || fs::remove_dir_all(&folder).with_context(|| folder.display().to_string()))
            .await?
    }
}

/// Removes clusters whose owner was killed, or whose start did not complete.
///
/// # Errors
/// If one cannot be removed.
pub async fn remove_unwanted() -> Result<()> {
    for (state, folder) in State::all()? {
        if !state.is_wanted() {
            println!("removing the remains of cluster {}", state.index);
            state.remove(&folder).await?;
        }
    }
    Ok(())
}

/// The name prefix of a cluster's cgroups.
fn cgroup_prefix(index: u8) -> String {
    format!("entrepot-{index}-")
}

/// The cgroup of the pods of a Kubernetes node, below the root of every hierarchy.
pub fn cgroup(index: u8, node: &str) -> String {
    format!("{}{node}", cgroup_prefix(index))
}

/// The roots of all cgroup hierarchies: one per controller (version 1), or a single one (version
/// 2).
fn cgroup_roots() -> Result<Vec<PathBuf>> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let entries = fs::read_dir(root).context("cannot read /sys/fs/cgroup")?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.is_dir() && !path.is_symlink()).collect())
}

/// Creates a cgroup at the root of every hierarchy.
///
/// # Errors
/// If cgroups are not mounted.
pub fn make_cgroup(name: &str) -> Result<()> {
    for root in cgroup_roots()? {
        fs::create_dir_all(root.join(name)).with_context(|| format!("cannot create a cgroup in {}", root.display()))?;
    }
    Ok(())
}

async fn remove_cgroups(prefix: &str) -> Result<()> {
    for root in cgroup_roots()? {
        for entry in fs::read_dir(&root)? {
            let path = entry?.path();
            if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix)) {
                // The kernel keeps a cgroup busy for a moment after its last process has exited.
                let what = format!("{} is removed", path.display());
                wait::until(&what, END, || std::future::ready(remove_cgroup(&path).is_ok())).await?;
            }
        }
    }
    Ok(())
}

/// Cgroups are removed from the leaves up; their files need not be removed.
fn remove_cgroup(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

fn lock() -> Result<File> {
    let file = File::create(State::home()?.join("lock"))?;
    file.lock().context("cannot lock the cluster directory")?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_with_a_reused_id_is_not_killed() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let process = ProcessId::of(child.id()).unwrap();
        let other = ProcessId { started: process.started + 1, ..process };
        assert!(!other.is_alive());
        other.kill();
        assert!(process.is_alive());
        process.kill();
        child.wait().unwrap();
        assert!(!process.is_alive());
    }

    #[test]
    fn a_cluster_is_wanted_as_long_as_its_owner_is_alive() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let owner = ProcessId::of(child.id()).unwrap();
        let state = State { index: 0, owner: Some(owner), machines: Vec::new(), complete: true };
        assert!(state.is_wanted());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!state.is_wanted());
    }
}
