//! Something that a registry needs is missing or wrong: each case has its own reason, no node
//! crashes, and the registry recovers by itself once the problem is fixed.

use super::given::{self, Named};
use super::registry::secret;
use crate::cluster::{Cluster, GROWING};
use crate::s3::{ACCESS_KEY, SECRET_KEY};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Instant;

const NAMESPACE: &str = "missing";

/// A registry with one problem.
struct Lacking {
    name: &'static str,
    /// The difference of its spec from a valid one.
    spec: fn() -> Value,
    /// The conditions that report the problem, with their reasons.
    told: &'static [(&'static str, &'static str)],
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

const ALL: [Lacking; 5] = [
    Lacking {
        name: "no-secret",
        spec: || json!({"bucket": {"auth": {"secretRef": {"name": "later"}}}}),
        told: &[("CredentialsValid", "SecretMissing")],
        remedy: Remedy::Object(|| keys("later", SECRET_KEY)),
    },
    Lacking {
        name: "wrong-key",
        spec: || json!({"bucket": {"auth": {"secretRef": {"name": "wrong"}}}}),
        told: &[("CredentialsValid", "Denied"), ("BucketReachable", "AccessDenied")],
        remedy: Remedy::Object(|| keys("wrong", SECRET_KEY)),
    },
    Lacking {
        name: "no-bucket",
        spec: || json!({"bucket": {"name": "made-later"}}),
        told: &[("BucketReachable", "BucketMissing")],
        remedy: Remedy::Bucket("made-later"),
    },
    Lacking {
        name: "wrong-region",
        spec: || json!({"bucket": {"region": "eu-west-1"}}),
        told: &[("BucketReachable", "WrongRegion")],
        remedy: Remedy::Spec(|| json!({"spec": {"bucket": {"region": crate::s3::REGION}}})),
    },
    Lacking {
        name: "no-class",
        spec: || json!({"store": {"storageClassName": "made-later"}}),
        told: &[("StorageResized", "StorageClassMissing"), ("Ready", "StorageClassMissing")],
        remedy: Remedy::Object(class),
    },
];

impl Lacking {
    fn named(&self) -> Named {
        Named { namespace: NAMESPACE, name: self.name }
    }
}

/// Applies all of them at once, and then fixes each.
pub async fn what_is_missing_has_a_reason(cluster: &Cluster) -> Result<()> {
    cluster.apply(&secret(NAMESPACE)).await?;
    cluster.apply(&keys("wrong", "not the secret").to_string()).await?;
    for lacking in &ALL {
        let mut manifest = lacking.named().manifest(1);
        merge(&mut manifest["spec"], (lacking.spec)());
        cluster.apply(&manifest.to_string()).await?;
    }
    let start = Instant::now();
    for lacking in &ALL {
        for (kind, reason) in lacking.told {
            let message = lacking.named().becomes(cluster, kind, "False", reason).await.context(lacking.name)?;
            println!("{}: {kind}=False, {reason}: {message}", lacking.name);
            lacking.named().has_event(cluster, reason).await?;
        }
    }
    println!("all expected reasons reported {:.1?} after apply", start.elapsed());
    let start = Instant::now();
    for lacking in &ALL {
        match lacking.remedy {
            Remedy::Object(object) => drop(cluster.apply(&object().to_string()).await?),
            Remedy::Bucket(name) => drop(cluster.s3().client().create_bucket().bucket(name).send().await?),
            Remedy::Spec(spec) => lacking.named().patch(cluster, &spec()).await?,
        }
    }
    for lacking in &ALL {
        let named = lacking.named();
        for (kind, reason) in [
            ("Ready", "AllNodesReady"),
            ("StorageResized", "AsDesired"),
            ("CredentialsValid", "Accepted"),
            ("BucketReachable", "Reachable"),
        ] {
            named.becomes(cluster, kind, "True", reason).await.context(lacking.name)?;
        }
        let image = crate::push::Image::fresh(&[10_000]);
        let registry = named.registry(cluster).await?;
        registry.push_image("healed", "1", &image).await.context(lacking.name)?;
        for pod in named.pods(cluster).await? {
            let statuses = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
            ensure!(statuses.iter().all(|status| status.restart_count == 0), "{}: {statuses:?}", lacking.name);
        }
    }
    println!("all RegistryClusters recovered {:.1?} after the fixes", start.elapsed());
    cluster.kubectl(["delete", "storageclass", "made-later"]).await?;
    given::gone(cluster, &[NAMESPACE]).await
}

fn keys(name: &str, secret: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE},
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

fn merge(into: &mut Value, from: Value) {
    match from {
        Value::Object(members) => members.into_iter().for_each(|(name, value)| merge(&mut into[name], value)),
        value => *into = value,
    }
}
