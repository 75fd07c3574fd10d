//! What a cluster leaves on disk so that it can be removed by a process that knows nothing else of it.
//!
//! Processes are named by id and start time, so that one that got the id of a dead one is never touched.

use super::plan::Plan;
use crate::{tools, usage, wait};
use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The kernel ends a machine with hundreds of processes within a second or two.
const END: Duration = Duration::from_secs(60);

/// A process, and when it was started, in clock ticks since the machine was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: u32,
    started: u64,
}

impl ProcessId {
    /// The process that has this id now.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(pid: u32) -> Result<ProcessId> {
        Ok(ProcessId { pid, started: started(pid).with_context(|| format!("there is no process {pid}"))? })
    }

    /// The only child of a process.
    ///
    /// # Errors
    /// When it has none.
    pub fn child_of(pid: u32) -> Result<ProcessId> {
        ProcessId::of(*usage::children(pid)?.first().context("no child")?)
    }

    pub fn is_alive(self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// Kills it, if it is still the one that was meant.
    pub fn kill(self) {
        if self.is_alive()
            && let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw)
        {
            // An error says that it just ended.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// The start time of a living process: the 22nd field of its `stat` (proc_pid_stat(5)); none of a zombie.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

/// A cluster, as its file tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub index: u8,
    /// The process that ends the cluster when it ends; none for one that is kept.
    pub owner: Option<ProcessId>,
    /// The first process of each machine.
    pub machines: Vec<ProcessId>,
    /// Whether `up` came to its end.
    pub complete: bool,
}

impl State {
    /// Where clusters keep their files.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn home() -> Result<PathBuf> {
        let home = tools::cache()?.join("clusters");
        fs::create_dir_all(&home)?;
        Ok(home)
    }

    fn folder_of(plan: Plan) -> Result<PathBuf> {
        Ok(State::home()?.join(plan.index.to_string()))
    }

    /// Takes the first addresses and the folder that nobody uses.
    ///
    /// # Errors
    /// When all are taken.
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
        anyhow::bail!("no network is left for a cluster; `cargo e2e down` removes what is left over")
    }

    pub fn plan(&self) -> Plan {
        Plan { index: self.index }
    }

    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let unfinished = folder.join("state.unfinished");
        fs::write(&unfinished, serde_json::to_vec_pretty(self)?)?;
        Ok(fs::rename(unfinished, folder.join("state.json"))?)
    }

    /// Every cluster of this user on this machine.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn all() -> Result<Vec<(State, PathBuf)>> {
        let _lock = lock()?;
        let mut found = Vec::new();
        for plan in Plan::all() {
            let folder = State::folder_of(plan)?;
            match fs::read(folder.join("state.json")) {
                Ok(bytes) => found.push((serde_json::from_slice(&bytes).context("state.json")?, folder)),
                // Its maker was killed before the first write; it had nothing but the folder.
                Err(error) if error.kind() == ErrorKind::NotFound && folder.exists() => fs::remove_dir_all(&folder)?,
                Err(error) if error.kind() == ErrorKind::NotFound => (),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }

    /// Whether somebody still wants it: its owner lives, or it is kept and whole.
    pub fn is_wanted(&self) -> bool {
        match self.owner {
            Some(owner) => owner.is_alive(),
            None => self.complete && !self.machines.is_empty() && self.machines.iter().all(|init| init.is_alive()),
        }
    }

    /// Ends every machine and removes all that is left: control groups and files. The rest went with the machines.
    ///
    /// # Errors
    /// When a machine does not end or something cannot be removed.
    pub async fn remove(&self, folder: &Path) -> Result<()> {
        for init in &self.machines {
            init.kill();
        }
        let gone = || std::future::ready(self.machines.iter().all(|init| !init.is_alive()));
        wait::until("the machines are gone", END, gone).await?;
        let link = Path::new("/sys/class/net").join(self.plan().host_link());
        if link.exists() {
            // A network outlives its machine for as long as a connection in it waits for an answer of one that is gone
            // (tcp(7): tcp_orphan_retries), which is minutes. Its wire need not. An error says that it just went.
            let mut delete = tokio::process::Command::new(tools::system("ip")?);
            let _ = crate::commands::run(delete.args(["link", "delete", &self.plan().host_link()])).await;
        }
        wait::until("the cluster's wire to the host is gone", END, || std::future::ready(!link.exists())).await?;
        remove_cgroups(&cgroup_prefix(self.index)).await?;
        let folder = folder.to_owned();
        tokio::task::spawn_blocking(move || fs::remove_dir_all(&folder).with_context(|| folder.display().to_string()))
            .await?
    }
}

/// Removes the clusters whose owner was killed, or that were never finished.
///
/// # Errors
/// When one cannot be removed.
pub async fn remove_unwanted() -> Result<()> {
    for (state, folder) in State::all()? {
        if !state.is_wanted() {
            println!("removing what is left of cluster {}", state.index);
            state.remove(&folder).await?;
        }
    }
    Ok(())
}

/// How the names of a cluster's control groups begin.
fn cgroup_prefix(index: u8) -> String {
    format!("entrepot-{index}-")
}

/// The control group of a node's pods, below the root of every hierarchy.
pub fn cgroup(index: u8, node: &str) -> String {
    format!("{}{node}", cgroup_prefix(index))
}

/// The roots of all hierarchies of control groups: one a controller (version 1), or a single one (version 2).
fn cgroup_roots() -> Result<Vec<PathBuf>> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let entries = fs::read_dir(root).context("control groups")?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.is_dir() && !path.is_symlink()).collect())
}

/// Makes a control group of the root in every hierarchy.
///
/// # Errors
/// When they are not mounted.
pub fn make_cgroup(name: &str) -> Result<()> {
    for root in cgroup_roots()? {
        fs::create_dir_all(root.join(name)).with_context(|| format!("a control group in {}", root.display()))?;
    }
    Ok(())
}

async fn remove_cgroups(prefix: &str) -> Result<()> {
    for root in cgroup_roots()? {
        for entry in fs::read_dir(&root)? {
            let path = entry?.path();
            if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix)) {
                // The kernel keeps a group busy for a moment after its last process.
                let what = format!("{} is removed", path.display());
                wait::until(&what, END, || std::future::ready(remove_cgroup(&path).is_ok())).await?;
            }
        }
    }
    Ok(())
}

/// Control groups are removed from the leaves; their files are not.
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
    file.lock().context("the lock of the clusters")?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_that_has_the_id_of_another_is_not_killed() {
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
    fn a_cluster_is_wanted_for_as_long_as_its_owner_lives() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let owner = ProcessId::of(child.id()).unwrap();
        let state = State { index: 0, owner: Some(owner), machines: Vec::new(), complete: true };
        assert!(state.is_wanted());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!state.is_wanted());
    }
}
