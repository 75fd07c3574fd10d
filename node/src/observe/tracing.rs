//! What the node writes to its standard error.

use entrepot_config::{Log, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("{variable}: {source}")]
    Filter { variable: &'static str, source: ParseError },
    #[error("logging: {0}")]
    Init(#[from] TryInitError),
}

/// Begins to log as the configuration says; once in a process. The environment variable `RUST_LOG` goes before
/// `log.level`.
///
/// # Errors
/// When the filter cannot be read, or something logs already.
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
        _ => ("log.level", config.level.as_str()),
    };
    EnvFilter::try_new(text).map_err(|source| LogError::Filter { variable, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(level: &str) -> Log {
        Log { level: level.into(), ..Log::default() }
    }

    #[test]
    fn the_environment_goes_before_the_configuration() {
        assert_eq!(filter(&log("info"), None).unwrap().to_string(), "info");
        assert_eq!(filter(&log("info"), Some("")).unwrap().to_string(), "info");
        assert_eq!(filter(&log("info"), Some("debug")).unwrap().to_string(), "debug");
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_refused_by_its_name() {
        assert!(filter(&log("=,=x"), None).unwrap_err().to_string().starts_with("log.level: "));
        assert!(filter(&log("info"), Some("a=b=c")).unwrap_err().to_string().starts_with("RUST_LOG: "));
    }
}
