//! Runs wrk, the HTTP load generator, and parses its output.

use anyhow::{Context, Result, ensure};
use entrepot_e2e::{commands, tools};
use tokio::process::Command;

/// The results of wrk.
#[derive(Clone, Copy, Debug)]
pub struct Wrk {
    /// Bytes per second.
    pub bytes: f64,
    /// Requests per second.
    pub requests: f64,
    /// 99th percentile of the latency in milliseconds.
    pub p99: f64,
}

/// Runs `wrk` with the arguments.
///
/// # Errors
/// If wrk fails, if it received an error response, or if its output has an unknown form.
pub async fn wrk(arguments: &[&str], url: &str) -> Result<Wrk> {
    let said = commands::run(Command::new(tools::system("wrk")?).args(arguments).arg("--latency").arg(url)).await?;
    ensure!(!said.contains("Non-2xx"), "{said}");
    let field = |name: &str| {
        let line = said.lines().map(str::trim).find_map(|line| line.strip_prefix(name));
        line.map(str::trim).with_context(|| format!("the output of wrk has no {name}: {said}"))
    };
    Ok(Wrk {
        bytes: quantity(field("Transfer/sec:")?)?,
        requests: quantity(field("Requests/sec:")?)?,
        p99: quantity(field("99%")?)? * 1000.0,
    })
}

/// Parses a number with a unit of wrk. The result is in bytes or seconds.
fn quantity(text: &str) -> Result<f64> {
    let units = [
        ("GB", 1_073_741_824.0),
        ("MB", 1_048_576.0),
        ("KB", 1024.0),
        ("B", 1.0),
        ("us", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("", 1.0),
    ];
    let found = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?.parse::<f64>().ok()?, factor)));
    found
        .map(|(number, factor)| number * factor)
        .with_context(|| format!("{text:?} is not a number with a unit of wrk"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_of_wrk_are_parsed() {
        for (text, value) in [("2.00GB", 2_147_483_648.0), ("1.50ms", 0.0015), ("250.00us", 0.00025), ("12.5", 12.5)] {
            assert_eq!(quantity(text).unwrap(), value, "{text}");
        }
        assert!(quantity("fast").is_err());
    }
}
