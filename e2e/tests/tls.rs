//! A node with TLS: what clients negotiate, what a change of its files does, and nodes that reach each
//! other over TLS.

use anyhow::{Context, Result, ensure};
use entrepot_config::{self as config, ClientCertificates, NodeName, PeerAddress, Peers};
use entrepot_e2e::client::location;
use entrepot_e2e::images::Layout;
use entrepot_e2e::node::Plan;
use entrepot_e2e::node_binary::Variant;
use entrepot_e2e::pki::{Authority, Identity};
use entrepot_e2e::podman::Podman;
use entrepot_e2e::servers::free_port;
use entrepot_e2e::{Content, Node, Registry, commands, tools, wait};
use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// A node reads its files every two seconds; nothing here takes this long unless it hangs.
const DEADLINE: Duration = Duration::from_secs(60);
/// Requests that must succeed while the certificate changes.
const REQUESTS: usize = 1000;

/// A mounted Secret: a link to the folder of the current version, as the kubelet makes it.
struct Mounted {
    folder: TempDir,
    versions: AtomicUsize,
    authority: Authority,
}

impl Mounted {
    /// With a certificate for these names and for 127.0.0.1.
    fn new(names: &[&str]) -> Mounted {
        let folder = TempDir::new().unwrap();
        let authority = Authority::new(&folder.path().join("pki")).unwrap();
        let mounted = Mounted { folder, versions: AtomicUsize::new(0), authority };
        std::fs::copy(mounted.authority.certificate(), mounted.client_authority()).unwrap();
        mounted.swap(&mounted.issue(names));
        mounted
    }

    fn issue(&self, names: &[&str]) -> Identity {
        let hosts: Vec<String> =
            names.iter().chain(&["127.0.0.1", "localhost"]).map(|name| (*name).to_owned()).collect();
        self.authority.issue(names[0], "registry", &hosts).unwrap()
    }

    /// Makes a new version of both files current, in one step.
    fn swap(&self, identity: &Identity) {
        let version = self.versions.fetch_add(1, Ordering::SeqCst);
        let version = self.folder.path().join(format!("version-{version}"));
        std::fs::create_dir(&version).unwrap();
        std::fs::copy(&identity.certificate, version.join("tls.crt")).unwrap();
        std::fs::copy(&identity.key, version.join("tls.key")).unwrap();
        let link = self.folder.path().join("new");
        symlink(&version, &link).unwrap();
        std::fs::rename(link, self.folder.path().join("current")).unwrap();
    }

    fn cert(&self) -> PathBuf {
        self.folder.path().join("current/tls.crt")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("current/tls.key")
    }

    fn client_authority(&self) -> PathBuf {
        self.folder.path().join("client-ca.crt")
    }

    fn tls(&self) -> config::Tls {
        config::Tls { cert_file: self.cert(), key_file: self.key(), ..config::Tls::default() }
    }

    fn registry(&self, node: &Node) -> Registry {
        node.registry.over_tls(&self.authority.certificate(), None).unwrap()
    }
}

/// A node with a folder as its bucket. The unoptimised build: what counts here is its behaviour.
fn plan(bucket: &Path, tls: config::Tls) -> Plan {
    let mut plan = Plan::over_folder(bucket).with(|config| config.http.tls = Some(tls));
    plan.variant = Variant::CrashPoints;
    plan
}

struct One {
    node: Node,
    mounted: Mounted,
    bucket: TempDir,
}

impl One {
    async fn start(change: impl FnOnce(&Mounted, &mut config::Tls)) -> One {
        let (mounted, bucket) = (Mounted::new(&["first.example"]), TempDir::new().unwrap());
        let mut tls = mounted.tls();
        change(&mounted, &mut tls);
        let node = plan(bucket.path(), tls).start().await.unwrap();
        One { node, mounted, bucket }
    }

    fn host(&self) -> &str {
        self.node.registry.host()
    }

    async fn status(&self) -> serde_json::Value {
        self.node.operations().get("/status").await.unwrap().json().unwrap()["tls"].clone()
    }

