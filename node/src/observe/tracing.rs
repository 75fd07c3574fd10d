//! The log of the node, on standard error.

use entrepot_config::{Log, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A filter directive is invalid.
    #[error("{variable}: invalid log filter: {source}")]
    Filter {
        /// The field or environment variable.
        variable: &'static str,
        /// The cause.
        source: ParseError,
    },
    /// This process already logs in another way.
    #[error("cannot initialise logging: {0}")]
    Init(#[from] TryInitError),
}

/// Starts logging as configured; called once per process. The environment variable `RUST_LOG` takes
/// precedence over `log.filter`.
///
/// # Errors
/// If the filter is invalid, or a logger is already installed.
pub fn init(config: &Log) -> Result<(), LogError> {
    let filter = filter(config, std::env::var("RUST_LOG").ok().as_deref())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).finish().try_init()?,
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).finish().try_init()?,
    }
    Ok(())
}

fn filter(config: &Log, environment: Option<&str>) -> Result<EnvFilter, LogError> {
    let (variable, text) = match environment {
        Some(text) if !text.is_empty() => ("RUST_LOG", text),
        _ => ("log.filter", config.filter.as_str()),
    };
    EnvFilter::try_new(text).map_err(|source| LogError::Filter { variable, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(filter: &str) -> Log {
        Log { filter: filter.into(), ..Log::default() }
    }

    #[test]
    fn the_environment_takes_precedence_over_the_configuration() {
        assert_eq!(filter(&log("info"), None).unwrap().to_string(), "info");
        assert_eq!(filter(&log("info"), Some("")).unwrap().to_string(), "info");
        assert_eq!(filter(&log("info"), Some("debug")).unwrap().to_string(), "debug");
    }

    #[test]
    fn the_error_for_an_invalid_filter_contains_its_source() {
        assert!(filter(&log("=,=x"), None).unwrap_err().to_string().starts_with("log.filter: "));
        assert!(filter(&log("info"), Some("a=b=c")).unwrap_err().to_string().starts_with("RUST_LOG: "));
    }
}
