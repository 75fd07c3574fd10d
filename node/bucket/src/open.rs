//! Opens the configured bucket with its decorators.

use super::BucketMetrics;
use super::s3::{ConnectError, S3};
use super::{Bucket, Counted, FileSystem, Limited, Retried};
use entrepot_config::BucketConfig;
use entrepot_runtime::Clock;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a bucket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("bucket.fileSystem.path: cannot use {path}: {source}")]
    FileSystem { path: PathBuf, source: std::io::Error },
    #[error("bucket.s3.{0}")]
    S3(#[from] ConnectError),
}

/// Opens the bucket. It sends no request to S3, so a node starts even if its bucket is unreachable.
///
/// Each try is counted, waits for its turn, and is repeated: `Retried(Limited(Counted(bucket)))`. A
/// request that pauses before its next try therefore holds no turn.
///
/// # Errors
/// If the folder cannot be created, or the S3 settings are not usable.
pub fn open(config: &entrepot_config::Bucket, metrics: BucketMetrics) -> Result<Arc<dyn Bucket>, OpenError> {
    Ok(decorate(bare(config)?, config, metrics))
}

fn bare(config: &entrepot_config::Bucket) -> Result<Arc<dyn Bucket>, OpenError> {
    match &config.backend {
        BucketConfig::S3(s3) => Ok(Arc::new(S3::connect(config, s3)?)),
        BucketConfig::FileSystem(folder) => match FileSystem::open(&folder.path, Clock::system()) {
            Ok(bucket) => Ok(Arc::new(bucket)),
            Err(source) => Err(OpenError::FileSystem { path: folder.path.clone(), source }),
        },
    }
}

fn decorate(bucket: Arc<dyn Bucket>, config: &entrepot_config::Bucket, metrics: BucketMetrics) -> Arc<dyn Bucket> {
    let counted = Arc::new(Counted::new(bucket, metrics));
    let limited = Arc::new(Limited::new(counted, config.max_requests, config.max_bytes_in_flight.get()));
    Arc::new(Retried::new(limited, config.retry_budget.get()))
}

#[cfg(test)]
mod tests {
    use super::super::fault::{Effect, Fault, Faults, Faulty};
    use super::super::{BucketErrorKind, Operation, PutBody, PutMode};
    use super::*;
    use crate::Key;
    use entrepot_config::{FileSystem as Folder, S3 as S3Config};

    fn folder(path: PathBuf) -> entrepot_config::Bucket {
        entrepot_config::Bucket::of(BucketConfig::FileSystem(Folder { path }))
    }

    #[tokio::test]
    async fn every_try_is_counted_and_a_transient_failure_is_retried() {
        let root = tempfile::tempdir().unwrap();
        let (metrics, faults) = (BucketMetrics::new().unwrap(), Faults::default());
        let config = folder(root.path().join("bucket"));
        let faulty = Arc::new(Faulty::new(bare(&config).unwrap(), &faults));
        let bucket = decorate(faulty, &config, metrics.clone());
        faults.add(Fault::new(Operation::Put, Effect::Error(BucketErrorKind::Server)).times(1));
        bucket.put(&Key::new("docker/a"), PutBody::Bytes("x".into()), PutMode::IfAbsent).await.unwrap();
        let count = |result| metrics.requests.with_label_values(&["put", result]).get();
        assert_eq!((count("server"), count("ok")), (1, 1));
    }

    #[test]
    fn s3_is_opened_without_a_request() {
        let s3 = S3Config { name: "images".into(), endpoint: Some("http://127.0.0.1:1".into()), ..Default::default() };
        let config = entrepot_config::Bucket::of(BucketConfig::S3(s3));
        assert!(open(&config, BucketMetrics::new().unwrap()).is_ok());
    }

    #[test]
    fn an_error_names_the_field() {
        let metrics = || BucketMetrics::new().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = open(&folder(file.path().join("below")), metrics()).err().unwrap().to_string();
        assert!(refused.contains("bucket.fileSystem.path"), "{refused}");
        let s3 = S3Config { ca_file: Some("/no/such/file".into()), ..Default::default() };
        let config = entrepot_config::Bucket::of(BucketConfig::S3(s3));
        let refused = open(&config, metrics()).err().unwrap().to_string();
        assert!(refused.contains("bucket.s3") && refused.contains("/no/such/file"), "{refused}");
    }
}
