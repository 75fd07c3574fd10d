//! `entrepot-operator`: creates and updates the registry nodes that a RegistryCluster describes.

use clap::{Args, Parser, Subcommand};
use entrepot_operator::allowed::{Allowed, Patterns};
use entrepot_operator::app::{Settings, run};
use entrepot_operator::installation::{Installation, Peers};
use entrepot_operator::{MANAGER, definition_yaml};
use std::net::SocketAddr;
use std::process::ExitCode;
use tracing_subscriber::filter::EnvFilter;

/// The Entrepot operator. It connects to the API server with the ServiceAccount of its pod, or with
/// the kubeconfig outside a pod.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Image of the registry pods of every RegistryCluster that has no spec.nodeImage.
    #[arg(long, env = "ENTREPOT_NODE_IMAGE", default_value = concat!("entrepot-node:", env!("CARGO_PKG_VERSION")))]
    node_image: String,
    /// Address on which /livez, /readyz and /metrics are served.
    #[arg(long, env = "ENTREPOT_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Namespace of the operator, in which the Lease for leader election is.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    namespace: String,
    /// Namespaces whose RegistryClusters are reconciled, separated by commas. If empty, all; this
    /// requires permissions in the whole cluster.
    #[arg(long, env = "ENTREPOT_WATCH_NAMESPACES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// Who may read the metrics of registry pods that have a NetworkPolicy: a JSON list of peers, as
    /// in `from` of a NetworkPolicy.
    #[arg(long, env = "ENTREPOT_MONITORING", default_value = PROMETHEUS)]
    monitoring: Peers,
    #[command(flatten)]
    allowed: Allowances,
    /// Name of the Lease for leader election.
    #[arg(long, env = "ENTREPOT_LEASE", default_value = MANAGER)]
    lease_name: String,
    /// Unique name of this replica in the Lease, normally its pod's name. If unset, a random name.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
}

/// By default, pods that the Prometheus Operator or the chart of Prometheus created.
const PROMETHEUS: &str =
    r#"[{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}}]"#;

/// What RegistryClusters may use. Each is a list of patterns, separated by commas, in which `*` stands
/// for any text.
#[derive(Args)]
struct Allowances {
    /// Images that spec.nodeImage may name, in addition to every tag and digest of --node-image.
    #[arg(long, env = "ENTREPOT_ALLOWED_NODE_IMAGES", default_value = "")]
    allowed_node_images: Patterns,
    /// Annotations of the ServiceAccount of the registry pods.
    #[arg(
        long,
        env = "ENTREPOT_ALLOWED_SERVICE_ACCOUNT_ANNOTATIONS",
        default_value = "eks.amazonaws.com/*,iam.gke.io/*,azure.workload.identity/*"
    )]
    allowed_service_account_annotations: Patterns,
    /// Annotations of the Ingress.
    #[arg(
        long,
        env = "ENTREPOT_ALLOWED_INGRESS_ANNOTATIONS",
        default_value = "nginx.ingress.kubernetes.io/proxy-body-size,cert-manager.io/cluster-issuer,cert-manager.io/issuer"
    )]
    allowed_ingress_annotations: Patterns,
    /// Annotations of the Service.
    #[arg(long, env = "ENTREPOT_ALLOWED_SERVICE_ANNOTATIONS", default_value = "")]
    allowed_service_annotations: Patterns,
    /// PriorityClasses of the registry pods.
    #[arg(long, env = "ENTREPOT_ALLOWED_PRIORITY_CLASSES", default_value = "")]
    allowed_priority_classes: Patterns,
    /// Hosts of S3 endpoints. Without an endpoint, the host is s3.REGION.amazonaws.com.
    #[arg(long, env = "ENTREPOT_ALLOWED_ENDPOINTS", default_value = "*")]
    allowed_endpoints: Patterns,
}

impl From<Allowances> for Allowed {
    fn from(all: Allowances) -> Allowed {
        Allowed {
            node_images: all.allowed_node_images,
            service_account_annotations: all.allowed_service_account_annotations,
            ingress_annotations: all.allowed_ingress_annotations,
            service_annotations: all.allowed_service_annotations,
            priority_classes: all.allowed_priority_classes,
            endpoints: all.allowed_endpoints,
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Print the CustomResourceDefinition of RegistryCluster, for `kubectl apply -f -`.
    Crd,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Crd) = arguments.command {
        return match definition_yaml() {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error),
        };
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // kube's watcher logs every failed list attempt; `lists` logs a failure once.
    let filter = match "kube_runtime::watcher=off".parse() {
        Ok(quiet) => filter.add_directive(quiet),
        Err(_) => filter,
    };
    let logging = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if let Err(error) = logging.json().flatten_event(true).with_span_list(false).try_init() {
        return failed(error.as_ref());
    }
    let settings = settings(arguments);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let result = runtime.block_on(run(settings));
    // Fail-stop: a replica that lost the lease must not finish the work that it started.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn settings(arguments: Arguments) -> Settings {
    let installation = Installation {
        node_image: arguments.node_image,
        namespace: arguments.namespace,
        monitoring: arguments.monitoring,
        allowed: arguments.allowed.into(),
    };
    Settings {
        installation,
        watch_namespaces: arguments.watch_namespaces.into_iter().filter(|name| !name.is_empty()).collect(),
        listen: arguments.listen,
        lease_name: arguments.lease_name,
        // The random suffix keeps two processes on one machine apart.
        identity: arguments.identity.unwrap_or_else(|| format!("{}-{:08x}", MANAGER, rand::random::<u32>())),
    }
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("entrepot-operator: {error}");
    ExitCode::FAILURE
}
