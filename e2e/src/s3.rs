//! Direct access of the tests to an S3 bucket, past any node and proxy.

use anyhow::{Context, Result};
use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Region, RequestChecksumCalculation};
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use entrepot_config as config;
use entrepot_oci::Digest;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The credentials of every S3 server that the tests start.
pub const ACCESS_KEY: &str = "entrepot";
pub const SECRET_KEY: &str = "entrepot-secret";
pub const REGION: &str = "us-east-1";
/// The bucket of every S3 server.
pub const BUCKET: &str = "images";

/// A bucket of an S3 server.
#[derive(Clone)]
pub struct S3 {
    client: Client,
    pub endpoint: String,
}

impl S3 {
    pub fn new(endpoint: &str) -> S3 {
        S3::over(endpoint, TlsContext::default(), ACCESS_KEY, SECRET_KEY)
    }

    /// The bucket with other credentials.
    pub fn with_keys(endpoint: &str, access: &str, secret: &str) -> S3 {
        S3::over(endpoint, TlsContext::default(), access, secret)
    }

    /// A bucket of an HTTPS server whose certificate the CA in this file has issued.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn trusting(endpoint: &str, authority: &Path) -> Result<S3> {
        let trust = TrustStore::empty().with_pem_certificate(fs::read(authority)?);
        Ok(S3::over(endpoint, TlsContext::builder().with_trust_store(trust).build()?, ACCESS_KEY, SECRET_KEY))
    }

    fn over(endpoint: &str, tls: TlsContext, access: &str, secret: &str) -> S3 {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(tls)
            .build_https();
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .credentials_provider(Credentials::new(access, secret, None, None, "tests"))
            .region(Region::new(REGION))
            .endpoint_url(endpoint)
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .build();
        S3 { client: Client::from_conf(config), endpoint: endpoint.to_owned() }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the server responds.
    pub async fn answers(&self) -> bool {
        self.client.list_buckets().send().await.is_ok()
    }

    /// Whether the server has the bucket.
    ///
    /// # Errors
    /// If the server rejects the request.
    pub async fn has_bucket(&self) -> Result<bool> {
        let buckets = self.client.list_buckets().send().await.context("cannot list the buckets")?;
        Ok(buckets.buckets().iter().any(|bucket| bucket.name() == Some(BUCKET)))
    }

    /// # Errors
    /// If the server rejects the request.
    pub async fn make_bucket(&self) -> Result<()> {
        self.client.create_bucket().bucket(BUCKET).send().await.context("cannot create the bucket")?;
        Ok(())
    }

    /// All keys with the prefix.
    ///
    /// # Errors
    /// If the server rejects the request.
    pub async fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        let mut pages = self.client.list_objects_v2().bucket(BUCKET).prefix(prefix).into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            keys.extend(page?.contents().iter().filter_map(|object| object.key().map(str::to_owned)));
        }
        Ok(keys)
    }

    /// Keys of multipart uploads that are neither completed nor aborted.
    ///
    /// # Errors
    /// If the server rejects the request.
    pub async fn open_multiparts(&self) -> Result<Vec<String>> {
        let answer = self.client.list_multipart_uploads().bucket(BUCKET).send().await?;
        Ok(answer.uploads().iter().filter_map(|upload| upload.key().map(str::to_owned)).collect())
    }

    /// Path and query of a URL that grants access to the content of a digest for an hour, signed
    /// for this endpoint.
    ///
    /// # Errors
    /// If it cannot be signed.
    pub async fn presigned(&self, digest: &Digest) -> Result<String> {
        let presigning = PresigningConfig::expires_in(Duration::from_secs(3600))?;
        let request = self.client.get_object().bucket(BUCKET).key(content_key(digest)).presigned(presigning).await?;
        Ok(request
            .uri()
            .strip_prefix(self.endpoint.as_str())
            .context("the presigned URL does not start with the endpoint")?
            .to_owned())
    }

    /// # Errors
    /// If the object does not exist.
    pub async fn get(&self, key: &str) -> Result<Vec<u8>> {
        let answer = self.client.get_object().bucket(BUCKET).key(key).send().await.with_context(|| key.to_owned())?;
        Ok(answer.body.collect().await?.to_vec())
    }

    /// # Errors
    /// If the server rejects the request.
    pub async fn put(&self, key: &str, content: Vec<u8>) -> Result<()> {
        let body = ByteStream::from(content);
        self.client.put_object().bucket(BUCKET).key(key).body(body).send().await.with_context(|| key.to_owned())?;
        Ok(())
    }

    /// # Errors
    /// If the server rejects the request.
    pub async fn delete(&self, key: &str) -> Result<()> {
        self.client.delete_object().bucket(BUCKET).key(key).send().await.with_context(|| key.to_owned())?;
        Ok(())
    }
}

/// The key of the content of a digest.
pub fn content_key(digest: &Digest) -> String {
    let (algorithm, hex) = (digest.algorithm().name(), digest.hex());
    format!("docker/registry/v2/blobs/{algorithm}/{}/{hex}/data", &hex[..2])
}

/// The bucket configuration of a node for this bucket, with the credentials in files in `folder`.
///
/// # Errors
/// If the files cannot be written.
pub fn node_bucket(endpoint: &str, folder: &Path) -> Result<config::Bucket> {
    let (id, secret) = (folder.join("access-key-id"), folder.join("secret-access-key"));
    fs::write(&id, ACCESS_KEY)?;
    fs::write(&secret, SECRET_KEY)?;
    let s3 = config::S3 {
        name: BUCKET.into(),
        region: Some(REGION.into()),
        endpoint: Some(endpoint.into()),
        path_style: true,
        ca_file: None,
        credentials: Some(config::S3Credentials {
            access_key_id_file: id,
            secret_access_key_file: secret,
            session_token_file: None,
        }),
        ..config::S3::default()
    };
    Ok(config::Bucket::of(config::BucketConfig::S3(s3)))
}
