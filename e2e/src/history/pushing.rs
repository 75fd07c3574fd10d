//! How clients push: in all the ways there are, through one node or several.

use super::client::{Client, Server, Target};
use super::record::{Kind, Outcome};
use super::violations::Broken;
use super::world::Pushed;
use crate::Content;
use crate::client::{Reply, empty, full, location, with_digest};
use crate::push::{IMAGE, Image};
use entrepot_node::oci::Digest;
use http::Method;
use rand::Rng;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So often a chunk or the end of an upload is tried again.
const TRIES: usize = 3;
/// A push that takes longer was tried again: nodes wait for one answer of the bucket for 2 s.
const SLOW: Duration = Duration::from_millis(1900);

impl Client {
    /// Content of its own.
    pub fn fresh(&mut self) -> Content {
        let size = match self.random.random_range(0..100) {
            0..2 => 0,
            2..60 => self.random.random_range(1..64 << 10),
            60..90 => self.random.random_range(64 << 10..1 << 20),
            90..98 => self.random.random_range(1 << 20..4 << 20),
            // Sent to S3 in parts.
            _ => 6 << 20,
        };
        Content::new(self.random.random(), size)
    }

    /// Content of its own that costs little.
    pub fn small(&mut self) -> Content {
        let size = self.random.random_range(1..5000);
        Content::new(self.random.random(), size)
    }

    /// A layer that others may have pushed too, or deleted.
    fn layer(&mut self) -> Content {
        let choice = self.random.random_range(0..100);
        let shared = {
            let state = self.scene.world.state();
            let repositories = state.repositories();
            match choice {
                0..25 if !repositories.is_empty() => {
                    let name = &repositories[self.random.random_range(0..repositories.len())];
                    let blobs = state.blobs(name);
                    (!blobs.is_empty()).then(|| blobs[self.random.random_range(0..blobs.len())])
                }
                25..40 if !state.deleted().is_empty() => {
                    let deleted = state.deleted();
                    // The last ones are still in stores.
                    let recent = deleted.len().min(20);
                    Some(deleted[deleted.len() - 1 - self.random.random_range(0..recent)])
                }
                _ => None,
            }
        };
        shared.unwrap_or_else(|| self.fresh())
    }

    /// Pushes an image under a tag that others push to.
    pub async fn push_image(&mut self, repository: &str, tag: &str) {
        if self.scene.move_back && self.random.random_bool(0.3) {
            return self.push_known_image(repository, tag).await;
        }
        let layers = (0..self.random.random_range(1..=3)).map(|_| self.layer()).collect();
        let config = self.small();
        let wanted = self.scene.referrers && self.random.random_bool(0.1);
        let subject = if wanted { self.some_whole_image(repository) } else { None };
        let image = Arc::new(Image::of(config, layers, subject.as_deref()));
        let near = self.any_node();
        let since = self.world().recorder.now();
        // A client keeps to one node, or a Service balances each request.
        let balanced = self.random.random_bool(0.4);
        let known: Vec<_> = image.blobs().copied().collect();
        for blob in known {
            let at = if balanced { self.any_node() } else { near.clone() };
            if !self.bring_blob(&at, repository, blob).await {
                return;
            }
        }
        let at = if balanced { self.any_node() } else { near };
        let subject = subject.map(|subject| subject.digest);
        let start = Instant::now();
        self.put_manifest(&at, repository, tag, &image, subject, Some(since)).await;
        if start.elapsed() > SLOW {
            self.push_after_a_slow_push(repository, tag).await;
        }
        if self.random.random_bool(0.3) {
            let own = self.own_tag();
            self.put_manifest(&self.any_node(), repository, &own, &image, subject, Some(since)).await;
        }
    }

    /// A push that took long was sent to the bucket more than once. What it sent first may arrive after the next push.
    async fn push_after_a_slow_push(&mut self, repository: &str, tag: &str) {
        let (at, _) = self.two_nodes();
        let (config, layer) = (self.small(), self.small());
        if self.push_blob(&at, repository, config).await && self.push_blob(&at, repository, layer).await {
            let image = Arc::new(Image::of(config, vec![layer], None));
            self.put_manifest(&at, repository, tag, &image, None, None).await;
            self.read_tag(&self.any_node(), repository, tag).await;
        }
    }

    /// Moves a tag to an image that the repository has.
    async fn push_known_image(&mut self, repository: &str, tag: &str) {
        if let Some(image) = self.some_whole_image(repository) {
            self.put_manifest(&self.any_node(), repository, tag, &image, None, None).await;
        }
    }

    /// An image that must be whole in the repository.
    fn some_whole_image(&mut self, repository: &str) -> Option<Arc<Image>> {
        let whole: Vec<_> =
            self.world().state().whole().into_iter().filter(|pushed| pushed.repository == repository).collect();
        if whole.is_empty() {
            return None;
        }
        Some(whole[self.random.random_range(0..whole.len())].image.clone())
    }

