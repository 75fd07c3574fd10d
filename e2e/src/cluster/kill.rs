//! Ends programs in pods as a fault would: by SIGKILL, past the kubelet and the container's own init.

use super::state::ProcessId;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use std::fs;

/// Kills every process of a program in a pod, wherever it runs. The kubelet finds its container dead.
///
/// # Errors
/// When the program does not run in the pod.
pub fn kill(pod: &Pod, program: &str) -> Result<()> {
    let found = processes(pod, program)?;
    ensure!(!found.is_empty(), "{program} does not run in {:?}", pod.metadata.name);
    found.into_iter().for_each(ProcessId::kill);
    Ok(())
}

/// The processes of a program in a pod, as the host sees them.
///
/// # Errors
/// When the pod has no uid.
pub fn processes(pod: &Pod, program: &str) -> Result<Vec<ProcessId>> {
    // The kubelets here name a pod's control group after its uid, as it is.
    let group = format!("pod{}", pod.metadata.uid.as_deref().context("a pod without uid")?);
    // The kernel keeps 15 bytes of a name.
    let name = program.get(..program.len().min(15)).unwrap_or(program);
    let numbers = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let is_meant = |pid: &u32| {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        read("comm").trim_end() == name && read("cgroup").contains(&group)
    };
    Ok(numbers.filter(is_meant).filter_map(|pid| ProcessId::of(pid).ok()).collect())
}
