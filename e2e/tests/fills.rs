//! One download from the bucket for any number of readers, which stream while it runs, in little
//! memory.

use entrepot_e2e::node::Plan;
use entrepot_e2e::proxy::{Fault, Proxy, Rule};
use entrepot_e2e::servers::Versitygw;
use entrepot_e2e::{Content, Node, disks, s3, wait};
use http::Method;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const READERS: usize = 64;
/// How many bytes of memory a node may take in addition to its memory at rest.
const MEMORY: u64 = 256 << 20;

/// Peak memory of the node since the peak was reset, minus `rest`, in bytes.
fn taken(node: &Node, rest: u64) -> u64 {
    node.peak_memory().unwrap().saturating_sub(rest)
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_readers_of_a_missing_blob_share_one_download() {
    let server = Versitygw::start().await.unwrap();
    let keys = TempDir::new().unwrap();
    let pusher = Plan::over(s3::node_bucket(&server.s3.endpoint, keys.path()).unwrap()).start().await.unwrap();
    let blob = Content::fresh(256 << 20);
    pusher.registry.push("fills/app", &blob).await.unwrap();

    let proxy = Proxy::start(&server.s3.endpoint).await.unwrap();
    let node = Plan::over(s3::node_bucket(&proxy.url, keys.path()).unwrap()).start().await.unwrap();
    // Each response of the bucket comes at 4 MiB/s: a range of 16 MiB takes four seconds, and the
    // whole blob at least that.
    proxy.fail(Rule::always("/blobs/", Fault::Slow(4 << 20)).of(Method::GET));
    let rest = node.memory().unwrap();
    node.forget_peak().unwrap();

    let start = Instant::now();
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (registry, digest) = (node.registry.clone(), blob.digest);
            tokio::spawn(async move { registry.pull("fills/app", &digest).await })
        })
        .collect();
    let running = || async { node.metrics().await.is_ok_and(|metrics| metrics.sum("fills_running", &[]) > 0.0) };
    wait::until("the download is running", Duration::from_secs(20), running).await.unwrap();
    let mut first_bytes = Vec::new();
    let mut fastest = Duration::MAX;
    for reader in readers {
        let pulled = reader.await.unwrap().unwrap();
        assert_eq!(pulled.bytes, blob.size);
        first_bytes.push(pulled.first_byte);
        fastest = fastest.min(pulled.whole);
    }
    let slowest_first = first_bytes.iter().max().unwrap();
    println!("{READERS} readers: first byte within {slowest_first:.1?}, all within {:.1?}", start.elapsed());
    // No reader finishes before the download does. So a reader that gets a byte before the first
    // reader finishes gets it during the download.
    assert!(
        *slowest_first < fastest,
        "one reader waited {slowest_first:?} for its first byte, another finished in {fastest:?}"
    );

    let metrics = node.metrics().await.unwrap();
    assert_eq!(metrics.sum("fills_total", &[]), 1.0);
    assert_eq!(metrics.sum("fills_total", &["result=\"stored\""]), 1.0);
    let read = metrics.sum("bucket_received_bytes_total", &[]);
    assert!(read < blob.size as f64 * 1.01, "{read} bytes were read from the bucket");
    let taken = taken(&node, rest);
    println!("memory: {} MiB at rest, {} MiB more at the peak", rest >> 20, taken >> 20);
    assert!(taken < MEMORY, "{taken} bytes of memory more than at rest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_four_gibibytes_needs_little_memory() {
    // On disk are the blob at the node, and its parts and their copy at the S3 server, which joins
    // them.
    disks::need(13 << 30).unwrap();
    let server = Versitygw::start().await.unwrap();
    let keys = TempDir::new().unwrap();
    let start = || Plan::over(s3::node_bucket(&server.s3.endpoint, keys.path()).unwrap()).start();
    let pusher = start().await.unwrap();
    let blob = Content::fresh(4 << 30);

    let rest = pusher.memory().unwrap();
    pusher.forget_peak().unwrap();
    let begun = Instant::now();
    pusher.registry.push("fills/large", &blob).await.unwrap();
    let more = taken(&pusher, rest);
    println!("pushing 4 GiB took {:.1?} and {} MiB more than at rest", begun.elapsed(), more >> 20);
    assert!(more < MEMORY, "{more} bytes of memory more than at rest");
    // Dropped with its store, to free the disk for the other node.
    drop(pusher);

    let puller = start().await.unwrap();
    let rest = puller.memory().unwrap();
    puller.forget_peak().unwrap();
    let begun = Instant::now();
    let pulled = puller.registry.pull("fills/large", &blob.digest).await.unwrap();
    assert_eq!(pulled.bytes, blob.size);
    let more = taken(&puller, rest);
    println!("pulling 4 GiB through another node took {:.1?} and {} MiB more", begun.elapsed(), more >> 20);
    assert!(more < MEMORY, "{more} bytes of memory more than at rest");
}
