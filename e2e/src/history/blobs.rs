//! How clients upload blobs: they check whether the repository has them, mount them, or push them in
//! any of the ways that the API has.

use super::client::{Client, Server, Target};
use super::record::{Kind, Outcome};
use super::violations::Broken;
use crate::Content;
use crate::client::{Reply, empty, full, location, with_digest};
use http::Method;
use rand::Rng;
use std::time::Duration;

/// So often a chunk or the end of an upload is tried again.
const TRIES: usize = 3;

/// Pause of a client before it tries again, as of real clients; a killed node needs about as long to start.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

impl Client {
    /// Makes sure that the repository has a blob, as clients do: with `HEAD`, a mount or a push. Returns
    /// whether a response confirmed it.
    pub async fn bring_blob(&mut self, at: &Server, repository: &str, blob: Content) -> bool {
        if self.random.random_bool(0.6) && self.head_blob(at, repository, blob).await {
            return true;
        }
        let source = {
            let state = self.scene.model.state();
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
        let (path, call) = (format!("/v2/{repository}/blobs/{}", blob.digest), self.model().recorder.now());
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
            self.model().violations.add(Broken::Header, &format!("{path} at {}", at.name), &explanation);
        }
        true
    }

    /// Asks for a blob of another repository. Whether it was mounted.
    pub async fn mount_blob(&self, at: &Server, repository: &str, source: &str, blob: Content) -> bool {
        let path = format!("/v2/{repository}/blobs/uploads/?mount={}&from={source}", blob.digest);
        let call = self.model().recorder.now();
        let reply = self.ask(at.registry.send(Method::POST, &path, &[], empty())).await;
        self.note(
            at,
            &Target { kind: Kind::MountBlob, repository, tag: None, digest: Some(blob.digest) },
            call,
            reply.as_ref(),
        );
        match reply {
            Some(reply) if reply.status == 201 => {
                self.model().state().has(repository, blob);
                true
            }
            Some(reply) if reply.status == 202 => {
                // The source has it no more; the client sends it, as it was offered.
                let Ok(session) = location(&reply) else { return false };
                let call = self.model().recorder.now();
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
        let call = self.model().recorder.now();
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
            self.model().state().has(repository, blob);
        }
        done
    }

    /// Each chunk may go to another node. After a failure, the upload resumes at the offset that the
    /// node reports.
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
                    tokio::time::sleep(RETRY_PAUSE).await;
                    if let Some(status) = self.ask(to.registry.get(&session)).await {
                        if status.status == 404 {
                            return Some(status);
                        }
                        sent = received(&status).unwrap_or(sent);
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
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        reply
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
        let call = self.model().recorder.now();
        let cancelled = self.ask(self.any_node().registry.delete(&session)).await;
        let target = Target { kind: Kind::CancelUpload, repository, tag: None, digest: None };
        if self.note(&at, &target, call, cancelled.as_ref()) == Outcome::Done
            && let Some(reply) = self.ask(at.registry.get(&session)).await
            && matches!(reply.status, 200..300)
        {
            let explanation = format!("it was cancelled, and {} answers {} for it", at.name, reply.status);
            self.model().violations.add(Broken::Leak, &format!("the upload session {session}"), &explanation);
        }
    }
}

/// Number of bytes that a session has received, by its status.
fn received(status: &Reply) -> Option<u64> {
    let last: u64 = status.header("range")?.strip_prefix("0-")?.parse().ok()?;
    // The range of an empty session is 0-0 too.
    Some(if last == 0 { 0 } else { last + 1 })
}
