//! The control plane: etcd, the API server with its audit log, controllers and scheduler, on the
//! first Kubernetes node.

use super::START;
use super::machine::Machine;
use super::plan::Plan;
use crate::client::{Registry, empty};
use crate::pki::{ADMINISTRATORS, Authority, Identity};
use crate::tools::{self, Tool};
use anyhow::{Context, Result};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// A running control plane.
pub struct Control {
    /// With an administrator's credentials.
    pub kubeconfig: PathBuf,
    pub audit_log: PathBuf,
    pub server: String,
    pub client: kube::Client,
}

/// Arguments of a program. Each is written as for `format!`; semicolons separate them.
macro_rules! arguments {
    ($($format:literal $(, $value:expr)*);* $(;)?) => { [$(format!($format $(, $value)*)),*] };
}
pub(super) use arguments;

/// Starts the control plane and waits until it responds.
///
/// # Errors
/// If a part does not start; the message contains its log.
pub async fn start(machine: &Machine, plan: Plan, folder: &Path, authority: &Authority) -> Result<Control> {
    let address = plan.node(1);
    let etcd = arguments!["--data-dir=/var/lib/etcd"; "--listen-client-urls=http://127.0.0.1:2379";
        "--advertise-client-urls=http://127.0.0.1:2379"; "--listen-peer-urls=http://127.0.0.1:2380";
        "--listen-metrics-urls=http://{address}:2381"; "--unsafe-no-fsync"];
    let mut etcd = machine.serve("etcd", &tools::system("etcd")?, &etcd)?;
    let audit_log = machine.folder().join("log/audit.log");
    let policy = folder.join("audit-policy.json");
    fs::write(&policy, audit_policy().to_string())?;
    let server_names: Vec<String> = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
        .map(str::to_owned)
        .into_iter()
        .chain([address, plan.kubernetes_service()].map(|address| address.to_string()))
        .chain(["127.0.0.1".to_owned()])
        .collect();
    let serving = authority.issue("kube-apiserver", ADMINISTRATORS, &server_names)?;
    let proxy = authority.issue("front-proxy", "entrepot", &[])?;
    let (private, public) = authority.key_pair("service-accounts")?;
    let ca = authority.certificate();
    let api = arguments!["--advertise-address={address}"; "--secure-port=6443";
        "--etcd-servers=http://127.0.0.1:2379"; "--service-cluster-ip-range={}", plan.services();
        "--tls-cert-file={}", serving.certificate.display(); "--tls-private-key-file={}", serving.key.display();
        "--client-ca-file={}", ca.display(); "--kubelet-certificate-authority={}", ca.display();
        "--kubelet-client-certificate={}", serving.certificate.display();
        "--kubelet-client-key={}", serving.key.display();
        "--kubelet-preferred-address-types=InternalIP";
        "--service-account-key-file={}", public.display();
        "--service-account-signing-key-file={}", private.display();
        "--service-account-issuer=https://kubernetes.default.svc";
        "--requestheader-client-ca-file={}", ca.display(); "--requestheader-allowed-names=front-proxy";
        "--requestheader-username-headers=X-Remote-User"; "--requestheader-group-headers=X-Remote-Group";
        "--requestheader-extra-headers-prefix=X-Remote-Extra-";
        "--proxy-client-cert-file={}", proxy.certificate.display();
        "--proxy-client-key-file={}", proxy.key.display();
        "--authorization-mode=Node,RBAC"; "--enable-admission-plugins=NodeRestriction"; "--allow-privileged=true";
        "--audit-policy-file={}", policy.display(); "--audit-log-path=/var/log/audit.log";
        "--audit-log-maxsize=10000"
    ];
    let ready = format!("http://{address}:2381");
    etcd.until_ready(START, || answers(&ready, "/health")).await?;
    let mut api = machine.serve("kube-apiserver", &Tool::KubeApiserver.path()?, &api)?;
    let server = format!("https://{address}:6443");
    let kubeconfig = folder.join("kubeconfig");
    authority.kubeconfig(&kubeconfig, &server, &authority.issue("entrepot-tests", ADMINISTRATORS, &[])?)?;
    let client = client(&kubeconfig).await?;
    api.until_ready(START, || is_healthy(&client, "/readyz")).await?;
    controllers(machine, plan, folder, authority, (&private, &server)).await?;
    Ok(Control { kubeconfig, audit_log, server, client })
}

