//! Load: wrk, and a client that reads and throws away.

use crate::client::{Refused, Registry, empty};
use crate::push::IMAGE;
use crate::{commands, tools};
use anyhow::{Context, Result, ensure};
use http::Method;
use http_body_util::BodyExt;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// What wrk found.
#[derive(Clone, Copy, Debug)]
pub struct Wrk {
    /// Bytes a second.
    pub bytes: f64,
    /// Requests a second.
    pub requests: f64,
    /// 99th percentile of the latency in milliseconds.
    pub p99: f64,
}

/// Runs `wrk` with these arguments.
///
/// # Errors
/// When it fails, an answer was an error, or its output is not what it is known to be.
pub async fn wrk(arguments: &[&str], url: &str) -> Result<Wrk> {
    let said = commands::run(Command::new(tools::system("wrk")?).args(arguments).arg("--latency").arg(url)).await?;
    ensure!(!said.contains("Non-2xx"), "{said}");
    let field = |name: &str| {
        let line = said.lines().map(str::trim).find_map(|line| line.strip_prefix(name));
        line.map(str::trim).with_context(|| format!("no {name} in {said}"))
    };
    Ok(Wrk {
        bytes: quantity(field("Transfer/sec:")?)?,
        requests: quantity(field("Requests/sec:")?)?,
        p99: quantity(field("99%")?)? * 1000.0,
    })
}

/// A number with one of wrk's units, in bytes or seconds.
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
    found.map(|(number, factor)| number * factor).with_context(|| format!("{text} is no quantity"))
}

/// Gets something and throws it away: how many bytes, and when the first of them came.
///
/// # Errors
/// When the answer is not 200, or ends early.
pub async fn get(client: &Registry, url: &str) -> Result<(u64, Duration)> {
    let start = Instant::now();
    // Distribution takes `*/*` for none of the manifests that it has.
    let answer = client.open(Method::GET, url, &[("accept", IMAGE)], empty()).await?;
    let status = answer.status().as_u16();
    if status != 200 {
        return Err(Refused::of(status, 200)).with_context(|| url.to_owned());
    }
    let (mut body, mut bytes, mut first) = (answer.into_body(), 0, None);
    while let Some(frame) = body.frame().await {
        first.get_or_insert_with(|| start.elapsed());
        bytes += frame?.data_ref().map_or(0, bytes::Bytes::len) as u64;
    }
    Ok((bytes, first.unwrap_or_else(|| start.elapsed())))
}

/// The same, in bytes a second.
///
/// # Errors
/// As for [`get`].
pub async fn drain(client: &Registry, url: &str) -> Result<f64> {
    let start = Instant::now();
    let (bytes, _) = get(client, url).await?;
    Ok(bytes as f64 / start.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_of_wrk_are_read() {
        for (text, value) in [("2.00GB", 2_147_483_648.0), ("1.50ms", 0.0015), ("250.00us", 0.00025), ("12.5", 12.5)] {
            assert_eq!(quantity(text).unwrap(), value, "{text}");
        }
        assert!(quantity("fast").is_err());
    }
}
