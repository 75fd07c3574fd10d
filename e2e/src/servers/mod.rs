//! Servers that the tests run against: two S3 servers, CNCF Distribution, nginx, and those that say who somebody is. Each
//! ends with its value.

mod distribution;
mod minio;
mod nginx;
mod openid;
mod pages;
mod versitygw;

pub use distribution::{Distribution, Driver};
pub use minio::Minio;
pub use nginx::{Answered, Nginx};
pub use openid::OpenId;
use pages::Pages;
pub use versitygw::Versitygw;

use anyhow::Result;
use std::net::TcpListener;
use std::time::Duration;

/// How long a server may take to answer for the first time. MinIO takes seconds on a loaded machine.
const START: Duration = Duration::from_secs(60);

/// A port that was free a moment ago.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
