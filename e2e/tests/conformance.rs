//! The conformance suite of the OCI distribution-spec, for version 1.1 and the next version, with
//! every optional API enabled, over every kind of bucket.

use anyhow::{Context, Result, ensure};
use entrepot_config::{AllowedUrls, NodeConfig};
use entrepot_e2e::node::Plan;
use entrepot_e2e::node_binary::Variant;
use entrepot_e2e::servers::{Minio, Versitygw};
use entrepot_e2e::tools::Tool;
use entrepot_e2e::{Registry, s3};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Versions of the specification by the suite's names, with the tests that are enabled beyond the
/// defaults: headers that Docker needs, cancelling of uploads, and, in the next version, tags that
/// are pushed with a digest.
const VERSIONS: [(&str, &[&str]); 2] = [
    ("1.1", &["OCI_API_BLOBS_UPLOAD_CANCEL", "OCI_API_BLOBS_DIGEST_HEADER", "OCI_API_MANIFESTS_DIGEST_HEADER"]),
    (
        "dev",
        &[
            "OCI_API_BLOBS_UPLOAD_CANCEL",
            "OCI_API_BLOBS_DIGEST_HEADER",
            "OCI_API_MANIFESTS_DIGEST_HEADER",
            "OCI_API_MANIFESTS_TAG_PARAM",
        ],
    ),
];

/// Allowed skips: the end of the test's name, and why the node does not support it.
const ALLOWED_SKIPS: [(&str, &str); 1] = [(
    "mount anonymous/blob-mount-anonymous",
    "a mount without a source repository: content is served only through a repository that links it, so there is \
     nothing to take the right to mount from; the specification then wants 202 and an upload, which is what is tested",
)];

/// The user that the suite has, and the password.
const USER: &str = "tester";
const PASSWORD: &str = "tester-password";

/// A node that accepts the URLs in the suite's manifests.
fn plan(plan: Plan) -> Plan {
    let hosts = AllowedUrls::new(vec!["store.example.com".to_owned()]).unwrap();
    plan.with(|config| config.upload.allowed_urls = hosts)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_passes_over_a_folder() {
    let folder = TempDir::new().unwrap();
    let node = plan(Plan::over_folder(folder.path())).start().await.unwrap();
    assert_conformance("a folder", &node.registry).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_passes_over_versitygw() {
    let (server, keys) = (Versitygw::start().await.unwrap(), TempDir::new().unwrap());
    let bucket = s3::node_bucket(&server.s3.endpoint, keys.path()).unwrap();
    let node = plan(Plan::over(bucket)).start().await.unwrap();
    assert_conformance("versitygw", &node.registry).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_passes_over_minio() {
    let (server, keys) = (Minio::start().await.unwrap(), TempDir::new().unwrap());
    let bucket = s3::node_bucket(&server.s3.endpoint, keys.path()).unwrap();
    let node = plan(Plan::over(bucket)).start().await.unwrap();
    assert_conformance("MinIO", &node.registry).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_suite_passes_for_a_user_where_nobody_else_may_do_anything() {
    let (folder, files) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let users = files.path().join("users");
    let hash = bcrypt::hash(PASSWORD, 4).unwrap();
    std::fs::write(&users, format!("{USER}:{hash}\n")).unwrap();
    let auth = format!(
        "auth: {{users: {{file: '{}'}}, rules: [{{who: ['user:{USER}'], may: [delete], in: ['conformance-*/**']}}]}}",
        users.display()
    );
    let auth = NodeConfig::from_yaml(&auth).unwrap().auth;
    let mut plan = plan(Plan::over_folder(folder.path())).with(|config| config.auth = auth);
    // The unoptimised build: what counts here is its behaviour.
    plan.variant = Variant::CrashPoints;
    let node = plan.start().await.unwrap();
    node.registry.get("/v2/conformance-1.1/one/tags/list").await.unwrap().expect(401).unwrap();
    assert_conformance("a folder, with a user", &node.registry).unwrap();
    let log = node.log();
    for secret in [PASSWORD, &hash, "eyJ"] {
        assert!(!log.contains(secret), "the log contains {secret}");
    }
}

/// One test of the suite.
struct Case {
    name: String,
    status: String,
    /// The suite's message.
    output: String,
}

fn assert_conformance(over: &str, registry: &Registry) -> Result<()> {
    for (version, optional) in VERSIONS {
        assert_version(&format!("{version} over {over}"), registry, version, optional)?;
    }
    Ok(())
}

fn assert_version(what: &str, registry: &Registry, version: &str, optional: &[&str]) -> Result<()> {
    let cases = run_suite(registry, version, optional)?;
    let mut counts = BTreeMap::new();
    for case in &cases {
        *counts.entry(case.status.as_str()).or_insert(0) += 1;
    }
    println!("conformance {what}: {} tests, {counts:?}", cases.len());
    let of = |status: &'static str| cases.iter().filter(move |case| case.status == status);
    let wrong: Vec<_> = cases.iter().filter(|case| !matches!(case.status.as_str(), "passed" | "skipped")).collect();
    for case in &wrong {
        println!("  {} {}: {}", case.status, case.name, case.output);
    }
    for skipped in of("skipped") {
        let allowed = ALLOWED_SKIPS.iter().find(|(name, _)| skipped.name.ends_with(name));
        let (_, reason) = allowed.with_context(|| format!("skipped: {}: {}", skipped.name, skipped.output))?;
        println!("  skipped {}: {reason}", skipped.name);
    }
    ensure!(wrong.is_empty(), "{} of {} tests failed", wrong.len(), cases.len());
    ensure!(of("passed").count() > 500, "the suite ran only {} tests", of("passed").count());
    Ok(())
}

fn run_suite(registry: &Registry, version: &str, optional: &[&str]) -> Result<Vec<Case>> {
    let results = TempDir::new()?;
    let (repository, other) = (format!("conformance-{version}/one"), format!("conformance-{version}/other"));
    let environment = [
        ("OCI_REGISTRY", registry.host()),
        ("OCI_TLS", "disabled"),
        ("OCI_VERSION", version),
        ("OCI_REPO1", &repository),
        ("OCI_REPO2", &other),
        // Sent only where the registry asks for them.
        ("OCI_USERNAME", USER),
        ("OCI_PASSWORD", PASSWORD),
    ];
    // Its exit status is ignored: it fails if a test failed, and the report has the details.
    Command::new(Tool::Conformance.path()?)
        .envs(environment)
        .envs(optional.iter().map(|name| (name, "true")))
        .env("OCI_RESULTS_DIR", results.path())
        .current_dir(&results)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    report(&results.path().join("junit.xml"))
}

fn report(path: &Path) -> Result<Vec<Case>> {
    let text = std::fs::read_to_string(path).context("cannot read the report of the suite")?;
    let document = roxmltree::Document::parse(&text)?;
    let tests = document.descendants().filter(|node| node.has_tag_name("testcase"));
    Ok(tests
        .map(|test| {
            let output = test.children().find(|child| child.has_tag_name("system-out"));
            Case {
                name: test.attribute("name").unwrap_or_default().to_owned(),
                status: test.attribute("status").unwrap_or("unknown").to_owned(),
                output: output.and_then(|output| output.text()).unwrap_or_default().to_owned(),
            }
        })
        .collect())
}
