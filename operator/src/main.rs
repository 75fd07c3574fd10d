//! `entrepot-operator`: turns RegistryCluster resources into running nodes.

use clap::{Parser, Subcommand};
use entrepot_operator::run::{Settings, run};
use entrepot_operator::{crd, names};
use std::net::SocketAddr;
use std::process::ExitCode;
use tracing_subscriber::filter::EnvFilter;

/// The operator of Entrepot. It speaks to the API server of its pod's ServiceAccount, or of the kubeconfig.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Image of the nodes of clusters that name none.
    #[arg(long, env = "ENTREPOT_NODE_IMAGE", default_value = concat!("entrepot-node:", env!("CARGO_PKG_VERSION")))]
    node_image: String,
    /// Where /livez, /readyz and /metrics are.
    #[arg(long, env = "ENTREPOT_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Namespace of the Lease by which one of the replicas leads: that of the operator.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    lease_namespace: String,
    /// Name of that Lease.
    #[arg(long, env = "ENTREPOT_LEASE", default_value = names::MANAGER)]
    lease_name: String,
    /// What tells this replica from the others: its pod's name.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    /// Prints the definition of RegistryCluster, for `kubectl apply -f -`.
    Crd,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Crd) = arguments.command {
        return match crd::definition_yaml() {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error),
        };
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // It logs each try of a list that is forbidden; `lists` tells that once.
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
        // Two processes of one machine differ, too.
        identity: arguments.identity.unwrap_or_else(|| format!("{}-{:08x}", names::MANAGER, rand::random::<u32>())),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let result = runtime.block_on(run(settings));
    // Fail-stop: who no longer leads must not finish what it began.
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