async fn controllers(
    machine: &Machine,
    plan: Plan,
    folder: &Path,
    authority: &Authority,
    (tokens, server): (&Path, &str),
) -> Result<()> {
    let address = plan.node(1);
    let (manager_config, manager) = user(folder, authority, "system:kube-controller-manager", server, plan)?;
    let (scheduler_config, scheduler) = user(folder, authority, "system:kube-scheduler", server, plan)?;
    let common = |config: &Path, identity: &Identity| {
        let config = config.display();
        arguments!["--kubeconfig={config}"; "--authentication-kubeconfig={config}"; "--leader-elect=false";
            "--authorization-kubeconfig={config}"; "--bind-address={address}";
            "--tls-cert-file={}", identity.certificate.display();
            "--tls-private-key-file={}", identity.key.display()]
    };
    let mut flags = common(&manager_config, &manager).to_vec();
    // Short periods, so that autoscalers decide within seconds: tests check what they decide, not
    // how long they wait.
    flags.extend(arguments!["--service-account-private-key-file={}", tokens.display();
        "--root-ca-file={}", authority.certificate().display(); "--use-service-account-credentials";
        "--horizontal-pod-autoscaler-sync-period=5s"; "--horizontal-pod-autoscaler-initial-readiness-delay=5s";
        "--horizontal-pod-autoscaler-cpu-initialization-period=20s";
        "--horizontal-pod-autoscaler-downscale-stabilization=20s"]);
    let mut manager = machine.serve("kube-controller-manager", &Tool::KubeControllerManager.path()?, &flags)?;
    let flags = common(&scheduler_config, &scheduler);
    let mut scheduler = machine.serve("kube-scheduler", &Tool::KubeScheduler.path()?, &flags)?;
    let manager_client = client_at(&manager_config, &format!("https://{address}:10257")).await?;
    let scheduler_client = client_at(&scheduler_config, &format!("https://{address}:10259")).await?;
    manager.until_ready(START, || is_healthy(&manager_client, "/healthz")).await?;
    scheduler.until_ready(START, || is_healthy(&scheduler_client, "/healthz")).await
}

/// The kubeconfig and certificate of a component's user.
///
/// # Errors
/// If a file cannot be written.
pub fn user(folder: &Path, authority: &Authority, name: &str, server: &str, plan: Plan) -> Result<(PathBuf, Identity)> {
    let identity = authority.issue(name, name, &[plan.node(1).to_string()])?;
    let path = folder.join(format!("{}.kubeconfig", name.replace(':', "-")));
    authority.kubeconfig(&path, server, &identity)?;
    Ok((path, identity))
}

/// A client with the user of a kubeconfig.
///
/// # Errors
/// If the file is not a valid kubeconfig.
pub async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    let parsed = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(parsed, &Default::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

/// A client with the same user for another server of the cluster, to check its health.
async fn client_at(kubeconfig: &Path, server: &str) -> Result<kube::Client> {
    let parsed = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let mut config = kube::Config::from_custom_kubeconfig(parsed, &Default::default()).await?;
    config.cluster_url = server.parse().with_context(|| format!("invalid server URL {server}"))?;
    Ok(kube::Client::try_from(config)?)
}

async fn is_healthy(client: &kube::Client, path: &str) -> bool {
    let Ok(request) = http::Request::get(path).body(Vec::new()) else { return false };
    client.request_text(request).await.is_ok()
}

/// Whether the response to a path is 200.
pub(super) async fn answers(address: &str, path: &str) -> bool {
    let server = Registry::new(address);
    server.send(http::Method::GET, path, &[], empty()).await.is_ok_and(|reply| reply.status == 200)
}

/// Logs every request after its response, with user, object and result, but without bodies.
fn audit_policy() -> serde_json::Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "omitManagedFields": true,
        "rules": [{"level": "Metadata"}],
    })
}