    /// Makes sure that the repository has a blob, as clients do: it asks, mounts or pushes. Whether it was told so.
    pub async fn bring_blob(&mut self, at: &Server, repository: &str, blob: Content) -> bool {
        if self.random.random_bool(0.6) && self.head_blob(at, repository, blob).await {
            return true;
        }
        let source = {
            let state = self.scene.world.state();
            let has = |name: &String| name != repository && state.blobs(name).contains(&blob);
            state.repositories().into_iter().find(has)
        };
        if let Some(source) = source
            && self.random.random_bool(0.7)
            && self.mount_blob(at, repository, &source, blob).await
        {
            return true;
        }
        self.push_blob(at, repository, blob).await
    }

    /// Whether the repository has the blob.
    pub async fn head_blob(&self, at: &Server, repository: &str, blob: Content) -> bool {
        let (path, call) = (format!("/v2/{repository}/blobs/{}", blob.digest), self.world().recorder.now());
        let reply = self.ask(at.registry.head(&path)).await;
        self.note(
            at,
            &Target { kind: Kind::HeadBlob, repository, tag: None, digest: Some(blob.digest) },
            call,
            reply.as_ref(),
        );
        let Some(reply) = reply.filter(|reply| reply.status == 200) else { return false };
        if reply.header("content-length") != Some(blob.size.to_string().as_str()) {
            let said = reply.header("content-length");
            let explanation = format!("{} answered HEAD {path} with the length {said:?}, not {}", at.name, blob.size);
            self.world().violations.add(Broken::Header, &format!("{path} at {}", at.name), &explanation);
        }
        true
    }

    /// Asks for a blob of another repository. Whether it was mounted.
    pub async fn mount_blob(&self, at: &Server, repository: &str, source: &str, blob: Content) -> bool {
        let path = format!("/v2/{repository}/blobs/uploads/?mount={}&from={source}", blob.digest);
        let call = self.world().recorder.now();
        let reply = self.ask(at.registry.send(Method::POST, &path, &[], empty())).await;
        self.note(
            at,
            &Target { kind: Kind::MountBlob, repository, tag: None, digest: Some(blob.digest) },
            call,
            reply.as_ref(),
        );
        match reply {
            Some(reply) if reply.status == 201 => {
                self.world().state().has(repository, blob);
                true
            }
            Some(reply) if reply.status == 202 => {
                // The source has it no more; the client sends it, as it was offered.
                let Ok(session) = location(&reply) else { return false };
                let call = self.world().recorder.now();
                let path = with_digest(&session, &blob.digest);
                let length = blob.size.to_string();
                let headers = [("content-length", length.as_str())];
                let reply = self.ask(at.registry.send(Method::PUT, &path, &headers, full(blob.bytes()))).await;
                self.note_blob(at, repository, blob, call, reply.as_ref())
            }
            _ => false,
        }
    }

    /// Pushes a blob in one of the ways there are. Whether it was acknowledged.
    pub async fn push_blob(&mut self, at: &Server, repository: &str, blob: Content) -> bool {
        let call = self.world().recorder.now();
        let reply = match self.random.random_range(0..4) {
            0 => self.ask(at.registry.try_push(repository, &blob)).await,
            1 => {
                let path = format!("/v2/{repository}/blobs/uploads/?digest={}", blob.digest);
                let length = blob.size.to_string();
                let headers = [("content-type", "application/octet-stream"), ("content-length", length.as_str())];
                self.ask(at.registry.send(Method::POST, &path, &headers, full(blob.bytes()))).await
            }
            _ => self.push_in_chunks(at, repository, blob).await,
        };
        self.note_blob(at, repository, blob, call, reply.as_ref())
    }

    fn note_blob(&self, at: &Server, repository: &str, blob: Content, call: u64, reply: Option<&Reply>) -> bool {
        let target = Target { kind: Kind::PushBlob, repository, tag: None, digest: Some(blob.digest) };
        // A session that was opened is no blob yet.
        let reply = reply.filter(|reply| reply.status != 202);
        let done = self.note(at, &target, call, reply) == Outcome::Done;
        if done {
            self.world().state().has(repository, blob);
        }
        done
    }

