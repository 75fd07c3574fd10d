//! Something that a registry needs is missing or wrong: each case has its own reason, no node
//! crashes, and the registry recovers by itself once the problem is fixed.

use super::fixture::{Fixture, allowed_use};
use crate::cluster::{Cluster, GROWING, Kubectl, OwnCluster};
use crate::s3::{ACCESS_KEY, SECRET_KEY};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Instant;

const NAMESPACE: &str = "missing-prerequisites";
const BASE: Fixture = Fixture::new(NAMESPACE);

/// A registry with one problem.
struct Case {
    name: &'static str,
    /// The difference of its spec from a valid one.
    spec: fn() -> Value,
    /// The conditions that report the problem, with their reasons.
    conditions: &'static [(&'static str, &'static str)],
    /// The fix.
    remedy: Remedy,
}

enum Remedy {
    /// Create an object.
    Object(fn() -> Value),
    /// Create a bucket of that name.
    Bucket(&'static str),
    /// Change the spec.
    Spec(fn() -> Value),
}

const ALL: [Case; 5] = [
    Case {
        name: "no-secret",
        spec: || json!({"bucket": {"auth": {"secretRef": {"name": "later"}}}}),
        conditions: &[("CredentialsValid", "SecretMissing"), ("Ready", "SecretMissing")],
        remedy: Remedy::Object(|| keys("later", SECRET_KEY)),
    },
    Case {
        name: "wrong-key",
        spec: || json!({"bucket": {"auth": {"secretRef": {"name": "wrong"}}}}),
        conditions: &[("CredentialsValid", "Denied"), ("BucketReachable", "AccessDenied")],
        remedy: Remedy::Object(|| keys("wrong", SECRET_KEY)),
    },
    Case {
        name: "no-bucket",
        spec: || json!({"bucket": {"name": "made-later"}}),
        conditions: &[("BucketReachable", "BucketMissing")],
        remedy: Remedy::Bucket("made-later"),
    },
    Case {
        name: "wrong-region",
        spec: || json!({"bucket": {"region": "eu-west-1"}}),
        conditions: &[("BucketReachable", "WrongRegion")],
        remedy: Remedy::Spec(|| json!({"bucket": {"region": crate::s3::REGION}})),
    },
    Case {
        name: "no-class",
        spec: || json!({"store": {"storageClassName": "made-later"}}),
        conditions: &[("StorageResized", "StorageClassMissing"), ("Ready", "StorageClassMissing")],
        remedy: Remedy::Object(class),
    },
];

impl Case {
    fn fixture(&self) -> Fixture {
        Fixture::named(NAMESPACE, self.name)
    }
}

/// Applies all of them at once, and then fixes each.
pub async fn a_missing_prerequisite_is_reported(cluster: &OwnCluster) -> Result<()> {
    cluster.apply(&BASE.secret()).await?;
    cluster.apply(&keys("wrong", "not the secret").to_string()).await?;
    for case in &ALL {
        let manifest = case.fixture().manifest(&(case.spec)());
        cluster.apply(&manifest.to_string()).await?;
    }
    let start = Instant::now();
    for case in &ALL {
        for (kind, reason) in case.conditions {
            let message = case.fixture().becomes(cluster, kind, "False", reason).await.context(case.name)?;
            println!("{}: {kind}=False, {reason}: {message}", case.name);
            case.fixture().has_event(cluster, reason).await?;
        }
    }
    println!("all expected reasons reported {:.1?} after apply", start.elapsed());
    let start = Instant::now();
    for case in &ALL {
        match case.remedy {
            Remedy::Object(object) => drop(cluster.apply(&object().to_string()).await?),
            Remedy::Bucket(name) => drop(cluster.s3().client().create_bucket().bucket(name).send().await?),
            Remedy::Spec(spec) => case.fixture().change(cluster, &spec()).await?,
        }
    }
    for case in &ALL {
        let fixture = case.fixture();
        for (kind, reason) in [
            ("Ready", "AllNodesReady"),
            ("StorageResized", "AsDesired"),
            ("CredentialsValid", "Accepted"),
            ("BucketReachable", "Reachable"),
        ] {
            fixture.becomes(cluster, kind, "True", reason).await.context(case.name)?;
        }
        let image = crate::push::Image::fresh(&[10_000]);
        let registry = fixture.registry(cluster).await?;
        registry.push_image("healed", "1", &image).await.context(case.name)?;
        for pod in fixture.pods(cluster).await? {
            let statuses = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
            ensure!(statuses.iter().all(|status| status.restart_count == 0), "{}: {statuses:?}", case.name);
        }
    }
    println!("all RegistryClusters recovered {:.1?} after the fixes", start.elapsed());
    cluster.kubectl(["delete", "storageclass", "made-later"]).await?;
    BASE.remove(cluster).await
}

fn keys(name: &str, secret: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": allowed_use()},
        "stringData": {"accessKeyId": ACCESS_KEY, "secretAccessKey": secret},
    })
}

/// The cluster's default StorageClass under another name.
fn class() -> Value {
    let mut class =
        crate::cluster::classes().into_iter().find(|class| class["metadata"]["name"] == GROWING).unwrap_or_default();
    class["metadata"] = json!({"name": "made-later"});
    class
}
