//! An invalid RegistryCluster is rejected when it is applied, with the field and the rule.

use super::registry::{NAMESPACE, images};
use crate::cluster::Cluster;
use anyhow::{Context, Result, ensure};

/// Changes of a valid registry, and a part of the API server's message for each.
const WRONG: [(&str, &str, &str); 8] = [
    ("size: 1Gi", "size: 1Gi, lowFree: 30%, targetFree: 20%", "targetFree"),
    ("size: 1Gi", "size: 512Mi", "size"),
    ("size: 1Gi", "size: large", "size"),
    ("{name: images,", "{name: a-name-that-is-longer-than-forty-characters,", "40"),
    ("auth: {secretRef: {name: s3-credentials}}", "auth: {}", "auth"),
    ("    name: images\n", "    name: another\n", "bucket"),
    ("replicas: 3", "replicas: -1", "replicas"),
    ("replicas: 3", "replicass: 3", "replicass"),
];

/// Every change is rejected, and the registry is not changed.
pub async fn what_is_wrong_is_refused(cluster: &Cluster) -> Result<()> {
    let generation = ["-n", NAMESPACE, "get", "rgc/images", "-o", "jsonpath={.metadata.generation}"];
    let before = cluster.kubectl(generation).await?;
    let right = images(NAMESPACE, "");
    for (part, wrong, said) in WRONG {
        let manifest = right.replace(part, wrong);
        ensure!(manifest != right, "{part} is not in the manifest");
        let refused = cluster.apply(&manifest).await.err().with_context(|| format!("{wrong} was admitted"))?;
        let words = format!("{refused:#}");
        ensure!(words.contains(said), "{wrong}: {words}");
        println!("{wrong}: {}", words.lines().next_back().unwrap_or_default());
    }
    let after = cluster.kubectl(generation).await?;
    ensure!(before == after, "the registry was changed: generation {before}, then {after}");
    Ok(())
}
