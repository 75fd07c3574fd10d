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
    /// The folder of a bucket cannot be created or used.
    #[error("bucket.fileSystem.path: cannot use {path}: {source}")]
    FileSystem {
        /// The path of the folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A setting of the S3 client cannot be used.
    #[error("bucket.s3.{0}")]
    S3(#[from] ConnectError),
}

/// Two handles of one bucket. They share its limits, its metrics and its credentials, but no
/// connection, because hyper drives a connection on the runtime that opened it.
#[derive(Clone)]
pub struct Handles {
    /// For requests from the node's runtime.
    pub bucket: Arc<dyn Bucket>,
    /// For reads of large content from [`entrepot_runtime::BackgroundRuntime`], which are then
    /// decrypted and copied by its threads, and do not delay small requests.
    pub background: Arc<dyn Bucket>,
}

/// A bucket without connections, such as one in memory, is used from any runtime.
impl From<Arc<dyn Bucket>> for Handles {
    fn from(bucket: Arc<dyn Bucket>) -> Handles {
        Handles { background: bucket.clone(), bucket }
    }
}

/// Opens the bucket. It sends no request to S3, so a node starts even if its bucket is unreachable.
///
/// Each try is counted, waits for its turn, and is repeated: `Retried(Limited(Counted(bucket)))`. A
/// request that pauses before its next try therefore holds no turn.
///
/// # Errors
/// If the folder cannot be created, or the S3 settings are not usable.
pub fn open(config: &entrepot_config::Bucket, metrics: BucketMetrics) -> Result<Handles, OpenError> {
    Ok(decorate(bare(config)?, config, metrics))
}

fn bare(config: &entrepot_config::Bucket) -> Result<Handles, OpenError> {
    match &config.backend {
        BucketConfig::S3(s3) => {
            let s3 = S3::connect(config, s3)?;
            Ok(Handles { background: Arc::new(s3.background()), bucket: Arc::new(s3) })
        }
        BucketConfig::FileSystem(folder) => match FileSystem::open(&folder.path, Clock::system()) {
            Ok(bucket) => Ok(Handles::from(Arc::new(bucket) as Arc<dyn Bucket>)),
            Err(source) => Err(OpenError::FileSystem { path: folder.path.clone(), source }),
        },
    }
}

fn decorate(handles: Handles, config: &entrepot_config::Bucket, metrics: BucketMetrics) -> Handles {
    let counted = |bucket| Arc::new(Counted::new(bucket, metrics.clone()));
    let retried = |bucket| Arc::new(Retried::new(Arc::new(bucket), config.retry_budget.get()));
    let bucket = Limited::new(counted(handles.bucket), config.max_requests, config.max_bytes_in_flight.get());
    let background = bucket.sharing(counted(handles.background));
    Handles { bucket: retried(bucket), background: retried(background) }
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
        let faulty: Arc<dyn Bucket> = Arc::new(Faulty::new(bare(&config).unwrap().bucket, &faults));
        let handles = decorate(faulty.into(), &config, metrics.clone());
        for (key, bucket) in [("docker/a", handles.bucket), ("docker/b", handles.background)] {
            faults.add(Fault::new(Operation::Put, Effect::Error(BucketErrorKind::Server)).on_key(key).times(1));
            bucket.put(&Key::new(key), PutBody::Bytes("x".into()), PutMode::IfAbsent).await.unwrap();
        }
        let count = |result| metrics.requests.with_label_values(&["put", result]).get();
        assert_eq!((count("server"), count("ok")), (2, 2));
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
