//! Programs that run to their end.

use anyhow::{Context, Result, bail};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// No program of the tests takes longer, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs a program and returns what it wrote to its standard output.
///
/// # Errors
/// When it cannot be started, does not end within ten minutes, or fails; the message has all that it wrote.
pub async fn run(command: &mut Command) -> Result<String> {
    let shown = format!("{:?}", command.as_std());
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output)
        .await
        .with_context(|| format!("{shown} did not end within {PATIENCE:?}"))?
        .with_context(|| format!("cannot start {shown}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{shown}: {}\n{stdout}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(stdout)
}
