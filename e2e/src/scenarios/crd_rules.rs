//! The CEL rules of the CRD on a real API server, with the same cases as the operator's own tests.

use crate::cluster::{Cluster, Kubectl};
use anyhow::{Context, Result, ensure};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

const NAMESPACE: &str = "rules";

/// Valid specs are admitted, and invalid ones are rejected with the message of their rule, at
/// creation and as a change.
pub async fn every_crd_rule_is_enforced(cluster: &dyn Cluster) -> Result<()> {
    cluster.kubectl(["create", "namespace", NAMESPACE]).await?;
    let cases = Cases::new(cluster)?;
    for difference in cases.of("admitted")? {
        cases.create(&cases.registry(difference)?, true).await.with_context(|| format!("{difference} was rejected"))?;
    }
    for case in cases.of("refused")? {
        let answer = cases.create(&cases.registry(&case[0])?, true).await;
        is_refused(answer, &case[1]).with_context(|| case.to_string())?;
    }
    for name in cases.of("names admitted")? {
        cases.create(&cases.named(name)?, true).await.with_context(|| format!("{name} was rejected"))?;
    }
    for name in cases.of("names refused")? {
        is_refused(cases.create(&cases.named(name)?, true).await, &json!("metadata.name")).context(name.to_string())?;
    }
    for case in cases.of("changes admitted")? {
        cases.change(case).await?.with_context(|| format!("{case} was rejected"))?;
    }
    for case in cases.of("changes refused")? {
        is_refused(cases.change(case).await?, &case[2]).with_context(|| case.to_string())?;
    }
    cluster.kubectl(["delete", "namespace", NAMESPACE, "--wait=false"]).await.map(drop)
}

/// The response must be a rejection with the message of the rule.
fn is_refused(answer: kube::Result<DynamicObject>, said: &Value) -> Result<()> {
    let error = answer.err().context("it was admitted")?.to_string();
    ensure!(
        error.contains(said.as_str().context("the expected message is not a string")?),
        "it was rejected with another message: {error}"
    );
    Ok(())
}

struct Cases {
    file: Value,
    api: Api<DynamicObject>,
}

impl Cases {
    fn new(cluster: &dyn Cluster) -> Result<Cases> {
        let file = serde_json::from_str(include_str!("../../../operator/tests/rules.json"))?;
        let kind = GroupVersionKind::gvk("entrepot.dev", "v1alpha1", "RegistryCluster");
        let resource = ApiResource::from_gvk(&kind);
        Ok(Cases { file, api: Api::namespaced_with(cluster.client().clone(), NAMESPACE, &resource) })
    }

    fn of(&self, name: &str) -> Result<&Vec<Value>> {
        let cases = self.file[name].as_array().with_context(|| format!("rules.json has no cases \"{name}\""))?;
        ensure!(!cases.is_empty(), "rules.json has no cases \"{name}\"");
        Ok(cases)
    }

    /// The valid registry with the difference merged into its spec.
    fn registry(&self, difference: &Value) -> Result<Value> {
        let mut registry = self.file["cluster"].clone();
        registry["metadata"]["namespace"] = json!(NAMESPACE);
        json_patch::merge(&mut registry["spec"], difference);
        // Paused, because the rules are evaluated by the API server and not by the operator.
        registry["spec"]["paused"] = json!(true);
        Ok(registry)
    }

    fn named(&self, name: &Value) -> Result<Value> {
        let mut registry = self.registry(&json!({}))?;
        registry["metadata"]["name"] = name.clone();
        Ok(registry)
    }

    async fn create(&self, registry: &Value, dry_run: bool) -> kube::Result<DynamicObject> {
        let registry = serde_json::from_value(registry.clone()).map_err(kube::Error::SerdeError)?;
        self.api.create(&PostParams { dry_run, ..PostParams::default() }, &registry).await
    }

    /// Creates the old registry, tries to change it into the new one, and deletes it. Returns the
    /// response to the change.
    async fn change(&self, case: &Value) -> Result<kube::Result<DynamicObject>> {
        let old = self.create(&self.registry(&case[0])?, false).await.with_context(|| case.to_string())?;
        let name = old.metadata.name.context("the registry has no name")?;
        // Replaces the whole spec by a patch, which cannot conflict with the operator's writes to
        // the status.
        let operation = json!([{"op": "replace", "path": "/spec", "value": self.registry(&case[1])?["spec"]}]);
        let patch = Patch::Json::<()>(serde_json::from_value(operation)?);
        let answer = self.api.patch(&name, &PatchParams { dry_run: true, ..PatchParams::default() }, &patch).await;
        self.api.delete(&name, &DeleteParams::default()).await?;
        Ok(answer)
    }
}
