//! The CPU time of hashing, with which benchmarks explain what bounds a figure.

use anyhow::{Result, ensure};
use entrepot_e2e::content::Content;
use entrepot_oci::Algorithm;
use entrepot_oci::digest::Hasher;
use std::time::Instant;

/// Size in bytes of the blob that is hashed, and of the blobs that one node serves.
pub const BLOB: u64 = 256 << 20;

/// Time in seconds that one core takes to hash a blob with the hasher of a node.
///
/// # Errors
/// If the digest is wrong.
pub fn hash(blob: &Content) -> Result<f64> {
    let bytes = blob.bytes();
    let start = Instant::now();
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(&bytes);
    ensure!(hasher.finish() == blob.digest, "the hash of the blob is wrong");
    Ok(start.elapsed().as_secs_f64())
}
