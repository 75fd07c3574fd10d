//! Compares the operator's permissions in the chart with the requests that it sent: it needs all of
//! them and no others.

use super::{error_isolation, operator, optional_objects};
use crate::cluster::{Kubectl, OwnCluster, Request};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;

/// One permission of a user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Permission {
    group: String,
    /// With the subresource, if there is one: `registryclusters/status`.
    resource: String,
    verb: String,
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = if self.group.is_empty() { "core" } else { &self.group };
        write!(f, "{} {} ({group})", self.verb, self.resource)
    }
}

/// No request of the operator during the whole life of the cluster was denied; and if every
/// scenario has run, the operator has used all of its permissions.
pub async fn the_operator_uses_all_of_its_permissions(cluster: &OwnCluster) -> Result<()> {
    optional_objects::optional_objects_are_created_and_deleted(cluster).await?;
    let requests = cluster.audit().of(operator::USER, cluster.audit().beginning())?;
    // That scenario takes a permission away on purpose.
    let elsewhere = |request: &&Request| request.object_ref.namespace != error_isolation::NAMESPACE;
    let denied: Vec<_> = requests.iter().filter(|request| request.is_forbidden()).filter(elsewhere).collect();
    ensure!(denied.is_empty(), "the operator lacks permissions: {denied:#?}");
    let used: BTreeSet<_> = requests.iter().flat_map(uses).collect();
    let allowed = allowed(cluster).await?;
    let unused: Vec<_> = allowed.difference(&used).map(Permission::to_string).collect();
    println!(
        "{} requests, none denied; {} permissions, {} used",
        requests.len(),
        allowed.len(),
        allowed.len() - unused.len()
    );
    // Some are used only in other scenarios: for example, a watch is logged when it ends, and a
    // claim is resized where storage is tested.
    let complete = super::is_complete();
    println!("unused permissions{}: {unused:?}", if complete { "" } else { " (other scenarios may use them)" });
    ensure!(unused.is_empty() || !complete, "the operator has permissions that it does not use: {}", unused.join(", "));
    Ok(())
}

/// The permissions that a request needed.
fn uses(request: &Request) -> Vec<Permission> {
    let about = &request.object_ref;
    let resource = match about.subresource.as_str() {
        "" => about.resource.clone(),
        subresource => format!("{}/{subresource}", about.resource),
    };
    let needs =
        |verb: &str| Permission { group: about.api_group.clone(), resource: resource.clone(), verb: verb.into() };
    // An apply that creates an object needs both.
    let makes = request.verb == "patch" && request.response_status.code == 201;
    std::iter::once(needs(&request.verb)).chain(makes.then(|| needs("create"))).collect()
}

/// All permissions of the chart's roles in this cluster.
async fn allowed(cluster: &OwnCluster) -> Result<BTreeSet<Permission>> {
    let (of_all, of_own) = (format!("clusterrole/{}-{}", operator::NAMESPACE, operator::NAME), operator::NAME);
    let roles = [
        cluster.kubectl(["get", &of_all, "-o", "json"]).await?,
        cluster.kubectl(["-n", operator::NAMESPACE, "get", "role", of_own, "-o", "json"]).await?,
    ];
    let mut allowed = BTreeSet::new();
    for role in roles {
        let role: Value = serde_json::from_str(&role)?;
        for rule in role["rules"].as_array().context("the role has no rules")? {
            let texts = |field: &str| -> Result<Vec<String>> {
                serde_json::from_value(rule[field].clone()).with_context(|| format!("cannot parse {field} of {rule}"))
            };
            for (group, resource, verb) in combinations(&texts("apiGroups")?, &texts("resources")?, &texts("verbs")?) {
                ensure!(![group, resource, verb].contains(&"*"), "the chart has a wildcard permission: {rule}");
                allowed.insert(Permission { group: group.into(), resource: resource.into(), verb: verb.into() });
            }
        }
    }
    Ok(allowed)
}

/// Each of the first with each of the others.
fn combinations<'a>(
    groups: &'a [String],
    resources: &'a [String],
    verbs: &'a [String],
) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
    groups.iter().flat_map(move |group| {
        resources
            .iter()
            .flat_map(move |resource| verbs.iter().map(move |verb| (group.as_str(), resource.as_str(), verb.as_str())))
    })
}
