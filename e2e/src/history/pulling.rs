//! How clients read: tags, images, ranges and lists.

use super::client::{Client, Server, Target, read_tag};
use super::model::Pushed;
use super::record::Kind;
use super::violations::Broken;
use crate::client::empty;
use entrepot_oci::Digest;
use http::Method;
use rand::Rng;

impl Client {
    pub async fn read_tag(&self, at: &Server, repository: &str, tag: &str) {
        read_tag(self.model(), &self.name, at, repository, tag).await;
    }

    /// Pulls an image that some client pushed in this epoch or the last one.
    pub async fn pull_some_image(&mut self) {
        let Some(pushed) = self.some_pushed() else { return };
        let at = self.any_node();
        self.pull_image(&at, &pushed).await;
    }

    pub async fn pull_image(&mut self, at: &Server, pushed: &Pushed) {
        let (repository, image) = (&pushed.repository, &pushed.image);
        let path = format!("/v2/{repository}/manifests/{}", image.digest);
        self.pull(at, pushed, Kind::PullManifest, &path, image.digest).await;
        for blob in image.blobs() {
            let path = format!("/v2/{repository}/blobs/{}", blob.digest);
            self.pull(at, pushed, Kind::PullBlob, &path, blob.digest).await;
        }
    }

    /// What must exist never gets 404, whatever fails; and a complete response has the right bytes.
    async fn pull(&self, at: &Server, pushed: &Pushed, kind: Kind, path: &str, digest: Digest) {
        let must_be_there = self.must_be_whole(pushed);
        let call = self.model().recorder.now();
        let accept = [("accept", "application/vnd.oci.image.manifest.v1+json, */*")];
        let reply = self.ask(at.registry.send(Method::GET, path, &accept, empty())).await;
        let target = Target { kind, repository: &pushed.repository, tag: None, digest: Some(digest) };
        self.note(at, &target, call, reply.as_ref());
        let Some(reply) = reply else { return };
        self.verify(at, path, &digest, &reply);
        if reply.status == 404 && must_be_there && self.must_be_whole(pushed) {
            let now = self.model().recorder.now() as f64 / 1e9;
            let acknowledged = pushed.acknowledged.unwrap_or_default() as f64 / 1e9;
            let explanation = format!(
                "{} responded to GET {path} with 404 at {now:.3} s: {}\nthe image {} was acknowledged at \
                 {acknowledged:.3} s, and no client deleted anything of it",
                at.name,
                String::from_utf8_lossy(&reply.body),
                pushed.image.digest,
            );
            self.model().violations.add(Broken::Absent, &format!("{path} at {}", at.name), &explanation);
        }
    }

    fn must_be_whole(&self, pushed: &Pushed) -> bool {
        self.model().state().must_be_whole(pushed)
    }

    /// Pulls a part of a blob and compares it.
    pub async fn pull_some_range(&mut self) {
        let Some(pushed) = self.some_pushed() else { return };
        let layers = &pushed.image.layers;
        let layer = layers[self.random.random_range(0..layers.len())];
        if layer.size == 0 {
            return;
        }
        let start = self.random.random_range(0..layer.size);
        let end = self.random.random_range(start..layer.size);
        let at = self.any_node();
        let path = format!("/v2/{}/blobs/{}", pushed.repository, layer.digest);
        let range = format!("bytes={start}-{end}");
        let call = self.model().recorder.now();
        let reply = self.ask(at.registry.send(Method::GET, &path, &[("range", &range)], empty())).await;
        let repository = pushed.repository.as_str();
        let target = Target { kind: Kind::PullRange, repository, tag: None, digest: Some(layer.digest) };
        self.note(&at, &target, call, reply.as_ref());
        let Some(reply) = reply.filter(|reply| reply.status == 206) else { return };
        let right: Vec<u8> = layer.pieces(start..end + 1).flatten().collect();
        if reply.body != right && !self.model().may_be_wrong(&layer.digest) {
            let explanation =
                format!("{} responded to GET {path} {range} with {} wrong bytes", at.name, reply.body.len());
            self.model().violations.add(Broken::Bytes, &format!("{path} {range} at {}", at.name), &explanation);
        }
    }

    fn some_pushed(&mut self) -> Option<Pushed> {
        let pushed = self.model().state().pushed_since(self.scene.epoch.saturating_sub(1));
        if pushed.is_empty() {
            return None;
        }
        Some(pushed[self.random.random_range(0..pushed.len())].clone())
    }

    pub async fn list_tags(&self, repository: &str) {
        let (at, call) = (self.any_node(), self.model().recorder.now());
        let reply = self.ask(at.registry.get(&format!("/v2/{repository}/tags/list"))).await;
        let target = Target { kind: Kind::ListTags, repository, tag: None, digest: None };
        self.note(&at, &target, call, reply.as_ref());
    }
}
