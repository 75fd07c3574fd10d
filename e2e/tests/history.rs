//! Runs clients and faults against three nodes and checks the history. Also tests the checks
//! themselves: they find violations, and only those.

use anyhow::Result;
use entrepot_e2e::history::client::{Scene, Server};
use entrepot_e2e::history::model::{Model, Pushed};
use entrepot_e2e::history::record::{Kind, Outcome, Record, Recorder};
use entrepot_e2e::history::violations::{Broken, Violations};
use entrepot_e2e::history::{check_images, check_listings, check_tags, fresh_seed, run_all};
use entrepot_e2e::node::Plan;
use entrepot_e2e::node_binary::Variant;
use entrepot_e2e::push::Image;
use entrepot_e2e::{Node, Registry, s3};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Duration for both buckets together.
const LENGTH: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn clients_and_faults_break_no_promise() {
    assert!(run_all(fresh_seed(), LENGTH, None, false).await.unwrap(), "there were violations; see above");
}

/// Operations on one tag, each of which is complete before the next is sent.
struct History {
    records: Vec<Record>,
}

impl History {
    fn new() -> History {
        History { records: Vec::new() }
    }

    fn then(mut self, kind: Kind, digest: &str, status: Option<u16>) -> History {
        let id = self.records.len() as u64 + 1;
        let outcome = Outcome::of(status);
        self.records.push(Record {
            id,
            client: "client".into(),
            at: "node".into(),
            kind,
            repository: "r".into(),
            tag: (kind != Kind::DeleteManifest).then(|| "t".into()),
            digest: Some(digest.to_owned()).filter(|digest| !digest.is_empty()),
            call: id * 10,
            returned: (outcome != Outcome::Unknown).then_some(id * 10 + 5),
            status,
            outcome,
            stale: false,
        });
        self
    }

    fn push(self, digest: &str) -> History {
        self.then(Kind::PushManifest, digest, Some(201))
    }

    fn read(self, digest: &str) -> History {
        self.then(Kind::ReadTag, digest, Some(200))
    }

    fn read_nothing(self) -> History {
        self.then(Kind::ReadTag, "", Some(404))
    }

