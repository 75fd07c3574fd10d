//! Whether every image that must be whole is whole at every node, while nothing fails.

use super::client::Server;
use super::violations::Broken;
use super::world::{Pushed, World};
use crate::client::{Reply, empty};
use entrepot_node::oci::{Algorithm, Digest};
use futures::{StreamExt, stream};
use http::Method;
use std::collections::BTreeMap;
use std::time::Duration;

/// Images pulled at once.
const AT_ONCE: usize = 8;
/// So often an answer that ended short, or one that says to come back, is tried again: a stored copy that is damaged ends
/// an answer short before it is repaired.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(500);
/// How long one answer may take while nothing fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pulls every image that must be whole from every server, and returns how many.
pub async fn check(world: &World, servers: &[Server], when: &str) -> usize {
    // One attempt to push an image is enough to judge it by.
    let images: BTreeMap<_, _> = world
        .state()
        .whole()
        .into_iter()
        .map(|pushed| ((pushed.repository.clone(), pushed.image.digest.hex()), pushed))
        .collect();
    let pulls = images.values().flat_map(|pushed| servers.iter().map(move |at| (pushed, at)));
    let pulls: Vec<_> = pulls.map(|(pushed, at)| pull(world, at, pushed, when)).collect();
    stream::iter(pulls).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
    images.len()
}

async fn pull(world: &World, at: &Server, pushed: &Pushed, when: &str) {
    let (repository, image) = (&pushed.repository, &pushed.image);
    let manifest = (format!("/v2/{repository}/manifests/{}", image.digest), image.digest);
    let blobs = image.blobs().map(|blob| (format!("/v2/{repository}/blobs/{}", blob.digest), blob.digest));
    for (path, digest) in std::iter::once(manifest).chain(blobs) {
        if let Err(problem) = whole(world, at, &path, &digest).await {
            let acknowledged = pushed.acknowledged.unwrap_or_default();
            let explanation = format!(
                "{} answers GET {path} {when}: {problem}\nthe manifest {} was sent at {:.3} s and acknowledged at {:.3} s, \
                 and nobody deleted anything of it since; it is {:.3} s now",
                at.name,
                image.digest,
                seconds(pushed.call),
                seconds(acknowledged),
                seconds(world.recorder.now()),
            );
            // The node is not part of the subject: an image that is broken at all of them is one violation.
            world.violations.add(Broken::Image, &format!("{repository}@{}", image.digest), &explanation);
        }
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// Pulls one thing, again when the answer was short.
async fn whole(world: &World, at: &Server, path: &str, digest: &Digest) -> Result<(), String> {
    let mut last = String::new();
    for _ in 0..TRIES {
        let accept = [("accept", "application/vnd.oci.image.manifest.v1+json, */*")];
        let answer = at.registry.send(Method::GET, path, &accept, empty());
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(reply)) if reply.status == 200 => {
                super::client::verify(world, at, path, digest, &reply);
                let actual = Digest::of(Algorithm::Sha256, &reply.body);
                if actual == *digest {
                    return Ok(());
                }
                last = format!("200 with {} bytes of the digest {actual}", reply.body.len());
            }
            Ok(Ok(reply)) if matches!(reply.status, 400..=499) && reply.status != 429 => return Err(told(&reply)),
            Ok(Ok(reply)) => last = told(&reply),
            Ok(Err(error)) => last = format!("{error:#}"),
            Err(_) => last = format!("no answer within {PATIENCE:?}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(format!("{last} (the last of {TRIES} tries)"))
}

fn told(reply: &Reply) -> String {
    format!("{} {}", reply.status, String::from_utf8_lossy(&reply.body))
}
