//! A node: containerd, kubelet and kube-proxy in a machine of their own, and the wires of its pods.

use super::control::{answers, arguments, user};
use super::machine::Machine;
use super::pki::Authority;
use super::plan::Plan;
use super::{START, state, storage};
use crate::tools::{self, Tool};
use anyhow::Result;
use serde_json::json;
use std::fs;
use std::path::Path;

/// The name of a node.
pub fn name(number: u8) -> String {
    format!("node{number}")
}

/// Starts what runs on a node. Its readiness is the API server's to say.
///
/// # Errors
/// When a part of it does not start; the message has its log.
pub async fn start(
    machine: &Machine,
    plan: Plan,
    number: u8,
    folder: &Path,
    authority: &Authority,
    server: &str,
) -> Result<()> {
    let address = plan.node(number);
    let lib = machine.folder().join("lib");
    fs::create_dir_all(lib.join("cni"))?;
    fs::write(lib.join("cni/10-entrepot.conflist"), pod_network(plan, number).to_string())?;
    trust(machine, &storage::registry(plan), &format!("http://{}", storage::registry(plan)))?;
    fs::write(lib.join("containerd.toml"), containerd_config(plan))?;
    machine.network("sysctl -qw net.ipv4.ip_forward=1").await?;
    let config = arguments!["--config=/var/lib/containerd.toml"];
    let mut containerd = machine.serve("containerd", &tools::system("containerd")?, &config)?;
    let socket = format!("/proc/{}/root/run/containerd/containerd.sock", machine.init().pid);
    containerd.until_ready(START, || std::future::ready(Path::new(&socket).exists())).await?;

    let group = state::cgroup(plan.index, machine.name());
    state::make_cgroup(&group)?;
    let identity = authority.issue(
        &format!("system:node:{}", name(number)),
        "system:nodes",
        &[name(number), address.to_string()],
    )?;
    let kubeconfig = folder.join(format!("{}.kubeconfig", name(number)));
    authority.kubeconfig(&kubeconfig, server, &identity)?;
    let settings = json!({
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
        "healthzBindAddress": address.to_string(),
        "clusterDNS": [plan.dns_service().to_string()],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        // The disk is the host's, and how full it is not the cluster's affair.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "enforceNodeAllocatable": [],
        "serializeImagePulls": false,
        // A Secret or ConfigMap that was changed is with its pods within seconds: what they do with it is tested.
        "syncFrequency": "10s",
        "maxPods": 110,
    });
    let settings_file = folder.join(format!("{}.kubelet", name(number)));
    fs::write(&settings_file, settings.to_string())?;
    let flags = arguments!["--config={}", settings_file.display(); "--kubeconfig={}", kubeconfig.display();
        "--hostname-override={}", name(number); "--node-ip={address}"];
    let mut kubelet = machine.serve("kubelet", &Tool::Kubelet.path()?, &flags)?;

    let (kubeconfig, _) = user(folder, authority, "system:kube-proxy", server, plan)?;
    let flags = arguments!["--kubeconfig={}", kubeconfig.display(); "--hostname-override={}", name(number);
        "--cluster-cidr={}", plan.all_pods(); "--proxy-mode=iptables"; "--healthz-bind-address={address}:10256";
        // Limits of the whole kernel, which are not ours to change.
        "--conntrack-max-per-core=0"; "--conntrack-min=0"; "--iptables-min-sync-period=100ms"];
    let mut proxy = machine.serve("kube-proxy", &Tool::KubeProxy.path()?, &flags)?;
    let (kubelet_address, proxy_address) = (format!("http://{address}:10248"), format!("http://{address}:10256"));
    kubelet.until_ready(START, || answers(&kubelet_address, "/healthz")).await?;
    proxy.until_ready(START, || answers(&proxy_address, "/healthz")).await
}

/// Lets the node pull from a registry: `name` is how images name it (a host and port), `url` where it answers. It holds
/// for the next pull.
///
/// # Errors
/// When its file cannot be written.
pub fn trust(machine: &Machine, name: &str, url: &str) -> Result<()> {
    let folder = machine.folder().join("lib/certs.d").join(name);
    fs::create_dir_all(&folder)?;
    let hosts = format!("server = \"{url}\"\n[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
    Ok(fs::write(folder.join("hosts.toml"), hosts)?)
}

/// A wire from each pod to the node, and nothing but routes between nodes: every address is what it says.
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
    // A child's oom_score_adj may not be lowered without CAP_SYS_RESOURCE, which a virtual machine may lack.
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
