//! The number of requests to an S3 server per operation: by the node's own metric, and by a proxy
//! in front of the server.
//!
//! The numbers are exact, because every further request makes the registry slower and more
//! expensive. A change that needs one has to change the number here.

use anyhow::Result;
use entrepot_e2e::node::Plan;
use entrepot_e2e::proxy::Proxy;
use entrepot_e2e::push::{IMAGE, Image};
use entrepot_e2e::servers::Versitygw;
use entrepot_e2e::{Content, Node, s3};
use std::collections::BTreeMap;
use tempfile::TempDir;

/// The range that a node requests before it knows a blob's size.
const FIRST_RANGE: u64 = 1 << 20;

struct Setting {
    node: Node,
    proxy: Proxy,
    keys: TempDir,
    _server: Versitygw,
}

impl Setting {
    async fn new() -> Setting {
        let server = Versitygw::start().await.unwrap();
        let proxy = Proxy::start(&server.s3.endpoint).await.unwrap();
        let keys = TempDir::new().unwrap();
        let bucket = s3::node_bucket(&proxy.url, keys.path()).unwrap();
        let node = Plan::over(bucket).start().await.unwrap();
        Setting { node, proxy, keys, _server: server }
    }

    /// Another node with the same bucket.
    async fn other(&self) -> Node {
        Plan::over(s3::node_bucket(&self.proxy.url, self.keys.path()).unwrap()).start().await.unwrap()
    }

    /// The requests that `action` causes at a node, by operation.
    async fn cost<F: Future<Output = Result<()>>>(&self, node: &Node, action: F) -> BTreeMap<String, u64> {
        let before = node.metrics().await.unwrap().bucket_requests();
        self.proxy.take_requests();
        action.await.unwrap();
        let seen = self.proxy.take_requests();
        assert!(
            seen.iter().all(|seen| !seen.headers.contains_key("x-amz-copy-source")),
            "the node made a server-side copy"
        );
        let after = node.metrics().await.unwrap().bucket_requests();
        let cost: BTreeMap<_, _> = after
            .into_iter()
            .map(|(operation, count)| (operation.clone(), count - before.get(&operation).unwrap_or(&0)))
            .filter(|(_, count)| *count > 0)
            .collect();
        assert_eq!(cost.values().sum::<u64>(), seen.len() as u64, "the node counted {cost:?}, the proxy saw {seen:#?}");
        cost
    }
}

fn requests<const N: usize>(expected: [(&str, u64); N]) -> BTreeMap<String, u64> {
    expected.into_iter().map(|(operation, count)| (operation.to_owned(), count)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_small_blob_costs_three_requests() {
    let setting = Setting::new().await;
    let (node, blob) = (&setting.node, Content::fresh(10_000));
    let cost = setting.cost(node, async { node.registry.push("counts/app", &blob).await.map(|_| ()) }).await;
    assert_eq!(cost, requests([("head", 1), ("put", 2)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_the_bucket_has_costs_three_requests() {
    let setting = Setting::new().await;
    let (node, blob) = (&setting.node, Content::fresh(10_000));
    node.registry.push("counts/first", &blob).await.unwrap();
    let cost = setting.cost(node, async { node.registry.push("counts/second", &blob).await.map(|_| ()) }).await;
    // Only the link is written. The data is checked again afterwards, because it may have been
    // removed before.
    assert_eq!(cost, requests([("head", 2), ("put", 1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_by_tag_costs_five_requests_and_one_or_two_for_each_reference() {
    let setting = Setting::new().await;
    let (node, image) = (&setting.node, Image::fresh(&[10_000, 20_000]));
    for blob in image.blobs() {
        node.registry.push("counts/app", blob).await.unwrap();
    }
    let put = async { node.registry.put_manifest("counts/app", "v1", IMAGE, &image.manifest).await?.expect(201) };
    let cost = setting.cost(node, async { put.await.map(|_| ()) }).await;
    // Written: the data, the revision link and the tag. Read: the tag before, the links of its
    // three blobs, and the revision link at the end. This node has just put the data of its blobs.
    assert_eq!(cost, requests([("get", 5), ("put", 3)]));

    // Another node also checks the data of each of the three blobs.
    let other = setting.other().await;
    let put = async { other.registry.put_manifest("counts/app", "v2", IMAGE, &image.manifest).await?.expect(201) };
    let cost = setting.cost(&other, async { put.await.map(|_| ()) }).await;
    assert_eq!(cost, requests([("get", 5), ("head", 3), ("put", 3)]));

    // The tag already points to it and is not written again.
    let put = async { other.registry.put_manifest("counts/app", "v2", IMAGE, &image.manifest).await?.expect(201) };
    let cost = setting.cost(&other, async { put.await.map(|_| ()) }).await;
    assert_eq!(cost, requests([("get", 5), ("head", 3), ("put", 2)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_a_blob_costs_two_requests_and_one_of_a_manifest_one() {
    let setting = Setting::new().await;
    let (node, image) = (&setting.node, Image::fresh(&[10_000]));
    node.registry.push_image("counts/app", "v1", &image).await.unwrap();
    let head = |path: String| async move { node.registry.head(&path).await?.expect(200).map(|_| ()) };
    let blob = format!("/v2/counts/app/blobs/{}", image.blobs().next().unwrap().digest);
    assert_eq!(setting.cost(node, head(blob)).await, requests([("get", 1), ("head", 1)]));
    let manifest = format!("/v2/counts/app/manifests/{}", image.digest);
    assert_eq!(setting.cost(node, head(manifest)).await, requests([("get", 1)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn pulling_a_stored_image_by_tag_costs_one_conditional_get() {
    let setting = Setting::new().await;
    let (node, image) = (&setting.node, Image::fresh(&[10_000, 20_000, 30_000]));
    node.registry.push_image("counts/app", "v1", &image).await.unwrap();
    setting.proxy.take_requests();
    let cost = setting.cost(node, node.registry.pull_image("counts/app", "v1", &image)).await;
    assert_eq!(cost, requests([("get", 1)]));
    let conditional = async {
        node.registry.pull_image("counts/app", "v1", &image).await.unwrap();
        let seen = setting.proxy.take_requests();
        assert_eq!(seen.len(), 1, "{seen:#?}");
        assert!(seen[0].headers.contains_key("if-none-match"), "{seen:#?}");
    };
    conditional.await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_blob_that_is_not_stored_costs_two_requests() {
    let setting = Setting::new().await;
    let (other, blob) = (setting.other().await, Content::fresh(10_000));
    setting.node.registry.push("counts/app", &blob).await.unwrap();
    let cost = setting.cost(&other, async { other.registry.pull("counts/app", &blob.digest).await.map(|_| ()) }).await;
    // The link and the data.
    assert_eq!(cost, requests([("get", 2)]));
    let again = setting.cost(&other, async { other.registry.pull("counts/app", &blob.digest).await.map(|_| ()) }).await;
    assert_eq!(again, requests([]), "a stored blob is served without the bucket");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_blob_that_is_not_stored_costs_its_link_and_ranges() {
    let setting = Setting::new().await;
    let (other, blob) = (setting.other().await, Content::fresh(50 << 20));
    setting.node.registry.push("counts/app", &blob).await.unwrap();
    let cost = setting.cost(&other, async { other.registry.pull("counts/app", &blob.digest).await.map(|_| ()) }).await;
    let others = (blob.size - FIRST_RANGE).div_ceil(other.plan.config.fetch.range_size.get());
    // The link and the ranges; the first range also gives the size of the blob.
    assert_eq!(cost, requests([("get", 1 + 1 + others)]));
}