    async fn until_serves(&self, name: &str) {
        let serves = || async { self.status().await["certificate"]["names"][0] == name };
        wait::until(&format!("the node serves {name}"), DEADLINE, serves).await.unwrap();
    }

    async fn until_refused(&self) -> String {
        let refused = || async { self.status().await["refused"].as_str().map(str::to_owned) };
        wait::value("the node refuses the files", DEADLINE, refused).await.unwrap()
    }

    /// Connects with OpenSSL, sends a request, and returns all that it prints.
    async fn openssl(&self, arguments: &[&str]) -> Result<String> {
        let authority = self.mounted.authority.certificate();
        let mut command = Command::new(tools::system("openssl")?);
        command.args(["s_client", "-ign_eof", "-verify_return_error", "-verify_hostname", "localhost"]);
        command.args(["-connect", self.host(), "-CAfile"]).arg(authority).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut input = child.stdin.take().context("no standard input")?;
        // OpenSSL may end before it reads the request.
        let _ = input.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        drop(input);
        let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.context("openssl hangs")??;
        let text = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    async fn curl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(tools::system("curl")?);
        commands::run(command.args(["--silent", "--show-error", "--noproxy", "*"]).args(arguments)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_negotiate_tls_1_2_or_1_3_and_http_2_or_1() {
    let one = One::start(|_, _| {}).await;
    for (version, said) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        for (offered, chosen) in [("h2,http/1.1", "h2"), ("http/1.1", "http/1.1")] {
            let text = one.openssl(&[version, "-alpn", offered]).await.unwrap();
            assert!(text.contains(&format!("New, {said}, Cipher is")), "{text}");
            assert!(text.contains(&format!("ALPN protocol: {chosen}")), "{text}");
            assert!(text.contains("HTTP/1.1 200 OK") && text.contains("Verify return code: 0 (ok)"), "{text}");
        }
    }
    // The security level admits the protocol at the client, so that it is the node that refuses.
    let text = one.openssl(&["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]).await.unwrap();
    assert!(!text.contains("HTTP/1.1 200 OK") && text.contains("alert"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_not_resumed_after_the_certificate_changed() {
    let one = One::start(|_, _| {}).await;
    let file = one.bucket.path().join("session");
    let file = file.to_str().unwrap();
    for (version, before, after) in [("-tls1_2", "a.example", "b.example"), ("-tls1_3", "c.example", "d.example")] {
        one.mounted.swap(&one.mounted.issue(&[before]));
        one.until_serves(before).await;
        let text = one.openssl(&[version, "-sess_out", file]).await.unwrap();
        assert!(text.contains("New, "), "{text}");
        let text = one.openssl(&[version, "-sess_in", file]).await.unwrap();
        assert!(text.contains("Reused, "), "{text}");
        one.mounted.swap(&one.mounted.issue(&[after]));
        one.until_serves(after).await;
        let text = one.openssl(&[version, "-sess_in", file]).await.unwrap();
        assert!(text.contains("New, ") && text.contains("HTTP/1.1 200 OK"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_authority_was_removed_does_not_come_in_by_its_session() {
    let one = One::start(|mounted, tls| tls.client_ca_file = Some(mounted.client_authority())).await;
    let alice = one.mounted.authority.issue("alice", "sre", &[]).unwrap();
    let (certificate, key) = (alice.certificate.to_str().unwrap(), alice.key.to_str().unwrap());
    let file = one.bucket.path().join("session");
    let file = file.to_str().unwrap();
    let as_alice = |version, session| vec![version, "-cert", certificate, "-key", key, session, file];
    let seen = |one: &One| one.node.log().matches("client=\"alice\"").count();
    for (version, first, second) in [("-tls1_2", "a.example", "b.example"), ("-tls1_3", "c.example", "d.example")] {
        std::fs::copy(one.mounted.authority.certificate(), one.mounted.client_authority()).unwrap();
        one.mounted.swap(&one.mounted.issue(&[first]));
        one.until_serves(first).await;
        let text = one.openssl(&as_alice(version, "-sess_out")).await.unwrap();
        assert!(text.contains("HTTP/1.1 200 OK"), "{text}");
        let before = seen(&one);
        assert!(before > 0, "{}", one.node.log());
        let other = Authority::new(&one.bucket.path().join(version)).unwrap();
        std::fs::copy(other.certificate(), one.mounted.client_authority()).unwrap();
        // The name shows when the node uses both files.
        one.mounted.swap(&one.mounted.issue(&[second]));
        one.until_serves(second).await;
        // OpenSSL writes no file for a session that cannot be resumed.
        let session = if Path::new(file).exists() { "-sess_in" } else { "-sess_out" };
        let text = one.openssl(&as_alice(version, session)).await.unwrap();
        assert!(!text.contains("Reused, ") && !text.contains("HTTP/1.1 200 OK"), "{text}");
        assert_eq!(seen(&one), before);
        // Without a certificate she is anybody.
        let text = one.openssl(&[version]).await.unwrap();
        assert!(text.contains("HTTP/1.1 200 OK"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_while_the_certificate_changes() {
    let one = One::start(|_, _| {}).await;
    let (done, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let kept = one.mounted.registry(&one.node);
    let client = |connects: bool| {
        let (one, done, stop, kept) = (&one, &done, &stop, kept.clone());
        async move {
            while !stop.load(Ordering::SeqCst) {
                let registry = if connects { one.mounted.registry(&one.node) } else { kept.clone() };
                registry.get("/v2/").await?.expect(200)?;
                done.fetch_add(1, Ordering::SeqCst);
            }
            anyhow::Ok(())
        }
    };
    let swaps = async {
        for name in ["second.example", "third.example", "fourth.example"] {
            let before = done.load(Ordering::SeqCst);
            one.mounted.swap(&one.mounted.issue(&[name]));
            one.until_serves(name).await;
            let enough = || async { done.load(Ordering::SeqCst) >= before + REQUESTS / 3 };
            wait::until("clients sent more requests", DEADLINE, enough).await?;
        }
        stop.store(true, Ordering::SeqCst);
        anyhow::Ok(())
    };
    let clients = futures::future::try_join_all([true, true, true, false, false, false].map(client));
    let (swapped, served) = tokio::join!(swaps, clients);
    served.unwrap();
    swapped.unwrap();
    assert!(done.load(Ordering::SeqCst) >= REQUESTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_key_of_another_certificate_the_previous_one_stays() {
    let one = One::start(|_, _| {}).await;
    let other = one.mounted.issue(&["second.example"]);
    let key = std::fs::read(one.mounted.key()).unwrap();
    std::fs::copy(&other.key, one.mounted.key()).unwrap();
    let why = one.until_refused().await;
    assert!(why.starts_with("http.tls.keyFile: ") && why.contains("does not belong"), "{why}");
    one.mounted.registry(&one.node).get("/v2/").await.unwrap().expect(200).unwrap();
    let metrics = one.node.metrics().await.unwrap();
    assert_eq!(metrics.sum("tls_refused", &[]), 1.0);
    assert!(metrics.sum("tls_not_after_seconds", &[]) > 1.7e9);
    assert_eq!(one.status().await["certificate"]["names"][0], "first.example");
    std::fs::write(one.mounted.key(), key).unwrap();
    let mended = || async { one.node.metrics().await.unwrap().sum("tls_refused", &[]) == 0.0 };
    wait::until("the files are used again", DEADLINE, mended).await.unwrap();
    assert_eq!(one.node.log().matches("keeping the previous ones").count(), 1, "one line for one problem");
    assert!(!one.node.log().contains("PRIVATE KEY"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_not_start_with_the_key_of_another_certificate() {
    let (mounted, bucket) = (Mounted::new(&["first.example"]), TempDir::new().unwrap());
    std::fs::copy(mounted.issue(&["second.example"]).key, mounted.key()).unwrap();
    let error = plan(bucket.path(), mounted.tls()).start().await.err().expect("it does not start");
    assert!(format!("{error:#}").contains("http.tls.keyFile: "), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_speaks_https_and_learns_that_http_is_wrong() {
    let one = One::start(|_, _| {}).await;
    let authority = one.mounted.authority.certificate();
    let authority = authority.to_str().unwrap();
    let url = format!("https://{}/v2/", one.host());
    for (protocol, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let format = "%{http_version} %{http_code}";
        let arguments = ["--cacert", authority, protocol, "--write-out", format, "--output", "/dev/null", &url];
        assert_eq!(one.curl(&arguments).await.unwrap(), format!("{version} 200"));
    }
    let plain = one.curl(&["--write-out", "%{http_code}", &url.replace("https", "http")]).await.unwrap();
    assert!(plain.contains("this port speaks HTTPS") && plain.ends_with("400"), "{plain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_pushes_and_pulls_over_https() {
    let one = One::start(|_, _| {}).await;
    let mut layout = Layout::new().unwrap();
    let image = layout.image("amd64", &[layout.layer("a", 100_000).unwrap()]).unwrap();
    layout.tag(&image, "v1").unwrap();
    let authorities = TempDir::new().unwrap();
    std::fs::copy(one.mounted.authority.certificate(), authorities.path().join("ca.crt")).unwrap();
    let podman = Podman::over_tls(authorities.path()).unwrap();
    let reference = format!("{}/podman/app:v1", one.host());
    let (id, _) = podman.push(layout.path(), "v1", &reference).await.unwrap();
    assert_eq!(podman.pull(&reference).await.unwrap(), id);
}

/// Two nodes that reach each other over TLS.
async fn pair(clients: ClientCertificates) -> Result<(Mounted, TempDir, [Node; 2])> {
    let (mounted, bucket) = (Mounted::new(&["nodes.example"]), TempDir::new()?);
    let ports = [free_port()?, free_port()?];
    let peers = ["a", "b"].into_iter().zip(ports);
    let peers = peers.map(|(name, port)| Ok((name.to_owned(), format!("https://localhost:{port}").parse()?)));
    let peers = Peers::Listed(peers.collect::<Result<BTreeMap<_, PeerAddress>>>()?);
    let node = |name: &str, port: u16| {
        let authority = mounted.client_authority();
        let tls =
            config::Tls { client_ca_file: Some(authority.clone()), client_certificates: clients, ..mounted.tls() };
        let plan = plan(bucket.path(), tls).with(|config| {
            config.node.name = NodeName::parse(name).unwrap();
            config.node.peers = Some(peers.clone());
            config.node.peer_ca_file = Some(authority);
            config.http.listen.set_port(port);
        });
        plan.start()
    };
    let nodes = [node("a", ports[0]).await?, node("b", ports[1]).await?];
    Ok((mounted, bucket, nodes))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_continues_at_another_node_over_tls() {
    for clients in [ClientCertificates::Optional, ClientCertificates::Required] {
        let (mounted, _bucket, nodes) = pair(clients).await.unwrap();
        let alice = mounted.authority.issue("alice", "sre", &[]).unwrap();
        let over_tls = |node: &Node| node.registry.over_tls(&mounted.authority.certificate(), Some(&alice)).unwrap();
        let [a, b] = [over_tls(&nodes[0]), over_tls(&nodes[1])];
        let blob = Content::fresh(3 << 20);
        let session = a.open_session("nodes/app").await.unwrap();
        let first = b.append(&session, &blob, 0, 2 << 20).await.unwrap().expect(202).unwrap();
        let second =
            a.append(&location(&first).unwrap(), &blob, 2 << 20, blob.size).await.unwrap().expect(202).unwrap();
        b.finish(&location(&second).unwrap(), &blob.digest).await.unwrap().expect(201).unwrap();
        a.pull("nodes/app", &blob.digest).await.unwrap();
        check_refused(&nodes[0], clients).await.unwrap();
    }
}

/// A client without a certificate is refused where one is required.
async fn check_refused(node: &Node, clients: ClientCertificates) -> Result<()> {
    let mut command = Command::new(tools::system("curl")?);
    let url = format!("https://{}/v2/", node.registry.host());
    let said = commands::run(command.args(["--silent", "--show-error", "--insecure", "--noproxy", "*", &url])).await;
    ensure!(said.is_ok() == (clients == ClientCertificates::Optional), "{clients:?}: {said:?}");
    Ok(())
}
