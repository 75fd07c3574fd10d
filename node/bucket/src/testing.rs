//! What tests of other crates need of a bucket.

use crate::s3::S3;
use entrepot_config::BucketConfig;

/// Creates the S3 bucket of the configuration, on a runtime of its own, so that the caller need not be async.
///
/// # Panics
/// If the configuration names no S3 bucket, or the server refuses.
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends where its bucket cannot be created"
)]
pub fn create_s3_bucket(config: &entrepot_config::Bucket) {
    let BucketConfig::S3(s3) = &config.backend else { panic!("the configuration names no S3 bucket") };
    let s3 = S3::connect(config, s3).unwrap();
    let created = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(s3.create());
    });
    created.join().expect("the bucket is created");
}
