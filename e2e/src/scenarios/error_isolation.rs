//! RegistryClusters that the API server admits and the operator cannot use, and an operator that
//! lacks a permission: each problem is reported where it belongs, and the other registries are
//! reconciled.

use super::fixture::{Fixture, TIMEOUT};
use super::operator;
use crate::cluster::{Cluster, Kubectl};
use crate::wait;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// The namespace in which the operator lacks a permission on purpose.
pub const NAMESPACE: &str = "error-isolation";

const GOOD: Fixture = Fixture::named(NAMESPACE, "good");

/// A registry that cannot be decoded.
struct Unusable {
    name: &'static str,
    /// The field that is invalid, and without which the spec is valid.
    field: &'static str,
    value: fn() -> Value,
    /// A part of the message in its status.
    message: &'static str,
}

const UNUSABLE: [Unusable; 2] = [
    Unusable {
        name: "misspelt",
        field: "scheduling",
        value: || json!({"affinity": {"podAntiAfinity": {}}}),
        message: "spec.scheduling.affinity: podAntiAfinity",
    },
    Unusable {
        name: "deep",
        field: "scheduling",
        value: || json!({"affinity": (0..300).fold(json!({}), |inner, _| json!({"a": inner}))}),
        message: "spec.scheduling.affinity",
    },
];

impl Unusable {
    fn fixture(&self) -> Fixture {
        Fixture::named(NAMESPACE, self.name)
    }

    /// Reason and message of the condition Ready. Read by kubectl, because no other client parses
    /// such deep objects.
    async fn reported(&self, cluster: &dyn Cluster) -> Result<String> {
        let path = r#"jsonpath={range .status.conditions[?(@.type=="Ready")]}{.reason}: {.message}{end}"#;
        cluster.kubectl(["-n", NAMESPACE, "get", &format!("rgc/{}", self.name), "-o", path]).await
    }
}

/// The registries exist before the operator starts, so that its first lists contain them.
pub async fn an_unusable_registry_stops_no_other(cluster: &dyn Cluster) -> Result<()> {
    cluster.apply(&GOOD.secret()).await?;
    for registry in &UNUSABLE {
        let mut manifest = registry.fixture().manifest(&json!({}));
        manifest["spec"][registry.field] = (registry.value)();
        cluster
            .apply(&manifest.to_string())
            .await
            .with_context(|| format!("the API server rejects {}", registry.name))?;
    }
    let deployment = format!("deployment/{}", operator::NAME);
    cluster.kubectl(["-n", operator::NAMESPACE, "rollout", "restart", &deployment]).await?;
    operator::until_rolled_out(cluster).await?;
    GOOD.create(cluster, &json!({"resources": {"limits": {"memory": 4_294_967_296_u64}}})).await?;
    for registry in &UNUSABLE {
        wait::until(&format!("{} reports InvalidSpec with {}", registry.name, registry.message), TIMEOUT, || async {
            let reported = registry.reported(cluster).await.unwrap_or_default();
            reported.starts_with("InvalidSpec: ") && reported.contains(registry.message)
        })
        .await?;
        println!("{}: {}", registry.name, registry.reported(cluster).await?);
    }
    let sets = cluster.kubectl(["-n", NAMESPACE, "get", "statefulsets", "-o", "name"]).await?;
    ensure!(sets.trim() == "statefulset.apps/good", "unexpected StatefulSets: {sets}");
    for registry in &UNUSABLE {
        registry.fixture().change(cluster, &json!({registry.field: null})).await?;
    }
    for registry in &UNUSABLE {
        registry.fixture().becomes(cluster, "Ready", "True", "AllNodesReady").await.context(registry.name)?;
    }
    println!("every registry is ready after its spec was corrected");
    let role = format!("clusterrole/{}-{}", operator::NAMESPACE, operator::NAME);
    let before: Value = serde_json::from_str(&cluster.kubectl(["get", &role, "-o", "json"]).await?)?;
    let changed = without_monitors(cluster, &role, &before).await;
    let rules = json!({"rules": before["rules"]}).to_string();
    cluster.kubectl(["patch", &role, "--type=merge", "-p", &rules]).await?;
    changed?;
    until_allowed(cluster, true).await?;
    GOOD.remove(cluster).await
}

/// As with `serviceMonitors: false` in the chart: a change of a registry is rolled out, and a
/// registry with a ServiceMonitor reports why it cannot be created.
async fn without_monitors(cluster: &dyn Cluster, role: &str, before: &Value) -> Result<()> {
    let mut rules = before["rules"].as_array().context("the role has no rules")?.clone();
    rules.retain(|rule| rule["apiGroups"] != json!(["monitoring.coreos.com"]));
    let fewer = json!({"rules": rules}).to_string();
    cluster.kubectl(["patch", role, "--type=merge", "-p", &fewer]).await?;
    until_allowed(cluster, false).await?;
    GOOD.change(cluster, &json!({"replicas": 2})).await?;
    GOOD.becomes(cluster, "Ready", "True", "AllNodesReady").await?;
    GOOD.becomes(cluster, "Applied", "True", "AllApplied").await?;
    ensure!(GOOD.pods(cluster).await?.len() == 2, "the registry has not scaled");
    GOOD.change(cluster, &json!({"replicas": 1, "monitoring": {"serviceMonitor": true}})).await?;
    let message = GOOD.becomes(cluster, "Applied", "False", "ApplyFailed").await?;
    ensure!(message.contains("ServiceMonitor good"), "{message}");
    println!("without the permission: {message}");
    wait::until("one pod is left", TIMEOUT, || async { GOOD.pods(cluster).await.is_ok_and(|pods| pods.len() == 1) })
        .await?;
    GOOD.change(cluster, &json!({"monitoring": null})).await?;
    GOOD.becomes(cluster, "Applied", "True", "AllApplied").await.map(drop)
}

/// Waits until the API server applies the present role.
///
/// `kubectl auth can-i` asks about a kind without its group if the kind is not installed. So the
/// request itself is sent: it is forbidden, or not found.
async fn until_allowed(cluster: &dyn Cluster, allowed: bool) -> Result<()> {
    let path = format!("/apis/monitoring.coreos.com/v1/namespaces/{NAMESPACE}/servicemonitors/good");
    let user = format!("--as={}", operator::USER);
    let (what, reason) = if allowed { ("may", "(NotFound)") } else { ("may not", "(Forbidden)") };
    wait::until(&format!("the operator {what} get ServiceMonitors"), TIMEOUT, || async {
        let answer = cluster.kubectl(["get", "--raw", &path, &user]).await;
        answer.is_err_and(|error| format!("{error:#}").contains(reason))
    })
    .await
}
