//! `entrepot-node`: one node of the registry.

use clap::{Parser, Subcommand};
use entrepot_config::{Duration, NodeConfig};
use entrepot_node::app::{credential_provider, wiring};
use rustix::fs::Mode;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A registry node: stores pushed content on its local disk, uploads it to a bucket, and serves
/// pulls from either.
#[derive(Parser)]
#[command(
    version,
    about,
    args_conflicts_with_subcommands = true,
    after_help = "Without a configuration file, the node is a working registry on 127.0.0.1:5000 that stores \
everything under ./entrepot-data. docs/reference/configuration.md describes every field."
)]
struct Arguments {
    /// Configuration file (YAML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only check the configuration: exit with status 0 if it is valid, or with 2 and a message if
    /// it is not.
    #[arg(long)]
    check_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Give a kubelet the credential of a pull: the token of the pod's service account. Only a
    /// kubelet runs this; docs/how-to/pull-without-secrets.md describes how.
    CredentialProvider {
        /// Time for which the kubelet keeps the credential. It keeps the token itself anyway.
        #[arg(long, value_name = "TIME", default_value = "0s")]
        cache_duration: Duration,
    },
}

/// Buffers of 512 KiB are allocated and freed for every piece of a blob. The system's allocator
/// returns their pages to the kernel each time, which took 10 % of the time of a push.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit status for an invalid configuration; clap uses the same one for invalid arguments.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    // Everything that a node creates in its store and in a directory bucket is 0600 or 0700, whatever
    // umask it inherits: other users of the machine must not read private images. The libraries
    // that create files have no other way to say it. No thread runs yet.
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let arguments = Arguments::parse();
    if let Some(Command::CredentialProvider { cache_duration }) = arguments.command {
        return give_credential(cache_duration);
    }
    let config = match read(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(message) => {
            eprintln!("entrepot-node: {message}");
            return REFUSED.into();
        }
    };
    if arguments.check_config {
        println!("configuration is valid");
        return ExitCode::SUCCESS;
    }
    match wiring::run(config, arguments.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("entrepot-node: {error}");
            ExitCode::FAILURE
        }
    }
}

fn give_credential(cache: Duration) -> ExitCode {
    match credential_provider::run(std::io::stdin().lock(), cache) {
        Ok(response) => {
            println!("{response}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("entrepot-node credential-provider: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read(path: Option<&Path>) -> Result<NodeConfig, String> {
    let Some(path) = path else { return Ok(NodeConfig::default()) };
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    NodeConfig::from_yaml(&text).map_err(|error| format!("{}: {error}", path.display()))
}
