//! Whether lists say what is: while nothing fails and nobody pushes.

use super::client::{Scene, Server, read_tag};
use super::record::{Kind, Record};
use super::violations::Broken;
use super::world::World;
use crate::client::Reply;
use crate::proxy::Proxy;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a node may answer that it has to be asked again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads every tag of the epoch at every node, and compares with what the node lists. The reads are records too, which the
/// check of the tags judges.
pub async fn check(world: &World, servers: &[Server], epoch: u64, records: &[Record], proxy: Option<&Proxy>) {
    let mut pushed: BTreeMap<&str, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.kind == Kind::PushManifest) {
        if let (Some(tag), Some(digest)) = (&record.tag, &record.digest) {
            pushed.entry(&record.repository).or_default().entry(tag).or_default().insert(digest);
        }
    }
    let nothing = BTreeMap::new();
    for repository in Scene::all_repositories(epoch) {
        let tags = pushed.get(repository.as_str()).unwrap_or(&nothing);
        futures::future::join_all(servers.iter().map(|at| compare(world, at, &repository, tags, proxy))).await;
    }
    futures::future::join_all(servers.iter().map(|at| referrers(world, at, epoch))).await;
}

async fn compare(
    world: &World,
    at: &Server,
    repository: &str,
    tags: &BTreeMap<&str, BTreeSet<&str>>,
    proxy: Option<&Proxy>,
) {
    let patient = Server { name: at.name.clone(), registry: at.registry.patient(PATIENCE) };
    let Some(listed) = listed(world, &patient, repository).await else { return };
    let all: BTreeSet<&str> = tags.keys().copied().chain(listed.iter().map(String::as_str)).collect();
    for tag in all {
        let subject = format!("{repository}:{tag}");
        let reply = read_tag(world, "the check", &patient, repository, tag).await;
        match reply.map(|reply| reply.status) {
            Some(200) if !listed.contains(tag) => {
                let explanation = format!("{} answers 200 for it and does not list it", at.name);
                world.violations.add(Broken::UnlistedTag, &subject, &explanation);
            }
            Some(404) if listed.contains(tag) => {
                let digests = tags.get(tag).into_iter().flatten().copied().collect::<Vec<_>>();
                if !digests.iter().any(|digest| deleted_late(proxy, repository, digest)) {
                    let explanation =
                        format!("{} lists it and answers 404 for it; it was pushed to {}", at.name, digests.join(", "));
                    world.violations.add(Broken::GhostTag, &subject, &explanation);
                }
            }
            Some(200 | 404) => {}
            other => {
                let explanation = format!("{} answers {other:?} for the tag {subject} while nothing fails", at.name);
                world.violations.add(Broken::Unavailable, &format!("{subject} at {}", at.name), &explanation);
            }
        }
    }
}

/// Whether a request that removes the manifest's link arrived after its node had given up. S3 has no condition for it, so
/// a push that came in between cannot be protected.
fn deleted_late(proxy: Option<&Proxy>, repository: &str, digest: &str) -> bool {
    let hex = digest.rsplit(':').next().unwrap_or_default();
    let link = format!("{repository}/_manifests/revisions/sha256/{hex}/link");
    let late = proxy.map(Proxy::arrived_late).unwrap_or_default();
    late.iter().any(|(method, target)| *method == http::Method::DELETE && target.contains(&link))
}

async fn listed(world: &World, at: &Server, repository: &str) -> Option<BTreeSet<String>> {
    let path = format!("/v2/{repository}/tags/list");
    let reply = at.registry.again(|| at.registry.get(&path)).await;
    match reply {
        Ok(reply) if reply.status == 200 => Some(names(&reply)),
        // Nobody has pushed to it.
        Ok(reply) if reply.status == 404 => Some(BTreeSet::new()),
        other => {
            let told = other.map(|reply| reply.status);
            let explanation = format!("{} answers GET {path} while nothing fails: {told:?}", at.name);
            world.violations.add(Broken::Unavailable, &format!("{path} at {}", at.name), &explanation);
            None
        }
    }
}

fn names(reply: &Reply) -> BTreeSet<String> {
    let list = reply.json().unwrap_or_default();
    let names = list["tags"].as_array().into_iter().flatten();
    names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// Every referrer that must be whole is listed for its subject.
async fn referrers(world: &World, at: &Server, epoch: u64) {
    let whole = world.state().whole();
    for pushed in whole.iter().filter(|pushed| pushed.epoch == epoch) {
        let Some(subject) = pushed.subject else { continue };
        let path = format!("/v2/{}/referrers/{subject}", pushed.repository);
        let registry = at.registry.patient(PATIENCE);
        let reply = registry.again(|| registry.get(&path)).await;
        let body = reply.map(|reply| String::from_utf8_lossy(&reply.body).into_owned()).unwrap_or_default();
        if !body.contains(&pushed.image.digest.hex()) {
            let explanation = format!("{} answers GET {path} without it: {body}", at.name);
            let subject = format!("{}@{}", pushed.repository, pushed.image.digest);
            world.violations.add(Broken::Referrer, &subject, &explanation);
        }
    }
}
