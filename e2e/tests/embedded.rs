//! The node without any configuration, and its command line.

use anyhow::Result;
use entrepot_e2e::images::Layout;
use entrepot_e2e::node_binary::Variant;
use entrepot_e2e::process::Process;
use entrepot_e2e::{Registry, commands, tools};
use rustix::process::Signal;
use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread")]
async fn it_is_a_working_registry_without_any_configuration() {
    // The only test that needs a fixed port: the one that the documentation names.
    let free = TcpListener::bind("127.0.0.1:5000").is_ok() && TcpListener::bind("127.0.0.1:5001").is_ok();
    assert!(free, "ports 5000 and 5001 are used by another program");
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(Variant::Release.path().unwrap());
    command.current_dir(&folder);
    let mut node = Process::start("node", &mut command, &folder.path().join("log")).unwrap();
    let registry = Registry::new("http://127.0.0.1:5000");
    node.until_ready(Duration::from_secs(20), || registry.answers()).await.unwrap();

    let said = node.log();
    let first: Vec<_> = said.lines().take(12).collect();
    for fact in ["http://127.0.0.1:5000", "http://127.0.0.1:5001", "entrepot-data", "podman push"] {
        assert!(first.iter().any(|line| line.contains(fact)), "the first lines do not contain {fact}:\n{said}");
    }
    push_and_pull_with_skopeo(&registry).await.unwrap();
    assert!(folder.path().join("entrepot-data/bucket/docker/registry/v2/blobs").is_dir());
    assert!(folder.path().join("entrepot-data/store").is_dir());

    node.signal(Signal::TERM).unwrap();
    assert!(node.wait(Duration::from_secs(30)).await.unwrap().success());
}

async fn push_and_pull_with_skopeo(registry: &Registry) -> Result<()> {
    let mut layout = Layout::new()?;
    let image = layout.image("amd64", &[layout.layer("hello", 100_000)?])?;
    layout.tag(&image, "v1")?;
    let skopeo = || -> Result<_> {
        let mut skopeo = tokio::process::Command::new(tools::system("skopeo")?);
        skopeo.args(["copy", "--quiet", "--preserve-digests"]);
        Ok(skopeo)
    };
    let remote = format!("docker://{}/hello:v1", registry.host());
    let local = format!("oci:{}:v1", layout.path().display());
    commands::run(skopeo()?.args(["--dest-tls-verify=false", &local, &remote])).await?;
    let pulled = TempDir::new()?;
    let copy = format!("oci:{}:v1", pulled.path().display());
    commands::run(skopeo()?.args(["--src-tls-verify=false", &remote, &copy])).await?;
    for digest in layout.digests()? {
        let file = pulled.path().join("blobs/sha256").join(digest.hex());
        assert_eq!(std::fs::read(file)?, std::fs::read(layout.blob(&digest))?, "{digest}");
    }
    Ok(())
}

fn node(arguments: &[&str]) -> Output {
    let folder = TempDir::new().unwrap();
    Command::new(Variant::Release.path().unwrap()).args(arguments).current_dir(&folder).output().unwrap()
}

/// Success and output of `--check-config` for a file with this text.
fn check(config: &str) -> (bool, String) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("node.yaml");
    std::fs::write(&file, config).unwrap();
    let output = node(&["--check-config", "--config", file.to_str().unwrap()]);
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn help_and_version_are_printed() {
    let help = node(&["--help"]);
    assert!(help.status.success());
    let text = String::from_utf8_lossy(&help.stdout);
    for word in ["--config", "--check-config", "--version"] {
        assert!(text.contains(word), "{text}");
    }
    let version = node(&["--version"]);
    assert!(version.status.success());
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_unknown_argument_is_rejected() {
    assert!(!node(&["--prot", "5000"]).status.success());
}

#[test]
fn a_valid_configuration_is_reported_as_valid() {
    let (good, said) = check("store: {capacity: 10Gi, lowFree: 5%, targetFree: 15%}\nlog: {format: Json}\n");
    assert!(good, "{said}");
}

#[test]
fn an_invalid_configuration_is_rejected_with_the_path_of_the_field() {
    for (config, path) in [
        ("store: {lowFre: 10%}", "store.lowFre"),
        ("store: {lowFree: 30%, targetFree: 20%}", "store.targetFree"),
        ("http: {listen: everywhere}", "http.listen"),
        ("bucket: {fileSystem: null}", "bucket"),
        ("bucket: {s3: {name: images}, fileSystem: {path: entrepot-data/bucket}}", "bucket: "),
        ("node: {peerUrl: 'http://{node}.x:5000/path?q#z'}", "node.peerUrl"),
        ("bucket: {s3: {name: images, endpoint: 'http://s3/%zz'}}", "bucket.s3.endpoint"),
        ("replication: {mode: Never}", "replication.mode"),
        ("nodes: {}", "nodes"),
        ("http: [", "http"),
    ] {
        let (good, said) = check(config);
        assert!(!good && said.contains(path), "{config}: {said}");
    }
}

#[test]
fn a_node_does_not_start_with_an_invalid_configuration() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("node.yaml");
    std::fs::write(&file, "upload: {maxSession: 3}").unwrap();
    let output = node(&["--config", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("upload.maxSession"), "{said}");
}

#[test]
fn a_missing_configuration_file_is_named() {
    let output = node(&["--config", "nowhere.yaml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("nowhere.yaml"), "{said}");
}
