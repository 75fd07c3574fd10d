//! Kills programs in pods as a fault would: with SIGKILL, bypassing the kubelet and the container's
//! init.

use super::OwnCluster;
use super::state::ProcessId;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use std::fs;

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
        let numbers = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let is_meant = |pid: &u32| {
            let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            read("comm").trim_end() == name && read("cgroup").contains(&group)
        };
        Ok(numbers.filter(is_meant).filter_map(|pid| ProcessId::of(pid).ok()).collect())
    }
}
