//! Checks, while nothing fails, that every image that must be complete is complete at every node.

use super::client::Server;
use super::model::{Model, Pushed};
use super::violations::Broken;
use crate::client::{Reply, empty};
use entrepot_oci::{Algorithm, Digest};
use futures::{StreamExt, stream};
use http::Method;
use std::collections::BTreeMap;
use std::time::Duration;

/// Images pulled in parallel.
const AT_ONCE: usize = 8;
/// Attempts after a response that ended early or asked to retry: a damaged copy in a store ends one
/// response early before it is repaired.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(500);
/// Time limit for one response while nothing fails.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Pulls every image that must be complete from every server. Returns their number.
pub async fn check(model: &Model, servers: &[Server], when: &str) -> usize {
    // One push of an image is enough to judge it by.
    let images: BTreeMap<_, _> = model
        .state()
        .whole()
        .into_iter()
        .map(|pushed| ((pushed.repository.clone(), pushed.image.digest.hex()), pushed))
        .collect();
    let pulls = images.values().flat_map(|pushed| servers.iter().map(move |at| (pushed, at)));
    let pulls: Vec<_> = pulls.map(|(pushed, at)| pull(model, at, pushed, when)).collect();
    stream::iter(pulls).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    images.len()
}

async fn pull(model: &Model, at: &Server, pushed: &Pushed, when: &str) {
    let (repository, image) = (&pushed.repository, &pushed.image);
    let manifest = (format!("/v2/{repository}/manifests/{}", image.digest), image.digest);
    let blobs = image.blobs().map(|blob| (format!("/v2/{repository}/blobs/{}", blob.digest), blob.digest));
    for (path, digest) in std::iter::once(manifest).chain(blobs) {
        if let Err(problem) = whole(model, at, &path, &digest).await {
            let acknowledged = pushed.acknowledged.unwrap_or_default();
            let explanation = format!(
                "{} failed GET {path} {when}: {problem}\nthe manifest {} was sent at {:.3} s and acknowledged at \
                 {:.3} s, and no client deleted anything of it since; now it is {:.3} s",
                at.name,
                image.digest,
                seconds(pushed.call),
                seconds(acknowledged),
                seconds(model.recorder.now()),
            );
            // The node is not part of the subject, so that an image that is broken at all nodes
            // counts as one violation.
            model.violations.add(Broken::Image, &format!("{repository}@{}", image.digest), &explanation);
        }
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// Pulls one object, with retries.
async fn whole(model: &Model, at: &Server, path: &str, digest: &Digest) -> Result<(), String> {
    let mut last = String::new();
    for _ in 0..TRIES {
        let accept = [("accept", "application/vnd.oci.image.manifest.v1+json, */*")];
        let answer = at.registry.send(Method::GET, path, &accept, empty());
        match tokio::time::timeout(TIMEOUT, answer).await {
            Ok(Ok(reply)) if reply.status == 200 => {
                super::client::verify(model, at, path, digest, &reply);
                let actual = Digest::of(Algorithm::Sha256, &reply.body);
                if actual == *digest {
                    return Ok(());
                }
                last = format!("200 with {} bytes whose digest is {actual}", reply.body.len());
            }
            Ok(Ok(reply)) if matches!(reply.status, 400..=499) && reply.status != 429 => return Err(told(&reply)),
            Ok(Ok(reply)) => last = told(&reply),
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => last = format!("no response within {TIMEOUT:?}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(format!("{last} (last of {TRIES} attempts)"))
}

fn told(reply: &Reply) -> String {
    format!("{} {}", reply.status, String::from_utf8_lossy(&reply.body))
}
