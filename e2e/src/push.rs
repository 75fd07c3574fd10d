//! The ways to push a blob, and an image made of blobs.

use crate::client::{Registry, Reply, body_of, empty, location, streamed, with_digest};
use crate::content::Content;
use crate::wait;
use anyhow::{Context, Result, ensure};
use entrepot_node::oci::{Algorithm, Digest};
use http::Method;
use serde_json::json;
use std::time::Duration;

pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A node notices at once that a connection broke.
const NOTICED: Duration = Duration::from_secs(30);

/// An image that a registry has, or is to have.
#[derive(Clone, Debug)]
pub struct Image {
    pub config: Content,
    pub layers: Vec<Content>,
    pub manifest: Vec<u8>,
    pub digest: Digest,
}

impl Image {
    /// An image of layers of these sizes, that no test had before. Its config is no valid JSON; registries do not read
    /// it.
    pub fn fresh(layers: &[u64]) -> Image {
        Image::of(Content::fresh(100), layers.iter().map(|size| Content::fresh(*size)).collect(), None)
    }

    /// The image of that content, with a subject.
    pub fn of(config: Content, layers: Vec<Content>, subject: Option<&Image>) -> Image {
        let describe = |kind: &str, content: &Content| json!({"mediaType": kind, "digest": content.digest.to_string(), "size": content.size});
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": describe(CONFIG, &config),
            "layers": layers.iter().map(|layer| describe(LAYER, layer)).collect::<Vec<_>>(),
        });
        if let Some(subject) = subject {
            manifest["subject"] =
                json!({"mediaType": IMAGE, "digest": subject.digest.to_string(), "size": subject.manifest.len()});
        }
        let manifest = manifest.to_string().into_bytes();
        let digest = Digest::of(Algorithm::Sha256, &manifest);
        Image { config, layers, manifest, digest }
    }

    /// Config and layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Content> {
        std::iter::once(&self.config).chain(&self.layers)
    }
}

impl Registry {
    /// Opens an upload session and returns its location.
    ///
    /// # Errors
    /// When it is not answered 202.
    pub async fn open_session(&self, repository: &str) -> Result<String> {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let reply = self.again(|| self.send(Method::POST, &path, &[], empty())).await?;
        location(&reply.expect(202)?)
    }

