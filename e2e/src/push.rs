//! The ways to push a blob, and images of random blobs.

use crate::client::{Registry, Reply, body_of, empty, location, streamed, with_digest};
use crate::content::Content;
use crate::wait;
use anyhow::{Context, Result, ensure};
use entrepot_oci::{Algorithm, Digest};
use http::Method;
use serde_json::json;
use std::time::Duration;

pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Time limit for a node to notice a broken connection; it normally notices at once.
const NOTICED: Duration = Duration::from_secs(30);

/// An image for a registry.
#[derive(Clone, Debug)]
pub struct Image {
    pub config: Content,
    pub layers: Vec<Content>,
    pub manifest: Vec<u8>,
    pub digest: Digest,
}

impl Image {
    /// An image with new random layers of these sizes. Its config is not valid JSON; registries do
    /// not read it.
    pub fn fresh(layers: &[u64]) -> Image {
        Image::of(Content::fresh(100), layers.iter().map(|size| Content::fresh(*size)).collect(), None)
    }

    /// The image of this content, with an optional subject.
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
    /// If the status is not 202.
    pub async fn open_session(&self, repository: &str) -> Result<String> {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let reply = self.again(|| self.send(Method::POST, &path, &[], empty())).await?;
        location(&reply.expect(202)?)
    }

    /// Appends a part of the content to a session.
    ///
    /// # Errors
    /// If there is no response.
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

    /// Finishes a session that has received all bytes.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn finish(&self, session: &str, digest: &Digest) -> Result<Reply> {
        self.send(Method::PUT, &with_digest(session, digest), &[("content-length", "0")], empty()).await
    }

    /// `POST`, then `PUT` with the whole blob, as most clients do.
    ///
    /// # Errors
    /// If the status is not 201.
    pub async fn push(&self, repository: &str, content: &Content) -> Result<Reply> {
        let reply = self.again(|| self.try_push(repository, content)).await?;
        reply.expect(201).with_context(|| format!("cannot push {content:?}"))
    }

    /// The same without retries; returns any response.
    ///
    /// # Errors
    /// If there is no response.
    pub async fn try_push(&self, repository: &str, content: &Content) -> Result<Reply> {
        let reply = self.send(Method::POST, &format!("/v2/{repository}/blobs/uploads/"), &[], empty()).await?;
        if reply.status != 202 {
            return Ok(reply);
        }
        let length = content.size.to_string();
        let headers = [("content-type", "application/octet-stream"), ("content-length", length.as_str())];
        self.send(Method::PUT, &with_digest(&location(&reply)?, &content.digest), &headers, body_of(content)).await
    }

    /// `POST`, a `PATCH` for each chunk, and `PUT`.
    ///
    /// # Errors
    /// If the status of a chunk is not 202, or that of the last request not 201.
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

    /// `POST`, then chunks. The first one breaks off after `broken` bytes and is sent again, as by
    /// a client that lost its connection.
    ///
    /// # Errors
    /// If the broken chunk does not reach the node, the status of another is not 202, or that of
    /// the last request not 201.
    pub async fn push_after_a_break(&self, repository: &str, content: &Content, chunk: u64, broken: u64) -> Result<()> {
        let mut session = self.open_session(repository).await?;
        let length = chunk.to_string();
        let bytes = streamed(content.stream(0..broken));
        ensure!(
            self.send(Method::PATCH, &session, &[("content-length", &length)], bytes).await.is_err(),
            "the request did not break off"
        );
        let received = || async {
            // If the node has crashed meanwhile, the next request will find out.
            let reply = self.get(&session).await.ok();
            reply.is_none_or(|reply| reply.header("range") == Some(&format!("0-{}", broken - 1)))
        };
        wait::until("the bytes before the break are received", NOTICED, received).await?;
        let mut at = 0;
        while at < content.size {
            let end = content.size.min(at + chunk);
            let length = (end - at).to_string();
            let bytes = streamed(content.stream(at..end));
            let reply = self.send(Method::PATCH, &session, &[("content-length", &length)], bytes).await?;
            session = location(&reply.expect(202)?)?;
            at = end;
        }
        // Sent twice, as if the first response were lost.
        for _ in 0..2 {
            self.finish(&session, &content.digest).await?.expect(201)?;
        }
        Ok(())
    }

    /// `POST`, one `PATCH` of unknown length, and `PUT`, as Docker does.
    ///
    /// # Errors
    /// If the status is not 201.
    pub async fn push_streamed(&self, repository: &str, content: &Content) -> Result<Reply> {
        let session = self.open_session(repository).await?;
        let reply = self.send(Method::PATCH, &session, &[], body_of(content)).await?.expect(202)?;
        self.finish(&location(&reply)?, &content.digest).await?.expect(201)
    }

    /// Pushes all blobs, and then the manifest under a tag.
    ///
    /// # Errors
    /// If the status of one of them is not 201.
    pub async fn push_image(&self, repository: &str, tag: &str, image: &Image) -> Result<Reply> {
        for blob in image.blobs() {
            self.push(repository, blob).await?;
        }
        self.put_manifest(repository, tag, IMAGE, &image.manifest).await?.expect(201)
    }

    /// Pulls the manifest and all blobs, and verifies every byte.
    ///
    /// # Errors
    /// If something is missing or differs from what was pushed.
    pub async fn pull_image(&self, repository: &str, reference: &str, image: &Image) -> Result<()> {
        let reply = self.manifest(repository, reference).await?.expect(200)?;
        anyhow::ensure!(reply.body == image.manifest, "{reference} refers to a different manifest: {:?}", reply.body);
        for blob in image.blobs() {
            self.pull(repository, &blob.digest).await?;
        }
        Ok(())
    }
}
