//! Kills programs in pods as a fault would: with SIGKILL, bypassing the kubelet and the container's
//! init.

use super::OwnCluster;
use super::state::ProcessId;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use procfs::process::{Process, all_processes};

impl OwnCluster {
    /// Kills every process of a program in a pod. The kubelet then finds a dead container.
    ///
    /// # Errors
    /// If the program does not run in the pod.
    pub fn kill(&self, pod: &Pod, program: &str) -> Result<()> {
        let found = self.processes(pod, program)?;
        ensure!(!found.is_empty(), "{program} does not run in {:?}", pod.metadata.name);
        found.into_iter().for_each(ProcessId::kill);
        Ok(())
    }

    /// The processes of a program in a pod, by their ids on the host.
    ///
    /// # Errors
    /// If the pod has no uid.
    pub fn processes(&self, pod: &Pod, program: &str) -> Result<Vec<ProcessId>> {
        // The kubelets of these clusters name the cgroup of a pod after its uid.
        let group = format!("pod{}", pod.metadata.uid.as_deref().context("the pod has no uid")?);
        // The kernel truncates a process name to 15 bytes.
        let name = program.get(..program.len().min(15)).unwrap_or(program);
        let is_meant = |process: &Process| {
            // A process that has just ended has neither.
            let is_named = process.stat().is_ok_and(|stat| stat.comm == name);
            is_named && process.cgroups().is_ok_and(|all| all.into_iter().any(|one| one.pathname.contains(&group)))
        };
        let meant = all_processes()?.filter_map(|process| process.ok()).filter(is_meant);
        Ok(meant.filter_map(|process| ProcessId::of(process.pid().try_into().ok()?).ok()).collect())
    }
}