    /// Appends a part of some content to a session.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn append(&self, session: &str, content: &Content, start: u64, end: u64) -> Result<Reply> {
        let range = format!("{start}-{}", end - 1);
        let length = (end - start).to_string();
        let headers = [
            ("content-type", "application/octet-stream"),
            ("content-range", range.as_str()),
            ("content-length", length.as_str()),
        ];
        self.send(Method::PATCH, session, &headers, streamed(content.stream(start..end))).await
    }

    /// Ends a session whose bytes are all there.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn finish(&self, session: &str, digest: &Digest) -> Result<Reply> {
        self.send(Method::PUT, &with_digest(session, digest), &[("content-length", "0")], empty()).await
    }

    /// `POST`, then `PUT` with the whole blob: what most clients do.
    ///
    /// # Errors
    /// When it is not answered 201.
    pub async fn push(&self, repository: &str, content: &Content) -> Result<Reply> {
        let reply = self.again(|| self.try_push(repository, content)).await?;
        reply.expect(201).with_context(|| format!("pushing {content:?}"))
    }

    /// The same, once, with whatever is answered.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn try_push(&self, repository: &str, content: &Content) -> Result<Reply> {
        let reply = self.send(Method::POST, &format!("/v2/{repository}/blobs/uploads/"), &[], empty()).await?;
        if reply.status != 202 {
            return Ok(reply);
        }
        let length = content.size.to_string();
        let headers = [("content-type", "application/octet-stream"), ("content-length", length.as_str())];
        self.send(Method::PUT, &with_digest(&location(&reply)?, &content.digest), &headers, body_of(content)).await
    }

    /// One `POST` with the whole blob.
    ///
    /// # Errors
    /// When it is not answered 201.
    pub async fn push_at_once(&self, repository: &str, content: &Content) -> Result<Reply> {
        let path = format!("/v2/{repository}/blobs/uploads/?digest={}", content.digest);
        let length = content.size.to_string();
        let headers = [("content-type", "application/octet-stream"), ("content-length", length.as_str())];
        self.send(Method::POST, &path, &headers, body_of(content)).await?.expect(201)
    }

    /// `POST`, a `PATCH` for each chunk, and `PUT`.
    ///
    /// # Errors
    /// When a chunk is not answered 202 or the end not 201.
    pub async fn push_chunked(&self, repository: &str, content: &Content, chunk: u64) -> Result<Reply> {
        let mut session = self.open_session(repository).await?;
        let mut at = 0;
        while at < content.size {
            let end = content.size.min(at + chunk);
            session = location(&self.append(&session, content, at, end).await?.expect(202)?)?;
            at = end;
        }
        self.finish(&session, &content.digest).await?.expect(201)
    }

    /// `POST`, then chunks of which the first breaks off after `broken` bytes and is sent again: what a client does that
    /// lost its connection.
    ///
    /// # Errors
    /// When the broken chunk does not reach the node, another is not answered 202, or the end not 201.
    pub async fn push_after_a_break(&self, repository: &str, content: &Content, chunk: u64, broken: u64) -> Result<()> {
        let mut session = self.open_session(repository).await?;
        let length = chunk.to_string();
        let bytes = streamed(content.stream(0..broken));
        ensure!(self.send(Method::PATCH, &session, &[("content-length", &length)], bytes).await.is_err(), "no break");
        let received = || async {
            // A node that died meanwhile is found by the next request.
            let reply = self.get(&session).await.ok();
            reply.is_none_or(|reply| reply.header("range") == Some(&format!("0-{}", broken - 1)))
        };
        wait::until("what came before the break is received", NOTICED, received).await?;
        let mut at = 0;
        while at < content.size {
            let end = content.size.min(at + chunk);
            let length = (end - at).to_string();
            let bytes = streamed(content.stream(at..end));
            let reply = self.send(Method::PATCH, &session, &[("content-length", &length)], bytes).await?;
            session = location(&reply.expect(202)?)?;
            at = end;
        }
        // Its answer is lost, so it comes again.
        for _ in 0..2 {
            self.finish(&session, &content.digest).await?.expect(201)?;
        }
        Ok(())
    }

    /// `POST`, one `PATCH` of unknown length, and `PUT`: what Docker does.
    ///
    /// # Errors
    /// When it is not answered 201.
    pub async fn push_streamed(&self, repository: &str, content: &Content) -> Result<Reply> {
        let session = self.open_session(repository).await?;
        let reply = self.send(Method::PATCH, &session, &[], body_of(content)).await?.expect(202)?;
        self.finish(&location(&reply)?, &content.digest).await?.expect(201)
    }

    /// Pushes all blobs and then the manifest under a tag.
    ///
    /// # Errors
    /// When one of them is not answered 201.
    pub async fn push_image(&self, repository: &str, tag: &str, image: &Image) -> Result<Reply> {
        for blob in image.blobs() {
            self.push(repository, blob).await?;
        }
        self.put_manifest(repository, tag, IMAGE, &image.manifest).await?.expect(201)
    }

    /// Pulls the manifest and all blobs and verifies every byte.
    ///
    /// # Errors
    /// When something is missing or other than it was pushed.
    pub async fn pull_image(&self, repository: &str, reference: &str, image: &Image) -> Result<()> {
        let reply = self.manifest(repository, reference).await?.expect(200)?;
        anyhow::ensure!(reply.body == image.manifest, "{reference} is another manifest: {:?}", reply.body);
        for blob in image.blobs() {
            self.pull(repository, &blob.digest).await?;
        }
        Ok(())
    }
}
