//! A client: sends one request at a time, chosen by its random numbers, and records the responses.

use super::model::Model;
use super::record::{Kind, Outcome, Record};
use super::violations::Broken;
use crate::Registry;
use crate::client::Reply;
use anyhow::Result;
use entrepot_oci::{Algorithm, Digest};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Time after which a client gives up. Longer than a node retries one request to the bucket; a push
/// makes several.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Number of tags per repository to which all clients push.
const SHARED_TAGS: usize = 2;

/// A registry with its name.
#[derive(Clone)]
pub struct Server {
    pub name: String,
    pub registry: Registry,
    /// A node's own disk; `None` for other servers.
    pub disk: Option<Disk>,
}

/// Where a node keeps its files.
#[derive(Clone)]
pub struct Disk {
    /// The place of the node among the nodes.
    pub node: usize,
    pub store: PathBuf,
}

/// What the clients of an epoch share.
pub struct Scene {
    pub model: Arc<Model>,
    pub nodes: Vec<Server>,
    pub epoch: u64,
    /// Whether acknowledged blobs may be lost, because a store was deleted under WriteBack.
    pub blobs_may_be_lost: bool,
    /// Whether clients push earlier manifests again.
    pub move_back: bool,
    /// Whether images may have a subject: Distribution keeps no list of referrers.
    pub referrers: bool,
    pub stop: AtomicBool,
}

impl Scene {
    /// The repositories of the epoch. Clients delete random manifests and blobs in the last one.
    pub fn repositories(epoch: u64) -> [String; 3] {
        ["a", "b", "churned"].map(|name| format!("history/{epoch}/{name}"))
    }

    /// The repository into which blobs of the last one are mounted.
    pub fn mounting(epoch: u64) -> String {
        format!("history/{epoch}/mounted")
    }

    /// The repository that only Distribution pushes to and deletes from.
    pub fn of_distribution(epoch: u64) -> String {
        format!("history/{epoch}/distribution")
    }

    /// All repositories of the epoch.
    pub fn all_repositories(epoch: u64) -> Vec<String> {
        let mut all = Scene::repositories(epoch).to_vec();
        all.extend([Scene::mounting(epoch), Scene::of_distribution(epoch)]);
        all
    }
}

/// One client.
pub struct Client {
    pub scene: Arc<Scene>,
    pub name: String,
    pub random: SmallRng,
    /// Random numbers for the choice of nodes; apart, because nodes are chosen while the client is
    /// borrowed.
    nodes: Mutex<SmallRng>,
    /// Number of tags that only this client has used.
    own_tags: u64,
}

/// The object of an operation.
pub struct Target<'a> {
    pub kind: Kind,
    pub repository: &'a str,
    pub tag: Option<&'a str>,
    pub digest: Option<Digest>,
}

impl Client {
    pub fn new(scene: Arc<Scene>, name: String, mut random: SmallRng) -> Client {
        let nodes = Mutex::new(SmallRng::from_rng(&mut random));
        Client { scene, name, random, nodes, own_tags: 0 }
    }

    /// A second client of the same scene, for requests that run at the same time as those of this
    /// one.
    #[must_use]
    pub fn twin(&mut self) -> Client {
        Client::new(self.scene.clone(), format!("{}'", self.name), SmallRng::from_rng(&mut self.random))
    }

