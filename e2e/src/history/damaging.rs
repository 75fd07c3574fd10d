//! How clients damage what a node has received of their uploads before they finish them.
//!
//! The node must notice that the bytes on its disk are no longer those that it hashed on receipt:
//! while it runs, and after a restart that resumes the session. It may reject the upload. Whatever it
//! acknowledges must be the right bytes at every node, which `check_images` checks.

use super::client::{Client, Disk, Server, Target};
use super::faults::flip_a_bit;
use super::record::{Kind, Outcome};
use crate::Content;
use crate::client::{Reply, empty, location};
use crate::push::Image;
use crate::wait;
use http::Method;
use rand::Rng;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time limit for a killed node to respond again; after it, the client continues without the node.
const RESTARTED: Duration = Duration::from_secs(5);

impl Client {
    /// Sends half of a layer, damages it on the node's disk, sends the rest and pushes an image with
    /// the layer.
    pub async fn damage_an_open_upload(&mut self, repository: &str) {
        let at = self.any_node();
        let Some(disk) = at.disk.clone() else { return };
        // A node that is stopped for a while reads the damaged bytes later; a node that is killed
        // hashes them again.
        let kill = self.random.random_bool(0.5);
        let layer = Content::new(self.random.random(), self.random.random_range(2..1 << 20));
        let config = self.small();
        if !self.push_blob(&at, repository, config).await {
            return;
        }
        let call = self.model().recorder.now();
        let reply = self.finish_a_damaged_upload(&at, &disk, repository, layer, kill).await;
        let target = Target { kind: Kind::PushBlob, repository, tag: None, digest: Some(layer.digest) };
        if self.note(&at, &target, call, reply.as_ref()) == Outcome::Done {
            self.model().state().has(repository, layer);
            let (image, tag) = (Arc::new(Image::of(config, vec![layer], None)), self.own_tag());
            self.put_manifest(&at, repository, &tag, &image, None, None).await;
        }
    }

    /// The response to the last request of the upload.
    async fn finish_a_damaged_upload(
        &mut self,
        at: &Server,
        disk: &Disk,
        repository: &str,
        layer: Content,
        kill: bool,
    ) -> Option<Reply> {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let opened = self.ask(at.registry.send(Method::POST, &path, &[], empty())).await;
        let opened = opened.filter(|reply| reply.status == 202)?;
        let half = layer.size / 2;
        let appended = self.ask(at.registry.append(&location(&opened).ok()?, &layer, 0, half)).await;
        let mut session = location(&appended.filter(|reply| reply.status == 202)?).ok()?;
        let id = session.split('?').next().and_then(|path| path.rsplit('/').next())?;
        let place = self.random.random_range(0..half);
        let data = disk.store.join("uploads").join(id).join("data");
        let file = File::options().read(true).write(true).open(data).ok()?;
        flip_a_bit(&file, place).ok().filter(|flipped| *flipped)?;
        self.model().count_fault("open upload damaged");
        if kill {
            self.model().kill(disk.node);
            self.until_it_was_killed(at, &session).await;
        }
        if let Some(appended) = self.ask(at.registry.append(&session, &layer, half, layer.size)).await {
            session = location(&appended).unwrap_or(session);
        }
        self.ask(at.registry.finish(&session, &layer.digest)).await
    }

    /// Asks for the session until the node was away and answers again.
    async fn until_it_was_killed(&self, at: &Server, session: &str) {
        let was_away = AtomicBool::new(false);
        let killed = || async {
            match at.registry.get(session).await {
                Ok(_) => was_away.load(Ordering::SeqCst),
                Err(_) => {
                    was_away.store(true, Ordering::SeqCst);
                    false
                }
            }
        };
        // It may have been away between two requests, or may not be killed in this epoch.
        let _ = wait::until("the node was killed and answers again", RESTARTED, killed).await;
    }
}
