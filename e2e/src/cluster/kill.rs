//! `kill -9` of what runs in a pod, from outside: nothing that Kubernetes does is so sudden.

use super::Cluster;
use super::state::ProcessId;
use anyhow::{Result, ensure};
use std::fs;

impl Cluster {
    /// Kills the processes of that program in a pod, and returns how many there were. The kubelet starts the container
    /// anew, unless the pod is gone by then.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill(&self, pod_uid: &str, program: &str) -> Result<usize> {
        let mut killed = 0;
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // It may end while it is looked at.
            let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
            let in_pod = String::from_utf8_lossy(&read("cgroup")).contains(&format!("pod{pod_uid}"));
            let first = read("cmdline").split(|byte| *byte == 0).next().unwrap_or_default().to_owned();
            if in_pod && first == format!("/{program}").as_bytes() {
                ProcessId::of(pid)?.kill();
                killed += 1;
            }
        }
        ensure!(killed > 0, "no {program} runs in the pod {pod_uid}");
        Ok(killed)
    }
}
