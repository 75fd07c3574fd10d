//! The modes of the files of a node, which starts as a program with a permissive umask.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use entrepot_oci::{Algorithm, Digest};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running node. Dropping it kills it.
struct Program {
    child: Child,
    address: String,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    fn start(folder: &Path) -> Program {
        let config = "http: {listen: 127.0.0.1:0}\noperations: {listen: 127.0.0.1:0}\n\
            bucket: {fileSystem: {path: data/bucket}}\nstore: {path: data/store, capacity: 64Mi}\n\
            replication: {mode: WriteBack}\n";
        fs::write(folder.join("node.yaml"), config).unwrap();
        // The last argument of `sh -c` is `$0`.
        let mut child = Command::new("sh")
            .args(["-c", "umask 0; exec \"$0\" --config node.yaml", env!("CARGO_BIN_EXE_entrepot-node")])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut registry = lines.map(Result::unwrap).filter_map(|line| Some(line.split_once("http://")?.1.to_owned()));
        let address = registry.next().expect("the node has not printed its address");
        Program { child, address }
    }

    /// Sends a request and returns the response.
    fn ask(&self, method: &str, target: &str, content_type: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {content_type}\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

/// Every path below the folder with its mode.
fn modes(folder: &Path, found: &mut Vec<(String, u32)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Files may come and go while the node runs.
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        found.push((path.display().to_string(), metadata.permissions().mode() & 0o777));
        if metadata.is_dir() {
            modes(&path, found);
        }
    }
}

#[test]
fn no_other_user_may_read_the_files_of_a_node_whatever_its_umask() {
    let folder = tempfile::tempdir().unwrap();
    let node = Program::start(folder.path());
    let digest = Digest::of(Algorithm::Sha256, b"layer");
    let pushed =
        node.ask("POST", &format!("/v2/a/blobs/uploads/?digest={digest}"), "application/octet-stream", b"layer");
    assert!(pushed.starts_with("HTTP/1.1 201"), "{pushed}");
    let descriptor = format!(r#"{{"mediaType":"m","digest":"{digest}","size":5}}"#);
    let manifest = format!(r#"{{"schemaVersion":2,"config":{descriptor},"layers":[{descriptor}]}}"#);
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let pushed = node.ask("PUT", "/v2/a/manifests/latest", kind, manifest.as_bytes());
    assert!(pushed.starts_with("HTTP/1.1 201"), "{pushed}");
    let opened = node.ask("POST", "/v2/a/blobs/uploads/", "application/octet-stream", b"");
    assert!(opened.starts_with("HTTP/1.1 202"), "{opened}");
    let mut found = Vec::new();
    modes(&folder.path().join("data"), &mut found);
    let others: Vec<_> = found.iter().filter(|(_, mode)| ![0o600, 0o700].contains(mode)).collect();
    assert!(others.is_empty(), "{others:#?}");
    for part in [
        "store/blobs/sha256",
        "store/uploads/",
        "store/records.redb",
        "bucket/docker/registry/v2/blobs/",
        "/current/link",
    ] {
        assert!(found.iter().any(|(path, _)| path.contains(part)), "{part} in {found:#?}");
    }
}

#[test]
fn an_endpoint_with_a_secret_is_refused_and_not_printed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.yaml");
    for endpoint in
        ["http://user:hush@s3:7070", "ftp://user:hush@s3", "http://s3:7070/?key=hush", "http://s3:7070#hush"]
    {
        fs::write(&file, format!("bucket: {{s3: {{name: images, endpoint: '{endpoint}'}}}}\n")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_entrepot-node"));
        let checked = command.arg("--check-config").arg("--config").arg(&file).output().unwrap();
        let said = [checked.stdout, checked.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(checked.status.code(), Some(2), "{endpoint}: {said}");
        assert!(said.contains("bucket.s3.endpoint") && !said.contains("hush"), "{endpoint}: {said}");
    }
}
