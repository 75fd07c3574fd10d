//! Deletions by clients, alone and while other clients push the same content.

use super::client::{Client, Scene, Server, Target};
use super::record::{Kind, Outcome};
use crate::Content;
use crate::push::Image;
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;

/// Number of tags that name a manifest when it is deleted: the more, the longer the deletion takes.
const TAGS: usize = 6;

impl Client {
    pub async fn delete_tag(&self, at: &Server, repository: &str, tag: &str) {
        let call = self.model().recorder.now();
        let reply = self.ask(at.registry.delete(&format!("/v2/{repository}/manifests/{tag}"))).await;
        let target = Target { kind: Kind::DeleteTag, repository, tag: Some(tag), digest: None };
        self.note(at, &target, call, reply.as_ref());
    }

    pub async fn delete_manifest(&self, at: &Server, repository: &str, image: &Image) -> Outcome {
        let path = format!("/v2/{repository}/manifests/{}", image.digest);
        let target = Target { kind: Kind::DeleteManifest, repository, tag: None, digest: Some(image.digest) };
        self.delete(at, &path, &target).await
    }

    pub async fn delete_blob(&self, at: &Server, repository: &str, blob: Content) -> Outcome {
        self.model().state().lost(repository, blob);
        let path = format!("/v2/{repository}/blobs/{}", blob.digest);
        let target = Target { kind: Kind::DeleteBlob, repository, tag: None, digest: Some(blob.digest) };
        self.delete(at, &path, &target).await
    }

    async fn delete(&self, at: &Server, path: &str, target: &Target<'_>) -> Outcome {
        let Some(digest) = target.digest else { return Outcome::Refused };
        let place = self.model().state().delete(target.repository, digest);
        let call = self.model().recorder.now();
        let reply = self.ask(at.registry.delete(path)).await;
        let outcome = self.note(at, target, call, reply.as_ref());
        if outcome != Outcome::Unknown {
            let now = self.model().recorder.now();
            self.model().state().end_deletion(place, now);
        }
        outcome
    }

    pub async fn delete_some_manifest(&mut self, repository: &str) {
        let pushed = self.model().state().pushed_since(self.scene.epoch);
        let here: Vec<_> = pushed.into_iter().filter(|pushed| pushed.repository == repository).collect();
        if !here.is_empty() {
            let image = here[self.random.random_range(0..here.len())].image.clone();
            self.delete_manifest(&self.any_node(), repository, &image).await;
        }
    }

    pub async fn delete_some_blob(&mut self, repository: &str) {
        let blobs = self.model().state().blobs(repository).to_vec();
        if !blobs.is_empty() {
            let blob = blobs[self.random.random_range(0..blobs.len())];
            self.delete_blob(&self.any_node(), repository, blob).await;
        }
    }

    /// A new image without layers, whose config the repository has. `None` if its push was not
    /// acknowledged.
    async fn small_image(&mut self, repository: &str, config: Content) -> Option<Arc<Image>> {
        let layer = self.small();
        let at = self.any_node();
        let there = self.push_blob(&at, repository, layer).await;
        there.then(|| Arc::new(Image::of(config, vec![layer], None)))
    }

    /// A random pause, so that another request gets to a random point.
    async fn moment(milliseconds: u64) {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }

    /// Deletes a manifest by digest while its tags are pushed again: they must name the pushed
    /// manifest.
    pub async fn clean_up_beside_pushes(&mut self, repository: &str) {
        let config = self.small();
        if !self.push_blob(&self.any_node(), repository, config).await {
            return;
        }
        let Some(old) = self.small_image(repository, config).await else { return };
        let Some(new) = self.small_image(repository, config).await else { return };
        let tags: Vec<_> = (0..TAGS).map(|_| self.own_tag()).collect();
        for tag in &tags {
            self.put_manifest(&self.any_node(), repository, tag, &old, None, None).await;
        }
        let (one, other) = self.two_nodes();
        let wait = self.random.random_range(0..60);
        let pusher = self.twin();
        let pushes = async {
            Client::moment(wait).await;
            for tag in tags.iter().rev() {
                pusher.put_manifest(&other, repository, tag, &new, None, None).await;
            }
        };
        tokio::join!(self.delete_manifest(&one, repository, &old), pushes);
        for tag in &tags {
            self.read_tag(&self.any_node(), repository, tag).await;
        }
    }