    /// Each chunk may go to another node, and what fails is resumed where the node says that the upload ends.
    async fn push_in_chunks(&mut self, at: &Server, repository: &str, blob: Content) -> Option<Reply> {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let opened = self.ask(at.registry.send(Method::POST, &path, &[], empty())).await?;
        if opened.status != 202 {
            return Some(opened);
        }
        let mut session = location(&opened).ok()?;
        let chunk = (blob.size / self.random.random_range(1..=4)).max(1000);
        let hops = self.random.random_bool(0.7);
        let (mut sent, mut failures) = (0, 0);
        while sent < blob.size {
            let to = if hops { self.any_node() } else { at.clone() };
            let end = blob.size.min(sent + chunk);
            let reply = self.ask(to.registry.append(&session, &blob, sent, end)).await;
            match reply {
                Some(reply) if reply.status == 202 => {
                    session = location(&reply).ok()?;
                    sent = end;
                }
                _ => {
                    failures += 1;
                    if failures > TRIES {
                        return None;
                    }
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    if let Some(status) = self.ask(to.registry.get(&session)).await {
                        if status.status == 404 {
                            return Some(status);
                        }
                        let range = status.header("range").and_then(|range| range.strip_prefix("0-"));
                        let last: Option<u64> = range.and_then(|last| last.parse().ok());
                        // An empty session says 0-0 too.
                        sent = last.map_or(sent, |last| if last == 0 { 0 } else { last + 1 });
                    }
                }
            }
            // A pause in which a node can be killed under the upload.
            if self.random.random_bool(0.1) {
                tokio::time::sleep(Duration::from_millis(self.random.random_range(0..2000))).await;
            }
        }
        let mut reply = None;
        for _ in 0..TRIES {
            let to = if hops { self.any_node() } else { at.clone() };
            reply = self.ask(to.registry.finish(&session, &blob.digest)).await;
            if reply.as_ref().is_some_and(|reply| reply.status < 500) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        reply
    }

    /// Puts a manifest under a tag. `since` is when the first blob of the image was asked about, if the client was told
    /// of all of them that the repository has them.
    pub async fn put_manifest(
        &self,
        at: &Server,
        repository: &str,
        tag: &str,
        image: &Arc<Image>,
        subject: Option<Digest>,
        since: Option<u64>,
    ) -> Outcome {
        let call = self.world().recorder.now();
        let attempt = Pushed {
            repository: repository.to_owned(),
            image: image.clone(),
            subject,
            call,
            acknowledged: None,
            epoch: self.scene.epoch,
        };
        let place = self.world().state().push(attempt);
        let reply = self.ask(at.registry.put_manifest(repository, tag, IMAGE, &image.manifest)).await;
        let target = Target { kind: Kind::PushManifest, repository, tag: Some(tag), digest: Some(image.digest) };
        let outcome = self.note(at, &target, call, reply.as_ref());
        if outcome == Outcome::Done {
            let now = self.world().recorder.now();
            self.world().state().acknowledge(place, now);
        }
        if let (Some(reply), Some(since)) = (reply, since) {
            self.judge_refusal(at, repository, image, since, &reply);
        }
        outcome
    }

    /// Blobs that were acknowledged and that nobody deleted make a manifest that is taken, now or later.
    fn judge_refusal(&self, at: &Server, repository: &str, image: &Image, since: u64, reply: &Reply) {
        if reply.code().as_deref() != Some("MANIFEST_BLOB_UNKNOWN") || self.scene.blobs_may_be_lost {
            return;
        }
        let state = self.world().state();
        let untouched = image.blobs().all(|blob| state.untouched_since(repository, &blob.digest, since));
        drop(state);
        if untouched {
            let explanation = format!(
                "{} answered the manifest {} with {}: {}\nits blobs were acknowledged after {:.3} s, and nobody deleted one",
                at.name,
                image.digest,
                reply.status,
                String::from_utf8_lossy(&reply.body),
                since as f64 / 1e9,
            );
            self.world().violations.add(Broken::RefusedBlobs, &format!("{repository}@{}", image.digest), &explanation);
        }
    }

    /// Opens a session, sends something and cancels it, or leaves it to expire.
    pub async fn give_up_an_upload(&mut self, repository: &str) {
        let (at, blob) = (self.any_node(), self.small());
        let path = format!("/v2/{repository}/blobs/uploads/");
        let opened = self.ask(at.registry.send(Method::POST, &path, &[], empty())).await;
        let Some(opened) = opened.filter(|reply| reply.status == 202) else { return };
        let Ok(session) = location(&opened) else { return };
        let appended = self.ask(at.registry.append(&session, &blob, 0, blob.size)).await;
        let session = appended.and_then(|reply| location(&reply).ok()).unwrap_or(session);
        if self.random.random_bool(0.5) {
            return;
        }
        let call = self.world().recorder.now();
        let cancelled = self.ask(self.any_node().registry.delete(&session)).await;
        let target = Target { kind: Kind::CancelUpload, repository, tag: None, digest: None };
        if self.note(&at, &target, call, cancelled.as_ref()) == Outcome::Done
            && let Some(reply) = self.ask(at.registry.get(&session)).await
            && matches!(reply.status, 200..300)
        {
            let explanation = format!("it was cancelled, and {} answers {} for it", at.name, reply.status);
            self.world().violations.add(Broken::Leak, &format!("the upload session {session}"), &explanation);
        }
    }
}