    async fn has_an_order(&self) -> bool {
        let (folder, violations) = (TempDir::new().unwrap(), Violations::default());
        let file = folder.path().join("tags.jsonl");
        assert_eq!(check_tags::check(&self.records, &file, &violations).await.unwrap(), 0);
        violations.total() == 0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_with_an_order_is_accepted() {
    let deleted = |status| History::new().push("a").then(Kind::DeleteManifest, "a", status);
    for (name, history) in [
        ("pushed and read", History::new().push("a").read("a").push("b").read("b")),
        ("deleted", deleted(Some(202)).read_nothing()),
        ("another manifest deleted", History::new().push("a").then(Kind::DeleteManifest, "b", Some(202)).read("a")),
        ("a deletion that takes effect late", deleted(Some(503)).read("a").read_nothing()),
        ("a deletion that never takes effect", deleted(None).read("a").read("a")),
        ("a refused push", History::new().push("a").then(Kind::PushManifest, "b", Some(400)).read("a")),
        ("an unanswered push", History::new().push("a").then(Kind::PushManifest, "b", None).read("a").read("b")),
    ] {
        assert!(history.has_an_order().await, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_without_an_order_is_found() {
    for (name, history) in [
        ("a lost push", History::new().push("a").read_nothing()),
        ("an old value", History::new().push("a").push("b").read("a")),
        ("back and forth", History::new().push("a").then(Kind::PushManifest, "b", None).read("b").read("a")),
        ("a deletion of a manifest that the tag no longer names", {
            History::new().push("a").push("b").then(Kind::DeleteManifest, "a", Some(202)).read_nothing()
        }),
        ("a deleted tag that still exists", History::new().push("a").then(Kind::DeleteTag, "", Some(202)).read("a")),
        ("a digest that was never pushed", History::new().push("a").read("b")),
    ] {
        assert!(!history.has_an_order().await, "{name}");
    }
}

/// A node over a folder, and an image that it acknowledged.
struct Setting {
    node: Node,
    bucket: TempDir,
    model: Model,
    pushed: Pushed,
    _folder: TempDir,
}

impl Setting {
    async fn new() -> Result<Setting> {
        let (bucket, folder) = (TempDir::new()?, TempDir::new()?);
        let model = Model::new(Recorder::new(&folder.path().join("history.jsonl"))?);
        let mut plan = Plan::over_folder(bucket.path());
        plan.variant = Variant::CrashPoints;
        let node = plan.start().await?;
        let [repository, ..] = Scene::repositories(0);
        let image = Arc::new(Image::fresh(&[1000]));
        let call = model.recorder.now();
        let attempt = Pushed {
            repository: repository.clone(),
            image: image.clone(),
            subject: None,
            call,
            acknowledged: None,
            epoch: 0,
        };
        let place = model.state().push(attempt.clone());
        node.registry.push_image(&repository, "t", &image).await?;
        model.state().acknowledge(place, model.recorder.now());
        Ok(Setting { node, bucket, model, pushed: attempt, _folder: folder })
    }

    fn servers(&self) -> [Server; 1] {
        [Server { name: "node".into(), registry: self.node.registry.clone(), disk: None }]
    }

    /// Restarts the node without its store and caches.
    async fn forget(&mut self) -> Result<()> {
        self.node.kill()?;
        std::fs::remove_dir_all(self.node.store())?;
        self.node.start_again().await
    }

    async fn violations(&self) -> Vec<Broken> {
        let servers = self.servers();
        check_listings::check(&self.model, &servers, 0, &[], None).await;
        check_images::check(&self.model, &servers, "now").await;
        self.model.violations.counts().into_keys().collect()
    }

    fn key(&self, key: &str) -> std::path::PathBuf {
        self.bucket.path().join(key)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_and_listed_image_is_no_violation() {
    let setting = Setting::new().await.unwrap();
    assert_eq!(setting.violations().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_layer_is_found_unless_a_client_deleted_it() {
    let mut setting = Setting::new().await.unwrap();
    let layer = setting.pushed.image.layers[0].digest;
    std::fs::remove_file(setting.key(&s3::content_key(&layer))).unwrap();
    setting.forget().await.unwrap();
    let place = setting.model.state().delete(&setting.pushed.repository, layer);
    assert_eq!(setting.violations().await, [], "a deletion is pending");
    setting.model.state().end_deletion(place, 0);
    assert_eq!(setting.violations().await, [Broken::Image], "the deletion ended before the push");
}

/// A registry that responds to these paths, and with 404 to all others.
async fn registry_of(answers: Vec<(String, Vec<u8>)>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let registry = Registry::new(&format!("http://{}", listener.local_addr().unwrap()));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap();
            let answer = answers.iter().find(|(known, _)| known == path);
            let (status, body) = answer.map_or((404, &[] as &[u8]), |(_, body)| (200, body.as_slice()));
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        }
    });
    Server { name: "a wrong registry".into(), registry, disk: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_found() {
    let setting = Setting::new().await.unwrap();
    let (repository, image) = (&setting.pushed.repository, &setting.pushed.image);
    let mut answers = vec![(format!("/v2/{repository}/manifests/{}", image.digest), image.manifest.clone())];
    answers.extend(image.blobs().map(|blob| (format!("/v2/{repository}/blobs/{}", blob.digest), vec![0; 1000])));
    check_images::check(&setting.model, &[registry_of(answers).await], "now").await;
    let found: Vec<_> = setting.model.violations.counts().into_keys().collect();
    assert_eq!(found, [Broken::Image, Broken::Bytes]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_is_listed_and_absent_is_found() {
    let setting = Setting::new().await.unwrap();
    let list = format!("/v2/{}/tags/list", setting.pushed.repository);
    let server = registry_of(vec![(list, br#"{"tags": ["ghost"]}"#.to_vec())]).await;
    check_listings::check(&setting.model, &[server], 0, &[], None).await;
    let found: Vec<_> = setting.model.violations.counts().into_keys().collect();
    assert_eq!(found, [Broken::GhostTag]);
}
