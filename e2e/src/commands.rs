//! Runs programs until they exit.

use anyhow::{Context, Result, bail};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Time limit for every program of the tests; only a program that hangs reaches it.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Runs a program and returns its standard output.
///
/// # Errors
/// If it cannot be started, does not exit within ten minutes, or fails; the message contains all of
/// its output.
pub async fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{:?}", command.as_std());
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(TIMEOUT, output)
        .await
        .with_context(|| format!("{shown} did not end within {TIMEOUT:?}"))?
        .with_context(|| format!("cannot start {shown}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{shown}: {}\n{stdout}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(stdout)
}
