//! How clients push images, through one node or several.

use super::client::{Client, Server, Target};
use super::model::Pushed;
use super::record::{Kind, Outcome};
use super::violations::Broken;
use crate::Content;
use crate::client::Reply;
use crate::push::{IMAGE, Image};
use entrepot_oci::Digest;
use rand::Rng;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A push that takes longer than this was retried: nodes wait for one response of the bucket for 2
/// s.
const SLOW: Duration = Duration::from_millis(1900);

impl Client {
    /// New content of this client.
    pub fn fresh(&mut self) -> Content {
        let size = match self.random.random_range(0..100) {
            0..2 => 0,
            2..60 => self.random.random_range(1..64 << 10),
            60..90 => self.random.random_range(64 << 10..1 << 20),
            90..98 => self.random.random_range(1 << 20..4 << 20),
            // Large enough to be sent to S3 in parts.
            _ => 6 << 20,
        };
        Content::new(self.random.random(), size)
    }

    /// New small content of this client.
    pub fn small(&mut self) -> Content {
        let size = self.random.random_range(1..5000);
        Content::new(self.random.random(), size)
    }

    /// A layer that other clients may also have pushed, or deleted.
    fn layer(&mut self) -> Content {
        let choice = self.random.random_range(0..100);
        let shared = {
            let state = self.scene.model.state();
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

    /// Pushes an image under a tag to which other clients push as well.
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
        let since = self.model().recorder.now();
        // Some clients keep to one node; for others a Service balances each request.
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

    /// A slow push was sent to the bucket more than once. Its first request may arrive after the
    /// next push.
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

    /// An image that must be complete in the repository.
    fn some_whole_image(&mut self, repository: &str) -> Option<Arc<Image>> {
        let whole: Vec<_> =
            self.model().state().whole().into_iter().filter(|pushed| pushed.repository == repository).collect();
        if whole.is_empty() {
            return None;
        }
        Some(whole[self.random.random_range(0..whole.len())].image.clone())
    }

    /// Puts a manifest under a tag. `since` is the time of the first request about a blob of the
    /// image, if the repository had all blobs according to the responses.
    pub async fn put_manifest(
        &self,
        at: &Server,
        repository: &str,
        tag: &str,
        image: &Arc<Image>,
        subject: Option<Digest>,
        since: Option<u64>,
    ) -> Outcome {
        let call = self.model().recorder.now();
        let attempt = Pushed {
            repository: repository.to_owned(),
            image: image.clone(),
            subject,
            call,
            acknowledged: None,
            epoch: self.scene.epoch,
        };
        let place = self.model().state().push(attempt);
        let reply = self.ask(at.registry.put_manifest(repository, tag, IMAGE, &image.manifest)).await;
        let target = Target { kind: Kind::PushManifest, repository, tag: Some(tag), digest: Some(image.digest) };
        let outcome = self.note(at, &target, call, reply.as_ref());
        if outcome == Outcome::Done {
            let now = self.model().recorder.now();
            self.model().state().acknowledge(place, now);
        }
        if let (Some(reply), Some(since)) = (reply, since) {
            self.judge_refusal(at, repository, image, since, &reply);
        }
        outcome
    }

    /// The manifest of blobs that were acknowledged and not deleted must be accepted, now or later.
    fn judge_refusal(&self, at: &Server, repository: &str, image: &Image, since: u64, reply: &Reply) {
        if reply.code().as_deref() != Some("MANIFEST_BLOB_UNKNOWN") || self.scene.blobs_may_be_lost {
            return;
        }
        let state = self.model().state();
        let untouched = image.blobs().all(|blob| state.untouched_since(repository, &blob.digest, since));
        drop(state);
        if untouched {
            let explanation = format!(
                "{} responded to the manifest {} with {}: {}\n\
                 its blobs were acknowledged after {:.3} s, and no client deleted one",
                at.name,
                image.digest,
                reply.status,
                String::from_utf8_lossy(&reply.body),
                since as f64 / 1e9,
            );
            self.model().violations.add(Broken::RefusedBlobs, &format!("{repository}@{}", image.digest), &explanation);
        }
    }
}
