//! `entrepot-node`: one node of the registry.

use clap::Parser;
use entrepot_config::NodeConfig;
use entrepot_node::run::app;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A registry node: takes pushes into its local store, replicates them to a bucket, serves pulls from either.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "With no configuration at all it is a working registry on 127.0.0.1:5000 \
that keeps everything under ./entrepot-data. Every field of the configuration: docs/configuration.md."
)]
struct Arguments {
    /// The configuration, a YAML file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only read and check the configuration: 0 when it is good, 2 and a message when it is not.
    #[arg(long)]
    check_config: bool,
}

/// Buffers of half a MiB come and go with every piece of a blob. The system's allocator gives their pages back and takes
/// them again, and that was a tenth of the time of a push.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit status for a configuration that was refused, as clap's for arguments.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match read(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(message) => {
            eprintln!("entrepot-node: {message}");
            return REFUSED.into();
        }
    };
    if arguments.check_config {
        println!("the configuration is good");
        return ExitCode::SUCCESS;
    }
    match app::run(config, arguments.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("entrepot-node: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read(path: Option<&Path>) -> Result<NodeConfig, String> {
    let Some(path) = path else { return Ok(NodeConfig::default()) };
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    NodeConfig::from_yaml(&text).map_err(|error| format!("{}: {error}", path.display()))
}
