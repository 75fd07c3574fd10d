//! The contract suite of buckets on real S3 servers, through the client and the decorators of a
//! node.

use anyhow::Result;
use entrepot_bucket::BucketMetrics;
use entrepot_bucket::{contract, open};
use entrepot_e2e::s3::{S3, node_bucket};
use entrepot_e2e::servers::{Minio, Versitygw};
use tempfile::TempDir;

/// Runs the suite below a prefix. Afterwards no multipart upload may be left open.
async fn keeps_the_contract(s3: &S3) -> Result<()> {
    let keys = TempDir::new()?;
    let bucket = open(&node_bucket(&s3.endpoint, keys.path())?, BucketMetrics::new()?)?;
    contract::holds(bucket.bucket, "team-a/").await;
    assert_eq!(s3.open_multiparts().await?, Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn versitygw_keeps_the_contract() -> Result<()> {
    let server = Versitygw::start().await?;
    keeps_the_contract(&server.s3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn minio_keeps_the_contract() -> Result<()> {
    let server = Minio::start().await?;
    keeps_the_contract(&server.s3).await
}