    /// Sends requests until the scene ends.
    pub async fn run(mut self) {
        while !self.scene.stop.load(Ordering::SeqCst) {
            self.act().await;
            let pause = self.random.random_range(0..40);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// The same at Distribution, in its own repository.
    pub async fn run_at_distribution(mut self) {
        let repository = Scene::of_distribution(self.scene.epoch);
        while !self.scene.stop.load(Ordering::SeqCst) {
            match self.random.random_range(0..10) {
                0..5 => self.push_image(&repository, "t0").await,
                5..8 => self.pull_some_image().await,
                8 => self.delete_some_manifest(&repository).await,
                _ => self.read_tag(&self.any_node(), &repository, "t0").await,
            }
            let pause = self.random.random_range(50..400);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    async fn act(&mut self) {
        let repositories = Scene::repositories(self.scene.epoch);
        let repository = repositories[self.random.random_range(0..repositories.len())].clone();
        let [.., churned] = repositories;
        let tag = format!("t{}", self.random.random_range(0..SHARED_TAGS));
        match self.random.random_range(0..100) {
            0..26 => self.push_image(&repository, &tag).await,
            26..28 => self.damage_an_open_upload(&repository).await,
            28..48 => self.read_tag(&self.any_node(), &repository, &tag).await,
            48..56 => self.pull_some_image().await,
            56..60 => self.pull_some_range().await,
            60..64 => self.list_tags(&repository).await,
            64..69 => self.delete_tag(&self.any_node(), &repository, &tag).await,
            69..73 => self.delete_some_manifest(&churned).await,
            73..77 => self.delete_some_blob(&churned).await,
            77..80 => self.give_up_an_upload(&repository).await,
            80..85 => self.clean_up_beside_pushes(&churned).await,
            85..90 => self.push_beside_deletion(&churned).await,
            90..94 => self.delete_a_tag_beside_a_push(&repository).await,
            94..98 => self.push_what_was_deleted_elsewhere(&churned).await,
            _ => self.mount_what_was_deleted_elsewhere(&churned).await,
        }
    }

    pub fn model(&self) -> &Model {
        &self.scene.model
    }

    pub fn any_node(&self) -> Server {
        let mut random = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        self.scene.nodes[random.random_range(0..self.scene.nodes.len())].clone()
    }

    /// Two different nodes.
    pub fn two_nodes(&mut self) -> (Server, Server) {
        let count = self.scene.nodes.len();
        let first = self.random.random_range(0..count);
        let second = (first + self.random.random_range(1..count)) % count;
        (self.scene.nodes[first].clone(), self.scene.nodes[second].clone())
    }

    /// A tag to which no other client pushes.
    pub fn own_tag(&mut self) -> String {
        self.own_tags += 1;
        format!("{}-{}", self.name, self.own_tags)
    }

    /// The response, if it is complete and in time.
    pub async fn ask(&self, answer: impl Future<Output = Result<Reply>>) -> Option<Reply> {
        tokio::time::timeout(TIMEOUT, answer).await.ok()?.ok()
    }

    /// Records the outcome of an operation that was sent at `call`.
    pub fn note(&self, at: &Server, target: &Target<'_>, call: u64, reply: Option<&Reply>) -> Outcome {
        note(self.model(), &self.name, at, target, call, reply)
    }

    /// Adds a violation if a complete response has bytes that do not match the digest.
    pub fn verify(&self, at: &Server, path: &str, digest: &Digest, reply: &Reply) {
        verify(self.model(), at, path, digest, reply);
    }
}

/// Records the outcome of an operation that was sent at `call`.
pub fn note(
    model: &Model,
    client: &str,
    at: &Server,
    target: &Target<'_>,
    call: u64,
    reply: Option<&Reply>,
) -> Outcome {
    let status = reply.map(|reply| reply.status);
    let outcome = Outcome::of(status);
    model.recorder.add(Record {
        id: 0,
        client: client.to_owned(),
        at: at.name.clone(),
        kind: target.kind,
        repository: target.repository.to_owned(),
        tag: target.tag.map(str::to_owned),
        digest: target.digest.map(|digest| digest.to_string()),
        call,
        returned: (outcome != Outcome::Unknown).then(|| model.recorder.now()),
        status,
        outcome,
        stale: reply.is_some_and(|reply| reply.header("warning").is_some()),
    });
    outcome
}

/// Adds a violation if a complete response has bytes that do not match the digest.
pub fn verify(model: &Model, at: &Server, path: &str, digest: &Digest, reply: &Reply) {
    if reply.status != 200 {
        return;
    }
    let actual = Digest::of(digest.algorithm(), &reply.body);
    if actual != *digest {
        let explanation = format!(
            "{} responded to GET {path} with 200 and {} bytes whose digest is {actual}",
            at.name,
            reply.body.len()
        );
        model.violations.add(Broken::Bytes, &format!("{} at {}", digest, at.name), &explanation);
    }
}

/// Reads a tag and records the manifest that it names.
pub async fn read_tag(model: &Model, client: &str, at: &Server, repository: &str, tag: &str) -> Option<Reply> {
    let call = model.recorder.now();
    let reply = tokio::time::timeout(TIMEOUT, at.registry.manifest(repository, tag)).await.ok().and_then(Result::ok);
    let found = reply.as_ref().filter(|reply| reply.status == 200);
    let digest = found.map(|reply| Digest::of(Algorithm::Sha256, &reply.body));
    note(model, client, at, &Target { kind: Kind::ReadTag, repository, tag: Some(tag), digest }, call, reply.as_ref());
    if let Some((reply, digest)) = found.zip(digest) {
        let path = format!("/v2/{repository}/manifests/{tag}");
        if reply.header("docker-content-digest") != Some(digest.to_string().as_str()) {
            let said = reply.header("docker-content-digest");
            let explanation =
                format!("{} responded to GET {path} with the digest {said:?} and content of {digest}", at.name);
            model.violations.add(Broken::Header, &format!("{path} at {}", at.name), &explanation);
        }
        if model.state().manifest(&digest).is_none() {
            let explanation =
                format!("{} responded to GET {path} with content that no client pushed: {digest}", at.name);
            model.violations.add(Broken::Bytes, &format!("{path} at {}", at.name), &explanation);
        }
    }
    reply
}
