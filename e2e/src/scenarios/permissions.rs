//! What the chart allows the operator, against what it was seen to ask for: as much, and no more.

use super::{isolated, operator, rest};
use crate::cluster::{Cluster, Request};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;

/// One thing that a user may do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Permission {
    group: String,
    /// With its subresource, if it is one: `registryclusters/status`.
    resource: String,
    verb: String,
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let group = if self.group.is_empty() { "core" } else { &self.group };
        write!(f, "{} {} ({group})", self.verb, self.resource)
    }
}

/// Nothing that the operator asked for in all of this cluster's life was denied; and when every scenario has run,
/// everything that it may do it has done.
pub async fn the_operator_may_do_no_more_than_it_does(cluster: &Cluster) -> Result<()> {
    rest::whatever_no_other_scenario_asks_for(cluster).await?;
    let requests = cluster.audit().of(operator::USER, cluster.audit().beginning())?;
    // There a right was taken from it, to see what becomes of that.
    let elsewhere = |request: &&Request| request.object_ref.namespace != isolated::NAMESPACE;
    let denied: Vec<_> = requests.iter().filter(|request| request.is_forbidden()).filter(elsewhere).collect();
    ensure!(denied.is_empty(), "the operator may do too little: {denied:#?}");
    let used: BTreeSet<_> = requests.iter().flat_map(uses).collect();
    let allowed = allowed(cluster).await?;
    let unused: Vec<_> = allowed.difference(&used).map(Permission::to_string).collect();
    println!(
        "{} requests, none denied; of {} permissions {} were used",
        requests.len(),
        allowed.len(),
        allowed.len() - unused.len()
    );
    // A watch is seen when it ends, a claim is resized where storage is tried, and so on.
    let complete = super::is_complete();
    println!("not used{}: {unused:?}", if complete { "" } else { ", and other scenarios may use them" });
    ensure!(unused.is_empty() || !complete, "the operator may do more than it does: {}", unused.join(", "));
    Ok(())
}

/// What a request needed.
fn uses(request: &Request) -> Vec<Permission> {
    let about = &request.object_ref;
    let resource = match about.subresource.as_str() {
        "" => about.resource.clone(),
        subresource => format!("{}/{subresource}", about.resource),
    };
    let needs =
        |verb: &str| Permission { group: about.api_group.clone(), resource: resource.clone(), verb: verb.into() };
    // An apply of what is not there yet takes both.
    let makes = request.verb == "patch" && request.response_status.code == 201;
    std::iter::once(needs(&request.verb)).chain(makes.then(|| needs("create"))).collect()
}

/// All that the chart's roles allow, in this cluster.
async fn allowed(cluster: &Cluster) -> Result<BTreeSet<Permission>> {
    let (of_all, of_own) = (format!("clusterrole/{}-{}", operator::NAMESPACE, operator::NAME), operator::NAME);
    let roles = [
        cluster.kubectl(["get", &of_all, "-o", "json"]).await?,
        cluster.kubectl(["-n", operator::NAMESPACE, "get", "role", of_own, "-o", "json"]).await?,
    ];
    let mut allowed = BTreeSet::new();
    for role in roles {
        let role: Value = serde_json::from_str(&role)?;
        for rule in role["rules"].as_array().context("a role without rules")? {
            let texts = |field: &str| -> Result<Vec<String>> {
                serde_json::from_value(rule[field].clone()).with_context(|| format!("{field} of {rule}"))
            };
            for (group, resource, verb) in combinations(&texts("apiGroups")?, &texts("resources")?, &texts("verbs")?) {
                ensure!(![group, resource, verb].contains(&"*"), "the chart allows everything of something: {rule}");
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
