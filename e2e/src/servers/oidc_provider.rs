use super::START;
use crate::client::{Registry, full};
use crate::process::Process;
use crate::tools::npm;
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use std::process::Command;
use tempfile::TempDir;

/// `oidc-provider`, a certified issuer of OpenID Connect, on loopback. It has a new key at each start.
/// Its tokens are valid for ten minutes, for the client `ci`, with the claims `repository` and `teams`.
pub struct OidcProvider {
    /// The issuer.
    pub url: String,
    /// The server, until it is dropped.
    _process: Process,
    _folder: TempDir,
}

impl OidcProvider {
    /// Starts it on this port.
    ///
    /// # Errors
    /// If it cannot be installed or does not start.
    pub async fn start(port: u16) -> Result<OidcProvider> {
        let (node, main) = npm::oidc_provider()?;
        let folder = TempDir::new()?;
        let mut command = Command::new(node);
        command.arg(main).arg(port.to_string());
        let mut process = Process::start("oidc-provider", &mut command, &folder.path().join("log"))?;
        let url = format!("http://127.0.0.1:{port}");
        let probe = Registry::new(&url);
        process.until_ready(START, || async { probe.get("/jwks").await.is_ok() }).await?;
        Ok(OidcProvider { url, _process: process, _folder: folder })
    }

    /// A token for this audience, which must be a host name.
    ///
    /// # Errors
    /// If there is none.
    pub async fn token(&self, audience: &str) -> Result<String> {
        let form = format!("grant_type=client_credentials&scope=push&resource=https%3A%2F%2F{audience}");
        let credentials = format!("Basic {}", STANDARD.encode("ci:secret-of-ci"));
        let headers = [("content-type", "application/x-www-form-urlencoded"), ("authorization", credentials.as_str())];
        let reply = Registry::new(&self.url).send(Method::POST, "/token", &headers, full(form)).await?;
        let token = reply.expect(200)?.json()?["access_token"].as_str().map(str::to_owned);
        token.context("the issuer answers without a token")
    }
}
