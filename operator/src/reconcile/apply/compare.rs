//! Whether an object in the cluster matches the built one in every field that the operator owns.
//! Defaults, the status and fields that others add are not drift. Pure.

use crate::crd::Quantity;
use serde_json::{Map, Value};

/// A field that does not match the built object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its path, such as `spec.ports[registry].port`.
    pub path: String,
    /// Somebody added it to a map or list that only the operator may write; an apply would keep it.
    pub added: bool,
}

/// Maps whose members all belong to the operator.
const OWNED_MAPS: [&str; 4] = ["data", "selector", "matchLabels", "nodeSelector"];

/// The field that identifies the members of a list, as in the API's schema. Lists without one are
/// compared as a whole.
fn list_key(list: &str, member: &Value) -> Option<&'static str> {
    match list {
        "containers" | "env" | "volumes" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "topologySpreadConstraints" => Some("topologyKey"),
        "ownerReferences" => Some("uid"),
        "ports" if member.get("containerPort").is_some() => Some("containerPort"),
        "ports" => Some("port"),
        _ => None,
    }
}

/// All fields in which `observed` does not match `built`.
pub fn differences(built: &Value, observed: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("", "", built, observed, &mut found);
    found
}

fn compare(path: &str, name: &str, built: &Value, observed: &Value, found: &mut Vec<Difference>) {
    match (built, observed) {
        (Value::Object(built), Value::Object(observed)) => compare_maps(path, name, built, observed, found),
        (Value::Array(built), Value::Array(observed)) => compare_lists(path, name, built, observed, found),
        _ if equal(built, observed) => {}
        _ => found.push(Difference { path: path.to_owned(), added: false }),
    }
}

fn compare_maps(
    path: &str,
    name: &str,
    built: &Map<String, Value>,
    observed: &Map<String, Value>,
    found: &mut Vec<Difference>,
) {
    let join = |member: &str| if path.is_empty() { member.to_owned() } else { format!("{path}.{member}") };
    for (member, value) in built {
        match observed.get(member) {
            Some(other) => compare(&join(member), member, value, other, found),
            // The API server omits empty values.
            None if is_empty(value) => {}
            None => found.push(Difference { path: join(member), added: false }),
        }
    }
    // A label selector that has `matchLabels` may have further fields next to it; a plain selector
    // may not.
    if OWNED_MAPS.contains(&name) && !built.contains_key("matchLabels") {
        let added = observed.keys().filter(|member| !built.contains_key(*member));
        found.extend(added.map(|member| Difference { path: join(member), added: true }));
    }
}

fn compare_lists(path: &str, name: &str, built: &[Value], observed: &[Value], found: &mut Vec<Difference>) {
    let key = built.first().and_then(|member| list_key(name, member));
    let Some(key) = key else {
        if built.len() != observed.len() {
            found.push(Difference { path: path.to_owned(), added: false });
            return;
        }
        for (position, (built, observed)) in built.iter().zip(observed).enumerate() {
            compare(&format!("{path}[{position}]"), "", built, observed, found);
        }
        return;
    };
    for member in built {
        let member_path = format!("{path}[{}]", text_of(&member[key]));
        match observed.iter().find(|other| other[key] == member[key]) {
            Some(other) => compare(&member_path, "", member, other, found),
            None => found.push(Difference { path: member_path, added: false }),
        }
    }
    // Additional owners are not the operator's concern.
    if name != "ownerReferences" {
        let added = observed.iter().filter(|other| built.iter().all(|member| member[key] != other[key]));
        found.extend(added.map(|other| Difference { path: format!("{path}[{}]", text_of(&other[key])), added: true }));
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.is_empty(),
        Value::Array(members) => members.is_empty(),
        _ => false,
    }
}

/// Whether the values are equal or the same quantity: the API server rewrites `1000m` as `1`.
// Not kube_quantity 0.9.0: it parses through f64 (2^53 + 1 is 2^53), takes `Gi`, and rejects `1E`.
fn equal(built: &Value, observed: &Value) -> bool {
    let nanos = |value: &Value| text_of(value).parse::<Quantity>().ok().map(|quantity| quantity.nanos());
    built == observed || matches!((nanos(built), nanos(observed)), (Some(built), Some(observed)) if built == observed)
}

/// The observed object with the built fields applied and the additions removed. For a replace,
/// where an apply would keep the additions.
pub fn restored(built: &Value, observed: &Value) -> Value {
    restore("", built, observed)
}

