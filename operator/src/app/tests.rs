//! The whole operator against an API server that holds a few RegistryClusters and accepts every
//! write except those that a test makes it refuse.

use super::*;
use crate::testing::{cluster, installation};
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::client::Body;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Mutex;
use tokio::sync::{Notify, mpsc};

/// Time limit for what a test waits for.
const TIMEOUT: Duration = Duration::from_secs(30);

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;
/// Code and message with which a request fails; `None` if it succeeds.
type Refusal = fn(&Method, &str) -> Option<(u16, &'static str)>;

struct Server {
    clusters: Vec<Value>,
    refuse: Refusal,
    /// Events of the watch of RegistryClusters.
    events: Mutex<Option<mpsc::UnboundedReceiver<String>>>,
    /// Paths and bodies of all writes, in order.
    writes: Mutex<Vec<(String, Value)>>,
    written: Notify,
}

fn body(value: &Value) -> UnsyncBoxBody<Bytes, Infallible> {
    Full::new(Bytes::from(value.to_string())).boxed_unsync()
}

impl Server {
    async fn answer(&self, request: Request<Body>) -> Result<Answer, Infallible> {
        let (head, sent) = request.into_parts();
        let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default().to_owned());
        let code = |code: u16, value: Value| Ok(Response::builder().status(code).body(body(&value)).unwrap());
        if let Some((number, message)) = (self.refuse)(&head.method, &path) {
            return code(number, json!({"kind": "Status", "status": "Failure", "code": number, "message": message}));
        }
        if head.method == Method::GET {
            if query.contains("watch=") {
                let events = path.contains("registryclusters").then(|| self.events.lock().unwrap().take()).flatten();
                return Ok(Response::new(watched(events)));
            }
            return match by_name(&path) {
                None => code(200, json!({"metadata": {"resourceVersion": "1"}, "items": self.listed(&path)})),
                Some("secrets/s3") => code(200, secret(&json!({"entrepot.dev/use": "bucket"}))),
                Some("secrets/ca") => code(200, secret(&json!({"entrepot.dev/use": "ca"}))),
                Some("secrets/database") => code(200, secret(&json!({"app": "database"}))),
                Some(_) => code(404, json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound"})),
            };
        }
        let sent = sent.collect().await.unwrap().to_bytes();
        let mut object: Value = serde_json::from_slice(&sent).unwrap_or_default();
        self.writes.lock().unwrap().push((path.clone(), object.clone()));
        self.written.notify_waiters();
        // Like the real API server, the response to a status write is the whole object with its
        // spec.
        if let Some(cluster) = self.clusters.iter().find(|cluster| path.ends_with(&path_below(cluster, "status"))) {
            object = cluster.clone();
        }
        code(200, object)
    }

    /// The objects of a list: of a namespace, if the path has one.
    fn listed(&self, path: &str) -> Vec<Value> {
        let namespace = path.split_once("/namespaces/").and_then(|(_, below)| below.split('/').next());
        let mut clusters = if path.ends_with("/registryclusters") { self.clusters.clone() } else { Vec::new() };
        clusters.retain(|cluster| namespace.is_none_or(|namespace| cluster["metadata"]["namespace"] == namespace));
        clusters
    }

    fn written<T>(&self, find: impl Fn(&str, &Value) -> Option<T>) -> Option<T> {
        self.writes.lock().unwrap().iter().rev().find_map(|(path, body)| find(path, body))
    }

    /// Status, reason and message of a condition in the last status write.
    fn condition(&self, name: &str, kind: &str) -> Option<(String, String, String)> {
        self.written(|path, body| {
            let conditions = body["status"]["conditions"].as_array()?;
            let found = path.ends_with(&format!("/{name}/status")).then_some(conditions)?;
            let condition = found.iter().find(|condition| condition["type"] == kind)?;
            let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
            Some((text("status"), text("reason"), text("message")))
        })
    }

    fn has_applied(&self, plural: &str, name: &str) -> bool {
        self.written(|path, _| path.ends_with(&format!("/{plural}/{name}")).then_some(())).is_some()
    }
}

/// The metadata of a Secret; the operator asks for nothing else.
fn secret(labels: &Value) -> Value {
    let kind = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata"});
    json!({"apiVersion": kind["apiVersion"], "kind": kind["kind"], "metadata": {"name": "secret", "labels": labels}})
}

/// Kind and name, if the path has a name.
fn by_name(path: &str) -> Option<&str> {
    let (_, below) = path.split_once("/namespaces/")?;
    let (_, object) = below.split_once('/')?;
    object.contains('/').then_some(object)
}

fn path_below(cluster: &Value, below: &str) -> String {
    format!("/registryclusters/{}/{below}", cluster["metadata"]["name"].as_str().unwrap())
}

/// The response to a watch: sends these events and never ends.
fn watched(events: Option<mpsc::UnboundedReceiver<String>>) -> UnsyncBoxBody<Bytes, Infallible> {
    let events = futures::stream::unfold(events, |mut events| async {
        let event = match &mut events {
            Some(events) => events.recv().await,
            None => None,
        };
        match event {
            Some(event) => Some((Ok(Frame::data(Bytes::from(format!("{event}\n")))), events)),
            None => futures::future::pending().await,
        }
    });
    StreamBody::new(events).boxed_unsync()
}

/// Runs the operator for all namespaces until a condition holds, which is checked after each write.
async fn until(
    clusters: Vec<Value>,
    refuse: Refusal,
    events: mpsc::UnboundedReceiver<String>,
    lists: &Lists,
    holds: impl Fn(&Server) -> bool,
) -> Arc<Server> {
    until_in(&[], clusters, refuse, events, lists, holds).await
}

/// [`until`], for some namespaces.
async fn until_in(
    namespaces: &[&str],
    clusters: Vec<Value>,
    refuse: Refusal,
    events: mpsc::UnboundedReceiver<String>,
    lists: &Lists,
    holds: impl Fn(&Server) -> bool,
) -> Arc<Server> {
    let (writes, written) = (Mutex::default(), Notify::new());
    let server = Arc::new(Server { clusters, refuse, events: Mutex::new(Some(events)), writes, written });
    let answering = server.clone();
    let client = Client::new(
        tower::service_fn(move |request| {
            let server = answering.clone();
            async move { server.answer(request).await }
        }),
        "a",
    );
    let settings = Settings {
        installation: installation(),
        watch_namespaces: namespaces.iter().map(ToString::to_string).collect(),
        listen: ([127, 0, 0, 1], 0).into(),
        lease_name: "a".into(),
        identity: "a".into(),
    };
    let metrics = Arc::new(Metrics::new().unwrap());
    let stop = CancellationToken::new();
    let seen = async {
        loop {
            let written = server.written.notified();
            tokio::pin!(written);
            written.as_mut().enable();
            if holds(&server) {
                break;
            }
            written.await;
        }
    };
    tokio::select! {
        () = reconcile_until_stopped(client, (metrics, lists.clone()), &settings, &stop) => {
            panic!("the operator ended by itself");
        }
        seen = tokio::time::timeout(TIMEOUT, seen) => {
            assert!(seen.is_ok(), "the condition never held: {:#?}", server.writes.lock().unwrap());
        }
    }
    server
}

const fn accept_all(_: &Method, _: &str) -> Option<(u16, &'static str)> {
    None
}

fn matches(condition: Option<(String, String, String)>, status: &str, reason: &str, message: &str) -> bool {
    condition.is_some_and(|condition| condition.0 == status && condition.1 == reason && condition.2.contains(message))
}

#[tokio::test]
async fn an_undecodable_object_reports_it_and_the_others_are_reconciled() {
    let clusters = vec![
        cluster("typo", &json!({"scheduling": {"affinity": {"podAntiAfinity": {}}}})),
        cluster("lots", &json!({"resources": {"requests": {"memory": "lots"}}})),
        cluster("good", &json!({"resources": {"limits": {"memory": 4_294_967_296_u64}}})),
    ];
    let (lists, (_events, receiver)) = (Lists::default(), mpsc::unbounded_channel());
    let invalid = |server: &Server, name, path| matches(server.condition(name, "Ready"), "False", "InvalidSpec", path);
    let server = until(clusters, accept_all, receiver, &lists, |server| {
        server.condition("good", "Applied").is_some()
            && invalid(server, "typo", "spec.scheduling.affinity: podAntiAfinity: ")
            && invalid(server, "lots", "spec.resources.requests.memory: ")
    })
    .await;
    assert!(matches(server.condition("good", "Applied"), "True", "AllApplied", ""));
    let limit = server.written(|path, body| {
        let containers = &body["spec"]["template"]["spec"]["containers"];
        path.ends_with("/statefulsets/good").then(|| containers[0]["resources"]["limits"]["memory"].clone())
    });
    assert_eq!(limit, Some(json!("4294967296")));
    assert!(!server.has_applied("statefulsets", "typo") && !server.has_applied("configmaps", "lots-config"));
    let observed = server
        .written(|path, body| path.ends_with("/typo/status").then(|| body["status"]["observedGeneration"].clone()));
    assert_eq!(observed, Some(json!(3)));
    assert!(lists.problems().iter().all(|(_, problem)| problem.is_none()), "{:?}", lists.problems());
}

#[tokio::test]
async fn a_corrected_object_is_reconciled_at_once() {
    let (events, receiver) = mpsc::unbounded_channel();
    let typo = cluster("typo", &json!({"scheduling": {"affinity": {"podAntiAfinity": {}}}}));
    // In the API server's order of fields: the type comes before the object.
    let right = format!(r#"{{"type":"MODIFIED","object":{}}}"#, cluster("typo", &json!({})));
    until(vec![typo], accept_all, receiver, &Lists::default(), |server| {
        if matches(server.condition("typo", "Ready"), "False", "InvalidSpec", "") {
            events.send(right.clone()).unwrap();
        }
        server.has_applied("statefulsets", "typo")
            && matches(server.condition("typo", "Applied"), "True", "AllApplied", "")
    })
    .await;
}

#[tokio::test]
async fn without_permission_for_service_monitors_everything_else_is_applied() {
    fn refuse(_: &Method, path: &str) -> Option<(u16, &'static str)> {
        path.contains("servicemonitors").then_some((403, "servicemonitors is forbidden"))
    }
    let mut changed = cluster("changed", &json!({}));
    changed["status"] = json!({"observedGeneration": 2, "conditions": []});
    let asks = cluster("asks", &json!({"monitoring": {"serviceMonitor": true}}));
    let (_events, receiver) = mpsc::unbounded_channel();
    let server = until(vec![changed, asks], refuse, receiver, &Lists::default(), |server| {
        server.condition("changed", "Applied").is_some() && server.condition("asks", "Applied").is_some()
    })
    .await;
    assert!(
        matches(server.condition("changed", "Applied"), "True", "AllApplied", ""),
        "without a ServiceMonitor in the spec, no permission is needed"
    );
    assert!(matches(server.condition("asks", "Applied"), "False", "ApplyFailed", "servicemonitors is forbidden"));
    assert!(matches(server.condition("asks", "Ready"), "False", "NodesNotReady", ""), "Ready reports only the nodes");
    for name in ["changed", "asks"] {
        assert!(server.has_applied("statefulsets", name) && server.has_applied("services", name));
    }
}

#[tokio::test]
async fn a_service_monitor_without_its_crd_blocks_nothing_and_is_reported() {
    fn refuse(method: &Method, path: &str) -> Option<(u16, &'static str)> {
        let is_it = *method == Method::PATCH && path.contains("servicemonitors");
        is_it.then_some((404, "the server could not find the requested resource"))
    }
    let asks = cluster("asks", &json!({"monitoring": {"serviceMonitor": true}}));
    let (_events, receiver) = mpsc::unbounded_channel();
    let server =
        until(vec![asks], refuse, receiver, &Lists::default(), |server| server.condition("asks", "Applied").is_some())
            .await;
    assert!(matches(server.condition("asks", "Applied"), "False", "ApplyFailed", "CRD is not installed"));
    assert!(server.has_applied("statefulsets", "asks"));
}

#[tokio::test]
async fn a_child_whose_apply_ends_in_500_does_not_stop_others_and_is_reported() {
    fn refuse(method: &Method, path: &str) -> Option<(u16, &'static str)> {
        let is_it = *method == Method::PATCH && (path.contains("ingresses") || path.contains("poddisruptionbudgets"));
        is_it.then_some((500, "failed calling webhook"))
    }
    let mut known = cluster("known", &json!({"ingress": {"host": "images.example"}}));
    known["status"] = json!({"observedGeneration": 3, "conditions": []});
    let fresh = cluster("fresh", &json!({"ingress": {"host": "images.example"}}));
    let (_events, receiver) = mpsc::unbounded_channel();
    let server = until(vec![known, fresh], refuse, receiver, &Lists::default(), |server| {
        server.condition("known", "Applied").is_some() && server.condition("fresh", "Applied").is_some()
    })
    .await;
    for name in ["known", "fresh"] {
        let (status, _, message) = server.condition(name, "Applied").unwrap();
        assert_eq!(status, "False");
        assert_eq!(message.matches("failed calling webhook").count(), 2, "{message}");
        assert!(server.has_applied("statefulsets", name));
    }
}

#[tokio::test]
async fn nodes_wait_for_their_configuration_and_everything_else_is_applied() {
    fn refuse(method: &Method, path: &str) -> Option<(u16, &'static str)> {
        (*method == Method::PATCH && path.contains("configmaps")).then_some((403, "exceeded quota"))
    }
    let (_events, receiver) = mpsc::unbounded_channel();
    let server = until(vec![cluster("full", &json!({}))], refuse, receiver, &Lists::default(), |server| {
        server.condition("full", "Ready").is_some()
    })
    .await;
    assert!(matches(server.condition("full", "Ready"), "False", "ApplyFailed", "exceeded quota"));
    assert!(server.has_applied("services", "full") && server.has_applied("poddisruptionbudgets", "full"));
    assert!(!server.has_applied("statefulsets", "full"), "nodes would start with an outdated configuration");
}

#[tokio::test]
async fn a_failed_read_of_a_secret_is_reported_and_keeps_only_the_nodes_as_they_are() {
    fn refuse(_: &Method, path: &str) -> Option<(u16, &'static str)> {
        path.contains("secrets").then_some((403, "secrets is forbidden"))
    }
    let (_events, receiver) = mpsc::unbounded_channel();
    let server = until(vec![cluster("blind", &json!({}))], refuse, receiver, &Lists::default(), |server| {
        server.condition("blind", "Applied").is_some()
    })
    .await;
    assert!(matches(server.condition("blind", "Applied"), "False", "ApplyFailed", "secrets is forbidden"));
    assert!(matches(server.condition("blind", "Ready"), "False", "ApplyFailed", "secrets is forbidden"));
    assert!(server.has_applied("services", "blind") && !server.has_applied("statefulsets", "blind"));
}

#[tokio::test]
async fn a_secret_that_does_not_allow_its_use_is_never_mounted() {
    let named = |name: &str| json!({"bucket": {"auth": {"secretRef": {"name": name}}}});
    let bundle = |name: &str| json!({"bucket": {"caBundleRef": {"kind": "Secret", "name": name}}});
    let cases = [
        (
            "of-an-app",
            named("database"),
            "SecretNotLabelled",
            "kubectl -n a label secret database entrepot.dev/use=bucket",
        ),
        ("not-yet", named("later"), "SecretMissing", "Secret later (spec.bucket.auth.secretRef) does not exist"),
        // A label allows one purpose.
        ("of-a-ca", named("ca"), "SecretNotLabelled", "label secret ca entrepot.dev/use=bucket"),
        ("as-a-ca", bundle("s3"), "SecretNotLabelled", "label secret s3 entrepot.dev/use=ca"),
        ("no-ca", bundle("later"), "CaBundleMissing", "Secret later (spec.bucket.caBundleRef) does not exist"),
    ];
    let mut clusters: Vec<_> = cases.iter().map(|(name, difference, ..)| cluster(name, difference)).collect();
    clusters.push(cluster("good", &bundle("ca")));
    let (_events, receiver) = mpsc::unbounded_channel();
    let server = until(clusters, accept_all, receiver, &Lists::default(), |server| {
        server.has_applied("statefulsets", "good")
            && cases
                .iter()
                .all(|(name, _, reason, message)| matches(server.condition(name, "Ready"), "False", reason, message))
    })
    .await;
    for (name, _, reason, _) in cases {
        assert!(matches(server.condition(name, "Applied"), "False", reason, ""), "{name}");
        let writes = server.writes.lock().unwrap();
        let of_it = writes.iter().map(|(path, _)| path).filter(|path| path.contains(&format!("/{name}")));
        assert!(of_it.clone().all(|path| path.ends_with("/status")), "{:?}", of_it.collect::<Vec<_>>());
    }
    assert!(matches(server.condition("of-an-app", "CredentialsValid"), "False", "SecretNotLabelled", "database"));
}

#[tokio::test]
async fn of_a_spec_that_the_installation_does_not_allow_nothing_is_applied() {
    let clusters = vec![cluster("evil", &json!({"nodeImage": "attacker.example/node:1"})), cluster("good", &json!({}))];
    let (_events, receiver) = mpsc::unbounded_channel();
    let server = until(clusters, accept_all, receiver, &Lists::default(), |server| {
        server.condition("evil", "Ready").is_some() && server.has_applied("statefulsets", "good")
    })
    .await;
    let message = r#"spec.nodeImage: "attacker.example/node:1" is not allowed"#;
    assert!(matches(server.condition("evil", "Ready"), "False", "NotAllowed", message));
    assert!(matches(server.condition("evil", "Applied"), "False", "NotAllowed", ""));
    assert!(!server.has_applied("services", "evil") && !server.has_applied("statefulsets", "evil"));
}

#[tokio::test]
async fn an_operator_of_some_namespaces_asks_for_no_other_and_one_that_it_cannot_read_stops_no_other() {
    fn refuse(method: &Method, path: &str) -> Option<(u16, &'static str)> {
        let elsewhere = !path.contains("/namespaces/a/");
        (*method == Method::GET && elsewhere).then_some((403, "forbidden elsewhere"))
    }
    let (lists, (_events, receiver)) = (Lists::default(), mpsc::unbounded_channel());
    let clusters = vec![cluster("good", &json!({}))];
    let server = until_in(&["a", "closed"], clusters, refuse, receiver, &lists, |server| {
        server.condition("good", "Applied").is_some()
    })
    .await;
    assert!(matches(server.condition("good", "Applied"), "True", "AllApplied", ""));
    let problems: Vec<_> = lists.problems().into_iter().filter_map(|(kind, why)| why.map(|_| kind)).collect();
    assert!(!problems.is_empty() && problems.iter().all(|kind| kind.ends_with(" in namespace closed")), "{problems:?}");
}

#[tokio::test]
async fn a_kind_that_cannot_be_listed_is_named_and_nothing_is_created() {
    fn refuse(method: &Method, path: &str) -> Option<(u16, &'static str)> {
        let is_it = *method == Method::GET && path.ends_with("/ingresses");
        is_it.then_some((403, "ingresses is forbidden"))
    }
    let lists = Lists::default();
    let (_events, receiver) = mpsc::unbounded_channel();
    let writes = until(vec![cluster("good", &json!({}))], refuse, receiver, &lists, |_| false);
    let named = async {
        while !lists.problems().iter().any(|(kind, why)| {
            kind == "Ingress" && why.as_ref().is_some_and(|why| why.contains("ingresses is forbidden"))
        }) {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        server = writes => panic!("{:?}", server.writes.lock().unwrap()),
        named = tokio::time::timeout(TIMEOUT, named) => named.unwrap(),
    }
}