    /// Pushes a manifest under another tag while it is being deleted.
    pub async fn push_beside_deletion(&mut self, repository: &str) {
        let config = self.small();
        if !self.push_blob(&self.any_node(), repository, config).await {
            return;
        }
        let Some(image) = self.small_image(repository, config).await else { return };
        let (first, second) = (self.own_tag(), self.own_tag());
        self.put_manifest(&self.any_node(), repository, &first, &image, None, None).await;
        let (one, other) = self.two_nodes();
        let waits = [self.random.random_range(0..30), self.random.random_range(0..30)];
        let pusher = self.twin();
        let push = async {
            Client::moment(waits[0]).await;
            pusher.put_manifest(&other, repository, &second, &image, None, None).await;
        };
        let deletion = async {
            Client::moment(waits[1]).await;
            self.delete_manifest(&one, repository, &image).await;
        };
        tokio::join!(push, deletion);
        self.read_tag(&other, repository, &first).await;
        self.read_tag(&one, repository, &second).await;
    }

    /// Deletes a tag while it is pushed again.
    pub async fn delete_a_tag_beside_a_push(&mut self, repository: &str) {
        let config = self.small();
        if !self.push_blob(&self.any_node(), repository, config).await {
            return;
        }
        let Some(old) = self.small_image(repository, config).await else { return };
        let Some(new) = self.small_image(repository, config).await else { return };
        let tag = self.own_tag();
        self.put_manifest(&self.any_node(), repository, &tag, &old, None, None).await;
        let (one, other) = self.two_nodes();
        let wait = self.random.random_range(0..40);
        let pusher = self.twin();
        let push = async {
            Client::moment(wait).await;
            pusher.put_manifest(&other, repository, &tag, &new, None, None).await;
        };
        tokio::join!(self.delete_tag(&one, repository, &tag), push);
        self.read_tag(&one, repository, &tag).await;
        self.read_tag(&other, repository, &tag).await;
    }

    /// One node stores a blob, the blob is deleted through another, then an image with it is pushed
    /// to the first.
    pub async fn push_what_was_deleted_elsewhere(&mut self, repository: &str) {
        let (one, other) = self.two_nodes();
        let Some(layer) = self.stored_and_deleted(repository, &one, &other).await else { return };
        let config = self.small();
        let since = self.model().recorder.now();
        for blob in [config, layer] {
            if !self.head_blob(&one, repository, blob).await && !self.push_blob(&one, repository, blob).await {
                return;
            }
        }
        let image = Arc::new(Image::of(config, vec![layer], None));
        let tag = self.own_tag();
        self.put_manifest(&one, repository, &tag, &image, None, Some(since)).await;
    }

    /// The same, but the image is pushed to another repository, into which the blob is mounted.
    pub async fn mount_what_was_deleted_elsewhere(&mut self, repository: &str) {
        let (one, other) = self.two_nodes();
        let Some(layer) = self.stored_and_deleted(repository, &one, &other).await else { return };
        let target = Scene::mounting(self.scene.epoch);
        let config = self.small();
        let since = self.model().recorder.now();
        if !self.mount_blob(&one, &target, repository, layer).await || !self.push_blob(&one, &target, config).await {
            return;
        }
        let image = Arc::new(Image::of(config, vec![layer], None));
        let tag = self.own_tag();
        self.put_manifest(&one, &target, &tag, &image, None, Some(since)).await;
    }

    /// A blob that is in the store of `keeper` and was deleted through `deleter`.
    async fn stored_and_deleted(&mut self, repository: &str, keeper: &Server, deleter: &Server) -> Option<Content> {
        let layer = self.small();
        if !self.push_blob(deleter, repository, layer).await {
            return None;
        }
        let path = format!("/v2/{repository}/blobs/{}", layer.digest);
        let call = self.model().recorder.now();
        let reply = self.ask(keeper.registry.get(&path)).await;
        let target = Target { kind: Kind::PullBlob, repository, tag: None, digest: Some(layer.digest) };
        self.note(keeper, &target, call, reply.as_ref());
        self.verify(keeper, &path, &layer.digest, reply.as_ref()?);
        (self.delete_blob(deleter, repository, layer).await == Outcome::Done).then_some(layer)
    }
}
