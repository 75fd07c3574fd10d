//! An operator with `watchNamespaces` has permissions in these namespaces only, and leaves the others
//! alone.

use super::fixture::Fixture;
use super::{deployment, operator};
use crate::cluster::{Cluster, Kubectl};
use anyhow::{Context, Result, ensure};
use serde_json::json;

const WATCHED: Fixture = Fixture::new("watched");
const OTHER: Fixture = Fixture::new("not-watched");

/// A registry of the watched namespace is created and reported, one of another namespace is not even
/// read, and the operator may not.
pub async fn an_operator_of_one_namespace_leaves_the_others_alone(cluster: &dyn Cluster) -> Result<()> {
    for registry in [WATCHED, OTHER] {
        cluster.apply(&registry.secret()).await?;
    }
    upgrade(cluster, &format!(r#"watchNamespaces=["{}"]"#, WATCHED.namespace)).await?;
    let outcome = check(cluster).await;
    upgrade(cluster, "watchNamespaces=[]").await?;
    outcome?;
    OTHER.until_settled(cluster).await.context("the operator of all namespaces")?;
    for registry in [WATCHED, OTHER] {
        registry.remove(cluster).await?;
    }
    Ok(())
}

async fn check(cluster: &dyn Cluster) -> Result<()> {
    cluster.apply(&OTHER.manifest(&json!({})).to_string()).await?;
    WATCHED.create(cluster, &json!({})).await?;
    WATCHED.change(cluster, &json!({"networkPolicy": {"enabled": true}})).await?;
    WATCHED.becomes(cluster, "Applied", "True", "AllApplied").await?;
    let status = OTHER.object(cluster).await?.data["status"].clone();
    ensure!(status.is_null(), "the registry of another namespace has a status: {status}");
    ensure!(OTHER.pods(cluster).await?.is_empty(), "the registry of another namespace has pods");
    for (namespace, expected) in [(WATCHED.namespace, "yes"), (OTHER.namespace, "no")] {
        for permission in [["get", "secrets"], ["create", "statefulsets"], ["list", "pods"]] {
            let question = ["auth", "can-i", permission[0], permission[1], "-n", namespace];
            let user = format!("--as={}", operator::USER);
            // It fails if the answer is no.
            let answer = cluster.kubectl(question.iter().copied().chain([user.as_str()])).await;
            let answer = answer.unwrap_or_else(|error| format!("{error:#}"));
            ensure!(answer.lines().any(|line| line.trim() == expected), "{permission:?} in {namespace}: {answer}");
        }
    }
    Ok(())
}

/// Changes a value of the chart while no operator runs, because the old one would be denied what it
/// still asks for.
async fn upgrade(cluster: &dyn Cluster, value: &str) -> Result<()> {
    operator::scale(cluster, 0).await?;
    let selector = format!("--selector=app.kubernetes.io/name={}", operator::NAME);
    let gone = ["-n", operator::NAMESPACE, "wait", "--for=delete", "pod", &selector, "--timeout=60s"];
    cluster.kubectl(gone).await?;
    deployment::helm(cluster, "upgrade", &["--reuse-values", "--set-json", value]).await?;
    operator::until_rolled_out(cluster).await
}
