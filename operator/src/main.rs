//! `entrepot-operator`: creates and updates the registry nodes that a RegistryCluster describes.

use clap::{Parser, Subcommand};
use entrepot_operator::app::{Settings, run};
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
    /// Namespace of the Lease for leader election, normally the operator's own.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    lease_namespace: String,
    /// Name of the Lease for leader election.
    #[arg(long, env = "ENTREPOT_LEASE", default_value = MANAGER)]
    lease_name: String,
    /// Unique name of this replica in the Lease, normally its pod's name. If unset, a random name.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
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
    let settings = Settings {
        node_image: arguments.node_image,
        listen: arguments.listen,
        lease_namespace: arguments.lease_namespace,
        lease_name: arguments.lease_name,
        // The random suffix keeps two processes on one machine apart.
        identity: arguments.identity.unwrap_or_else(|| format!("{}-{:08x}", MANAGER, rand::random::<u32>())),
    };
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

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("entrepot-operator: {error}");
    ExitCode::FAILURE
}
