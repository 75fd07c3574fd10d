//! The add-ons of a cluster: DNS, metrics and volumes. They run as programs on the first Kubernetes
//! node, behind Services.

use super::control::{Control, answers, arguments};
use super::machine::Machine;
use super::plan::Plan;
use super::storage::S3_PORT;
use super::{START, provisioner};
use crate::pki::{ADMINISTRATORS, Authority};
use crate::process::Process;
use crate::tools::Tool;
use anyhow::Result;
use serde_json::{Value, json};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use tokio::net::TcpStream;

/// Starts the programs. [`manifests`] contains their Services.
///
/// # Errors
/// If one does not start; the message contains its log.
pub async fn start(
    machine: &Machine,
    plan: Plan,
    folder: &Path,
    authority: &Authority,
    control: &Control,
    program: &Path,
) -> Result<()> {
    let address = plan.node(1);
    let mut dns = dns(machine, plan, folder, &administrator(folder, authority, "entrepot:dns", control)?)?;
    let metrics = administrator(folder, authority, "entrepot:metrics", control)?;
    let names = ["metrics-server.kube-system.svc".to_owned(), address.to_string()];
    let identity = authority.issue("metrics-server", "entrepot", &names)?;
    let flags = arguments!["--kubeconfig={}", metrics.display(); "--authentication-kubeconfig={}", metrics.display();
        "--authorization-kubeconfig={}", metrics.display(); "--bind-address={address}"; "--secure-port=4443";
        "--kubelet-preferred-address-types=InternalIP";
        "--kubelet-certificate-authority={}", authority.certificate().display();
        "--tls-cert-file={}", identity.certificate.display();
        "--tls-private-key-file={}", identity.key.display(); "--metric-resolution=10s"; "--kubelet-request-timeout=5s"];
    let mut metrics_server = machine.serve("metrics-server", &Tool::MetricsServer.path()?, &flags)?;
    let volumes = administrator(folder, authority, "entrepot:volumes", control)?;
    let mut provisioner = machine.serve(
        "provisioner",
        program,
        &arguments!["provision"; "--kubeconfig";
        "{}", volumes.display(); "--machines"; "{}", folder.display()],
    )?;
    let ready = format!("http://{address}:8181");
    dns.until_ready(START, || answers(&ready, "/ready")).await?;
    let started =
        || std::future::ready(machine.folder().join("log/provisioner.log").metadata().is_ok_and(|log| log.len() > 0));
    provisioner.until_ready(START, started).await?;
    // metrics-server is healthy only after the kubelets have responded twice, so a scenario that
    // needs metrics waits for them itself.
    let listens = || async { TcpStream::connect((address, 4443)).await.is_ok() };
    metrics_server.until_ready(START, listens).await
}

fn administrator(folder: &Path, authority: &Authority, name: &str, control: &Control) -> Result<PathBuf> {
    let path = folder.join(format!("{}.kubeconfig", name.replace(':', "-")));
    authority.kubeconfig(&path, &control.server, &authority.issue(name, ADMINISTRATORS, &[])?)?;
    Ok(path)
}

fn dns(machine: &Machine, plan: Plan, folder: &Path, kubeconfig: &Path) -> Result<Process> {
    let address = plan.node(1);
    let corefile = folder.join("Corefile");
    let rules = format!(
        "cluster.local:53 in-addr.arpa:53 {{\n  bind {address}\n  errors\n  ready {address}:8181\n  \
         kubernetes cluster.local in-addr.arpa {{\n    kubeconfig {}\n    ttl 1\n  }}\n}}\n\
         # No names outside the cluster can be resolved.\n.:53 {{\n  bind {address}\n  template ANY ANY {{\n    rcode NXDOMAIN\n  }}\n}}\n",
        kubeconfig.display()
    );
    fs::write(&corefile, rules)?;
    machine.serve("coredns", &Tool::Coredns.path()?, &arguments!["-conf"; "{}", corefile.display()])
}

/// The Services of these programs and of the S3 server, and the StorageClasses.
pub fn manifests(plan: Plan) -> Value {
    let mut items = vec![json!({
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {
            "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": true,
            "service": {"namespace": "kube-system", "name": "metrics-server"},
        },
    })];
    items.extend(provisioner::classes());
    let dns = plan.dns_service().to_string();
    items.extend(service(
        "kube-system",
        "kube-dns",
        Some(&dns),
        plan.node(1),
        &[("dns", "UDP", 53, 53), ("tcp", "TCP", 53, 53)],
    ));
    items.extend(service("kube-system", "metrics-server", None, plan.node(1), &[("https", "TCP", 443, 4443)]));
    items.extend(s3_items(plan.storage(), S3_PORT));
    list(items)
}

/// The namespace `storage` with the Service `s3` for an S3 server at this address.
pub fn s3(address: Ipv4Addr, port: u16) -> Value {
    list(s3_items(address, port))
}

fn s3_items(address: Ipv4Addr, port: u16) -> Vec<Value> {
    let mut items = vec![namespace("storage")];
    items.extend(service("storage", "s3", None, address, &[("http", "TCP", S3_PORT, port)]));
    items
}

/// kubectl takes no lists within a list.
fn list(items: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A Service for a program that is not a pod, with ports as (name, protocol, port, target port).
fn service(
    namespace: &str,
    name: &str,
    ip: Option<&str>,
    program: Ipv4Addr,
    ports: &[(&str, &str, u16, u16)],
) -> [Value; 2] {
    let metadata = json!({
        "namespace": namespace, "name": name, "labels": {"kubernetes.io/service-name": name},
    });
    let describe = |target: bool| -> Vec<Value> {
        ports
            .iter()
            .map(|(name, protocol, port, own)| {
                json!({"name": name, "protocol": protocol, "port": if target { own } else { port }})
            })
            .collect()
    };
    let mut spec = json!({"ports": describe(false)});
    if let Some(ip) = ip {
        spec["clusterIP"] = json!(ip);
    }
    [
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}),
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata,
            "addressType": "IPv4",
            "endpoints": [{"addresses": [program.to_string()], "conditions": {"ready": true}}],
            "ports": describe(true),
        }),
    ]
}
