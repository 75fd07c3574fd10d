//! Checks, while nothing fails and no client pushes, that lists match what exists.

use super::client::{Scene, Server, read_tag};
use super::model::Model;
use super::record::{Kind, Record};
use super::violations::Broken;
use crate::client::Reply;
use crate::proxy::Proxy;
use futures::{StreamExt, stream};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a node may respond with a status that asks to retry.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Tags of a repository that are read from a node in parallel.
const AT_ONCE: usize = 4;
/// Reads of a tag that does not match the list, and the pause between them: together longer than a
/// node retries one request to the bucket.
const LOOKS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(1500);

/// Reads every tag of the epoch from every node, and compares it with the node's list. The reads
/// are records as well, which the check of the tags judges.
pub async fn check(model: &Model, servers: &[Server], epoch: u64, records: &[Record], proxy: Option<&Proxy>) {
    let mut pushed: BTreeMap<&str, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.kind == Kind::PushManifest) {
        if let (Some(tag), Some(digest)) = (&record.tag, &record.digest) {
            pushed.entry(&record.repository).or_default().entry(tag).or_default().insert(digest);
        }
    }
    let nothing = BTreeMap::new();
    for repository in Scene::all_repositories(epoch) {
        let tags = pushed.get(repository.as_str()).unwrap_or(&nothing);
        futures::future::join_all(servers.iter().map(|at| compare(model, at, &repository, tags, proxy))).await;
    }
    futures::future::join_all(servers.iter().map(|at| referrers(model, at, epoch))).await;
}

async fn compare(
    model: &Model,
    at: &Server,
    repository: &str,
    tags: &BTreeMap<&str, BTreeSet<&str>>,
    proxy: Option<&Proxy>,
) {
    let retrying = Server { name: at.name.clone(), registry: at.registry.retrying(TIMEOUT), disk: None };
    let Some(listed) = listed(model, &retrying, repository).await else { return };
    let all: BTreeSet<&str> = tags.keys().copied().chain(listed.iter().map(String::as_str)).collect();
    let (retrying, listed) = (&retrying, &listed);
    let judged = all.into_iter().map(|tag| {
        let digests = tags.get(tag).into_iter().flatten().copied().collect();
        judge(model, retrying, repository, tag, listed.contains(tag), digests, proxy)
    });
    let judged: Vec<_> = judged.collect();
    stream::iter(judged).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

/// Compares one tag with the list. `digests` are the digests that were pushed to it.
async fn judge(
    model: &Model,
    at: &Server,
    repository: &str,
    tag: &str,
    is_listed: bool,
    digests: Vec<&str>,
    proxy: Option<&Proxy>,
) {
    let mut state = tag_state(model, at, repository, tag, is_listed).await;
    // An operation that a client gave up may still take effect, and the list is older than the
    // response: so read again.
    for _ in 0..LOOKS {
        if matches!(state, TagState::Consistent) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
        let Some(listed) = listed(model, at, repository).await else { return };
        state = tag_state(model, at, repository, tag, listed.contains(tag)).await;
    }
    let (broken, problem) = match state {
        TagState::Consistent => return,
        TagState::Ghost if digests.iter().any(|digest| deleted_late(proxy, repository, digest)) => return,
        TagState::Ghost => (Broken::GhostTag, "lists it and responds with 404 for it".to_owned()),
        TagState::Unlisted => (Broken::UnlistedTag, "responds with 200 for it and does not list it".to_owned()),
        TagState::Unanswered(status) => {
            (Broken::Unavailable, format!("responds with {status:?} for it while nothing fails"))
        }
    };
    let explanation = format!("{} {problem}; it was pushed to {}", at.name, digests.join(", "));
    model.violations.add(broken, &format!("{repository}:{tag}"), &explanation);
}

/// The combination of a node's list and its response for one tag.
enum TagState {
    Consistent,
    Ghost,
    Unlisted,
    Unanswered(Option<u16>),
}

async fn tag_state(model: &Model, at: &Server, repository: &str, tag: &str, is_listed: bool) -> TagState {
    let reply = read_tag(model, "the check", at, repository, tag).await;
    match (reply.map(|reply| reply.status), is_listed) {
        (Some(200), true) | (Some(404), false) => TagState::Consistent,
        (Some(200), false) => TagState::Unlisted,
        (Some(404), true) => TagState::Ghost,
        (other, _) => TagState::Unanswered(other),
    }
}

/// Whether a request that deletes the manifest's link arrived after its node had given up. S3 has
/// no condition for it, so it can remove the link of a push in between.
fn deleted_late(proxy: Option<&Proxy>, repository: &str, digest: &str) -> bool {
    let hex = digest.rsplit(':').next().unwrap_or_default();
    let link = format!("{repository}/_manifests/revisions/sha256/{hex}/link");
    let late = proxy.map(Proxy::arrived_late).unwrap_or_default();
    late.iter().any(|(method, target)| *method == http::Method::DELETE && target.contains(&link))
}

async fn listed(model: &Model, at: &Server, repository: &str) -> Option<BTreeSet<String>> {
    let path = format!("/v2/{repository}/tags/list");
    let reply = at.registry.again(|| at.registry.get(&path)).await;
    match reply {
        Ok(reply) if reply.status == 200 => Some(names(&reply)),
        // No client has pushed to it.
        Ok(reply) if reply.status == 404 => Some(BTreeSet::new()),
        other => {
            let told = other.map(|reply| reply.status);
            let explanation = format!("{} responds to GET {path} with {told:?} while nothing fails", at.name);
            model.violations.add(Broken::Unavailable, &format!("{path} at {}", at.name), &explanation);
            None
        }
    }
}

fn names(reply: &Reply) -> BTreeSet<String> {
    let list = reply.json().unwrap_or_default();
    let names = list["tags"].as_array().into_iter().flatten();
    names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// Checks that every referrer that must be complete is listed for its subject.
async fn referrers(model: &Model, at: &Server, epoch: u64) {
    let whole = model.state().whole();
    for pushed in whole.iter().filter(|pushed| pushed.epoch == epoch) {
        let Some(subject) = pushed.subject else { continue };
        let path = format!("/v2/{}/referrers/{subject}", pushed.repository);
        let registry = at.registry.retrying(TIMEOUT);
        let reply = registry.again(|| registry.get(&path)).await;
        let body = reply.map(|reply| String::from_utf8_lossy(&reply.body).into_owned()).unwrap_or_default();
        if !body.contains(&pushed.image.digest.hex()) {
            let explanation = format!("{} responds to GET {path} without it: {body}", at.name);
            let subject = format!("{}@{}", pushed.repository, pushed.image.digest);
            model.violations.add(Broken::Referrer, &subject, &explanation);
        }
    }
}
