//! Servers that the cluster needs and Kubernetes does not run: the S3 server, and the registry for
//! the cluster's own images, which is an Entrepot node.

use super::START;
use super::control::{answers, arguments};
use super::machine::Machine;
use super::plan::Plan;
use super::s3_keys::{ACCOUNTS, LOG};
use crate::node_binary::Variant;
use crate::s3::{ACCESS_KEY, REGION, S3, SECRET_KEY};
use crate::tools::{self, Tool};
use anyhow::Result;
use serde_json::json;
use std::fs;

/// The port of the S3 server, also at its Service.
pub const S3_PORT: u16 = 7070;

/// Host and port of the registry for the cluster's own images.
pub fn registry(plan: Plan) -> String {
    format!("{}:5000", plan.storage())
}

/// Starts both servers.
///
/// # Errors
/// If one does not start; the message contains its log.
pub async fn start(machine: &Machine, plan: Plan) -> Result<S3> {
    let data = machine.folder().join("lib/s3");
    fs::create_dir_all(&data)?;
    fs::create_dir_all(machine.folder().join("lib").join(ACCOUNTS))?;
    let endpoint = format!("http://{}:{S3_PORT}", plan.storage());
    // Without --keep-alive the server closes the connection after each request; with its cache,
    // deleted keys would stay valid.
    let flags = arguments!["--keep-alive"; "--quiet"; "--port"; "{}:{S3_PORT}", plan.storage();
        "--region"; "{REGION}"; "--access"; "{ACCESS_KEY}"; "--secret"; "{SECRET_KEY}";
        "--iam-dir"; "/var/lib/{ACCOUNTS}"; "--iam-cache-disable"; "--access-log"; "/var/log/{LOG}";
        "posix"; "/var/lib/s3"];
    let mut server = machine.serve("versitygw", &Tool::Versitygw.path()?, &flags)?;
    let config = json!({
        "node": {"name": "bootstrap"},
        "http": {"listen": registry(plan)},
        "operations": {"listen": format!("{}:5001", plan.storage())},
        "bucket": {"fileSystem": {"path": "/var/lib/registry/bucket"}},
        "store": {"path": "/var/lib/registry/store"},
    });
    let path = machine.folder().join("lib/registry.yaml");
    fs::write(&path, config.to_string())?;
    let program = Variant::Release.path()?;
    let mut registry_node = machine.serve("registry", &program, &arguments!["--config"; "/var/lib/registry.yaml"])?;
    let s3 = S3::new(&endpoint);
    server.until_ready(START, || s3.answers()).await?;
    s3.make_bucket().await?;
    let address = format!("http://{}", registry(plan));
    registry_node.until_ready(START, || answers(&address, "/v2/")).await?;
    Ok(s3)
}

/// Cuts off the S3 server as a firewall would: drops the packets of existing and new connections
/// without a response.
///
/// # Errors
/// If iptables is not available.
pub async fn cut(machine: &Machine) -> Result<()> {
    rule(machine, "-I").await
}

/// Reverts `cut`.
///
/// # Errors
/// If the server was not cut off.
pub async fn restore(machine: &Machine) -> Result<()> {
    rule(machine, "-D").await
}

async fn rule(machine: &Machine, action: &str) -> Result<()> {
    let iptables = tools::system("iptables")?;
    let command = format!("{} -w {action} INPUT -p tcp --dport {S3_PORT} -j DROP", iptables.display());
    machine.network(&command).await.map(drop)
}
