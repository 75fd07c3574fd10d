//! Servers that the tests use: two S3 servers, CNCF Distribution, nginx, and identity providers.
//! Each stops when its value is dropped.

mod distribution;
mod minio;
mod nginx;
mod oidc_provider;
mod openid;
mod pages;
mod versitygw;

pub use distribution::{Distribution, Driver};
pub use minio::Minio;
pub use nginx::{LoggedRequest, Nginx};
pub use oidc_provider::OidcProvider;
pub use openid::OpenId;
use pages::Pages;
pub use versitygw::Versitygw;

use anyhow::Result;
use std::net::TcpListener;
use std::time::Duration;

/// Time limit for the first response of a server. MinIO takes seconds on a loaded machine.
const START: Duration = Duration::from_secs(60);

/// A port that was free a moment ago.
///
/// # Errors
/// If there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
