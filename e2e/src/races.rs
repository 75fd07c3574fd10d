//! The node's deterministic tests of races on real buckets. The unit tests run them in memory.

use crate::s3::{ACCESS_KEY, SECRET_KEY};
use crate::servers::{Minio, Versitygw};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Stdio;
use tempfile::TempDir;
use tokio::process::Command;

/// The node's test modules that take the bucket from `ENTREPOT_TEST_BUCKET`.
const TESTS: [&str; 2] = ["upload::races_tests::", "repository::tags::tests::"];

/// Runs the tests over a folder, versitygw and MinIO.
///
/// # Errors
/// When a server does not start or a test fails.
pub async fn run() -> Result<()> {
    let folder = TempDir::new()?;
    over("a folder", folder.path().to_str().context("the temporary folder is not UTF-8")?).await?;
    let versitygw = Versitygw::start().await?;
    over("versitygw", &versitygw.s3.endpoint).await?;
    let minio = Minio::start().await?;
    over("MinIO", &minio.s3.endpoint).await
}

async fn over(name: &str, bucket: &str) -> Result<()> {
    for tests in TESTS {
        println!("races over {name}: {tests}");
        run_tests(tests, bucket).await.with_context(|| format!("races over {name}"))?;
    }
    Ok(())
}

/// A filter that matches no test is an error: the tests were renamed.
async fn run_tests(tests: &str, bucket: &str) -> Result<()> {
    let mut command = Command::new("cargo");
    command
        .args(["test", "--workspace", "--lib", "--", tests])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .envs([
            ("ENTREPOT_TEST_BUCKET", bucket),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ])
        .stdout(Stdio::piped());
    let output = command.spawn().context("cannot run cargo")?.wait_with_output().await?;
    let printed = String::from_utf8_lossy(&output.stdout);
    print!("{printed}");
    ensure!(output.status.success(), "a test failed");
    ensure!(
        printed.lines().any(|line| line.starts_with("test ") && line.ends_with(" ... ok")),
        "{tests} matches no test"
    );
    Ok(())
}
