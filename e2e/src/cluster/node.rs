//! A Kubernetes node: containerd, kubelet and kube-proxy in a machine, and the network of its pods.

use super::control::{answers, arguments, user};
use super::machine::Machine;
use super::plan::Plan;
use super::{START, state, storage};
use crate::pki::{Authority, Identity};
use crate::process::Process;
use crate::tools::{self, Tool};
use anyhow::Result;
use serde_json::json;
use std::fs;
use std::path::Path;

/// The name of a Kubernetes node.
pub fn name(number: u8) -> String {
    format!("node{number}")
}

/// What a Kubernetes node is started with.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    pub machine: &'a Machine,
    pub plan: Plan,
    /// Its number, from 1.
    pub number: u8,
    /// The folder of the cluster.
    pub folder: &'a Path,
    pub authority: &'a Authority,
    /// The URL of the API server.
    pub server: &'a str,
}

impl Setup<'_> {
    /// Starts the programs of a Kubernetes node. Whether the node is ready is read from the API server
    /// later.
    ///
    /// # Errors
    /// If a part does not start; the message contains its log.
    pub async fn start(&self) -> Result<()> {
        let Setup { machine, plan, number, .. } = *self;
        let address = plan.node(number);
        let lib = machine.folder().join("lib");
        fs::create_dir_all(lib.join("cni"))?;
        fs::write(lib.join("cni/10-entrepot.conflist"), pod_network(plan, number).to_string())?;
        trust(machine, &storage::registry(plan), &format!("http://{}", storage::registry(plan)))?;
        fs::write(lib.join("containerd.toml"), containerd_config(plan))?;
        machine.network("sysctl -qw net.ipv4.ip_forward=1").await?;
        self.containerd().await?;
        let mut kubelet = self.kubelet()?;
        let mut proxy = self.proxy()?;
        let (kubelet_address, proxy_address) = (format!("http://{address}:10248"), format!("http://{address}:10256"));
        kubelet.until_ready(START, || answers(&kubelet_address, "/healthz")).await?;
        proxy.until_ready(START, || answers(&proxy_address, "/healthz")).await
    }

    async fn containerd(&self) -> Result<()> {
        let config = arguments!["--config=/var/lib/containerd.toml"];
        let mut containerd = self.machine.serve("containerd", &tools::system("containerd")?, &config)?;
        let socket = format!("/proc/{}/root/run/containerd/containerd.sock", self.machine.init().pid);
        containerd.until_ready(START, || std::future::ready(Path::new(&socket).exists())).await
    }

    fn kubelet(&self) -> Result<Process> {
        let Setup { machine, plan, number, folder, authority, server } = *self;
        let address = plan.node(number);
        let group = state::cgroup(plan.index, machine.name());
        state::make_cgroup(&group)?;
        let identity = authority.issue(
            &format!("system:node:{}", name(number)),
            "system:nodes",
            &[name(number), address.to_string()],
        )?;
        let kubeconfig = folder.join(format!("{}.kubeconfig", name(number)));
        authority.kubeconfig(&kubeconfig, server, &identity)?;
        let settings = self.kubelet_settings(&group, &identity);
        let settings_file = folder.join(format!("{}.kubelet", name(number)));
        fs::write(&settings_file, settings.to_string())?;
        let flags = arguments!["--config={}", settings_file.display(); "--kubeconfig={}", kubeconfig.display();
            "--hostname-override={}", name(number); "--node-ip={address}"];
        machine.serve("kubelet", &Tool::Kubelet.path()?, &flags)
    }

    fn kubelet_settings(&self, group: &str, identity: &Identity) -> serde_json::Value {
        let Setup { plan, number, authority, .. } = *self;
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{group}"),
            "failCgroupV1": false,
            "failSwapOn": false,
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": authority.certificate()},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": identity.certificate,
            "tlsPrivateKeyFile": identity.key,
            "healthzBindAddress": plan.node(number).to_string(),
            "clusterDNS": [plan.dns_service().to_string()],
            "clusterDomain": "cluster.local",
            "resolvConf": "",
            // The disk belongs to the host, so its free space must not evict pods.
            "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "enforceNodeAllocatable": [],
            "serializeImagePulls": false,
            // Changed Secrets and ConfigMaps reach pods within seconds, because tests check what pods
            // do with them.
            "syncFrequency": "10s",
            "maxPods": 110,
        })
    }

    fn proxy(&self) -> Result<Process> {
        let Setup { machine, plan, number, folder, authority, server } = *self;
        let address = plan.node(number);
        let (kubeconfig, _) = user(folder, authority, "system:kube-proxy", server, plan)?;
        let flags = arguments!["--kubeconfig={}", kubeconfig.display(); "--hostname-override={}", name(number);
            "--cluster-cidr={}", plan.all_pods(); "--proxy-mode=iptables"; "--healthz-bind-address={address}:10256";
            // No change of kernel-wide limits, which belong to the host.
            "--conntrack-max-per-core=0"; "--conntrack-min=0"; "--iptables-min-sync-period=100ms"];
        machine.serve("kube-proxy", &Tool::KubeProxy.path()?, &flags)
    }
}

/// Lets the Kubernetes node pull from a registry: `name` is its host and port in image names, `url`
/// its address. Takes effect with the next pull.
///
/// # Errors
/// If the file cannot be written.
pub fn trust(machine: &Machine, name: &str, url: &str) -> Result<()> {
    let folder = machine.folder().join("lib/certs.d").join(name);
    fs::create_dir_all(&folder)?;
    let hosts = format!("server = \"{url}\"\n[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
    Ok(fs::write(folder.join("hosts.toml"), hosts)?)
}

/// A link from each pod to its Kubernetes node, and routes without NAT between the nodes.
fn pod_network(plan: Plan, number: u8) -> serde_json::Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "entrepot",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni",
                    "ranges": [[{"subnet": plan.pods(number)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn containerd_config(plan: Plan) -> String {
    // Lowering the oom_score_adj of a child requires CAP_SYS_RESOURCE, which a virtual machine may
    // lack.
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "{registry}/pause:1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/var/lib/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/var/lib/certs.d"
"#,
        registry = storage::registry(plan)
    )
}
