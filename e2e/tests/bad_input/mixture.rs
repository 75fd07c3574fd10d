//! Random requests of valid, nearly valid and invalid parts.

use super::Setting;
use anyhow::{Result, ensure};
use entrepot_e2e::client::{empty, streamed};
use entrepot_e2e::push::IMAGE;
use entrepot_e2e::{Content, Registry};
use http::Method;
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn no_mixture_of_valid_and_invalid_parts_makes_the_node_fail() {
    let mut setting = Setting::new().await;
    let registry = setting.node.registry.clone();
    let blob = Content::new(5, 5000);
    registry.push("a/b", &blob).await.unwrap();
    let seed = 20_240_601;
    let workers = (0..4).map(|worker| {
        let (registry, mut random) = (registry.clone(), SmallRng::seed_from_u64(seed + worker));
        tokio::spawn(async move {
            let start = Instant::now();
            let mut sent = 0;
            while start.elapsed() < Duration::from_secs(30) {
                attempt(&registry, &mut random, &blob).await.unwrap();
                sent += 1;
            }
            sent
        })
    });
    let sent: Vec<u32> = futures::future::try_join_all(workers).await.unwrap();
    println!("{} random requests, seed {seed}", sent.iter().sum::<u32>());
    setting.assert_unharmed().await;
}

async fn attempt(registry: &Registry, random: &mut SmallRng, blob: &Content) -> Result<()> {
    let digest = blob.digest.to_string();
    let name = *["a/b", "a", "A", "_", "a//b", "..%2f"].choose(random).unwrap_or(&"a");
    let digests = [digest.as_str(), &digest[..20], "sha256:", "sha512:00", "latest", "a b", "%2e%2e"];
    let reference = digests.choose(random).copied().unwrap_or("x").replace(' ', "%20");
    let session = "local.0f8fad5b-d9cb-469f-a165-70867728950e";
    let path = match random.random_range(0..9) {
        0 => format!("/v2/{name}/blobs/{reference}"),
        1 => format!("/v2/{name}/manifests/{reference}"),
        2 => format!("/v2/{name}/blobs/uploads/?digest={reference}"),
        3 => format!("/v2/{name}/blobs/uploads/?mount={reference}&from={name}"),
        4 => format!("/v2/{name}/blobs/uploads/{session}?digest={reference}"),
        5 => format!("/v2/{name}/tags/list?n={}&last={reference}", random.random::<i16>()),
        6 => format!("/v2/{name}/referrers/{reference}?artifactType={reference}"),
        7 => format!("/v2/_catalog?n={}", random.random::<i64>()),
        _ => registry.open_session("a/b").await.unwrap_or_default(),
    };
    let methods =
        [Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::PATCH, Method::DELETE, Method::OPTIONS];
    let method = methods.choose(random).cloned().unwrap_or(Method::GET);
    // Deleting the blob would make the rest of the run less meaningful.
    if method == Method::DELETE && path.contains(&digest) {
        return Ok(());
    }
    let range = format!("{}-{}", random.random::<i16>(), random.random::<u32>());
    let bytes = format!("bytes={range}");
    let headers = [("content-range", range.as_str()), ("range", bytes.as_str()), ("content-type", IMAGE)];
    let body = blob.stream(0..random.random_range(0..5000));
    let body = if matches!(method, Method::GET | Method::HEAD) { empty() } else { streamed(body) };
    let shown = format!("{method} {path} {range}");
    // A rejected request gets a response as well, whether its body was read or not.
    let reply = registry.send(method, &path, &headers[..random.random_range(0..=3)], body).await?;
    ensure!(reply.status < 500, "{shown}: {reply:?}");
    Ok(())
}