fn restore(name: &str, built: &Value, observed: &Value) -> Value {
    match (built, observed) {
        (Value::Object(built), Value::Object(observed)) => {
            let is_owned = OWNED_MAPS.contains(&name) && !built.contains_key("matchLabels");
            let mut restored = if is_owned { Map::new() } else { observed.clone() };
            for (member, value) in built {
                let other = observed.get(member).unwrap_or(&Value::Null);
                restored.insert(member.clone(), restore(member, value, other));
            }
            Value::Object(restored)
        }
        (Value::Array(members), Value::Array(others)) => {
            let key = members.first().and_then(|member| list_key(name, member));
            let Some(key) = key else { return built.clone() };
            let mut restored: Vec<_> = members
                .iter()
                .map(|member| {
                    let other = others.iter().find(|other| other[key] == member[key]);
                    restore("", member, other.unwrap_or(&Value::Null))
                })
                .collect();
            if name == "ownerReferences" {
                let kept = others.iter().filter(|other| members.iter().all(|member| member[key] != other[key]));
                restored.extend(kept.cloned());
            }
            Value::Array(restored)
        }
        _ => built.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn built() -> Value {
        json!({
            "metadata": {"labels": {"a": "b"}, "ownerReferences": [{"uid": "1", "controller": true}]},
            "data": {"config.yaml": "x"},
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": {"app": "x"}},
                "containers": [{
                    "name": "node", "image": "i", "args": ["--config", "f"],
                    "ports": [{"name": "registry", "containerPort": 5000}],
                    "env": [{"name": "POD_NAME", "value": "p"}],
                    "resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}},
                }],
            },
        })
    }

    /// The same object as the API server returns it.
    fn observed() -> Value {
        let mut observed = built();
        observed["metadata"]["uid"] = json!("2");
        observed["metadata"]["labels"]["added"] = json!("by another");
        observed["metadata"]["ownerReferences"].as_array_mut().unwrap().push(json!({"uid": "9"}));
        observed["spec"]["containers"][0]["resources"]["requests"] = json!({"cpu": "1", "memory": "1Gi"});
        observed["spec"]["containers"][0]["ports"][0]["protocol"] = json!("TCP");
        observed["spec"]["dnsPolicy"] = json!("ClusterFirst");
        observed["status"] = json!({"readyReplicas": 3});
        observed
    }

    fn found(change: impl FnOnce(&mut Value)) -> Vec<(String, bool)> {
        let mut observed = observed();
        change(&mut observed);
        let found = differences(&built(), &observed);
        if found.iter().any(|difference| difference.added) {
            let restored = restored(&built(), &observed);
            assert_eq!(differences(&built(), &restored), [], "{restored}");
            assert_eq!(restored["status"], observed["status"]);
        }
        found.into_iter().map(|difference| (difference.path, difference.added)).collect()
    }

    #[test]
    fn defaults_status_and_what_others_add_are_not_drift() {
        assert_eq!(found(|_| {}), []);
    }

    #[test]
    fn an_edit_is_named_by_its_path() {
        let container = "spec.containers[node]";
        assert_eq!(found(|o| o["spec"]["replicas"] = json!(1)), [("spec.replicas".into(), false)]);
        let image = found(|o| o["spec"]["containers"][0]["image"] = json!("other"));
        assert_eq!(image, [(format!("{container}.image"), false)]);
        let cpu = found(|o| o["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("2"));
        assert_eq!(cpu, [(format!("{container}.resources.requests.cpu"), false)]);
        let argument = found(|o| o["spec"]["containers"][0]["args"] = json!(["--config"]));
        assert_eq!(argument, [(format!("{container}.args"), false)]);
        let label = found(|o| o["metadata"]["labels"] = json!({}));
        assert_eq!(label, [("metadata.labels.a".into(), false)]);
        let owner = found(|o| o["metadata"]["ownerReferences"] = json!([]));
        assert_eq!(owner, [("metadata.ownerReferences[1]".into(), false)]);
    }

    #[test]
    fn additions_to_what_only_the_operator_may_write_are_removed() {
        let data = found(|o| o["data"]["more"] = json!("y"));
        assert_eq!(data, [("data.more".into(), true)]);
        let env = found(|o| {
            o["spec"]["containers"][0]["env"].as_array_mut().unwrap().insert(0, json!({"name": "RUST_LOG"}));
        });
        assert_eq!(env, [("spec.containers[node].env[RUST_LOG]".into(), true)]);
        let port = found(|o| o["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(5001));
        assert_eq!(
            port,
            [("spec.containers[node].ports[5000]".into(), false), ("spec.containers[node].ports[5001]".into(), true)]
        );
        let selector = found(|o| o["spec"]["selector"]["matchLabels"]["b"] = json!("y"));
        assert_eq!(selector, [("spec.selector.matchLabels.b".into(), true)]);
    }

    #[test]
    fn quantities_in_different_notations_are_equal() {
        for (one, other) in [("1", "1000m"), ("1.5Gi", "1536Mi"), ("0.5", "500m"), ("1G", "1000M")] {
            assert!(equal(&json!(one), &json!(other)), "{one} {other}");
        }
        assert!(equal(&json!(2), &json!("2")));
        for (one, other) in [("1", "1001m"), ("1Gi", "1G"), ("a", "b"), ("10%", "10")] {
            assert!(!equal(&json!(one), &json!(other)), "{one} {other}");
        }
    }
}
