//! The node's deterministic tests of races on real buckets. The unit tests run them in memory.

use crate::s3::{ACCESS_KEY, SECRET_KEY};
use crate::servers::{Minio, Versitygw};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use tempfile::TempDir;
use tokio::process::Command;

/// The node's test modules that take the bucket from `ENTREPOT_TEST_BUCKET`.
const TESTS: [&str; 2] = ["upload::races_tests::", "store::tags::tests::"];

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
    println!("races over {name}");
    let tests = Command::new("cargo")
        .args(["test", "--workspace", "--lib", "-p", "entrepot-node", "--"])
        .args(TESTS)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .envs([
            ("ENTREPOT_TEST_BUCKET", bucket),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ])
        .status();
    ensure!(tests.await.context("cannot run cargo")?.success(), "the races over {name} do not end as they should");
    Ok(())
}
